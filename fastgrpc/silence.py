"""How long the other end has been silent, by a clock that stands still while this process does."""


def no_patience() -> float:
    """Return how much longer than usual the other end may take: not at all."""
    return 0.0


class Silence:
    """Told of every sign of life, and looked at every now and then; without I/O.

    Whoever looks late, because its process did not get to run, would take its own absence for the other end's: what
    came meanwhile may not have been read yet, and on one machine the other end may not have got to run either.
    """

    __slots__ = ("_heard", "_looked_s", "_silent_s")

    def __init__(self, now_s: float) -> None:
        self._heard = True
        self._looked_s = now_s
        self._silent_s = 0.0

    def break_(self) -> None:
        """The other end gave a sign of life."""
        self._heard = True

    def look(self, now_s: float, *, every_s: float) -> float:
        """Return for how many seconds nothing came, as far as those know who meant to look every ``every_s``."""
        passed_s = min(now_s - self._looked_s, 2 * every_s)
        self._silent_s = 0.0 if self._heard else self._silent_s + passed_s
        self._heard = False
        self._looked_s = now_s
        return self._silent_s
