"""Tokens that say which user a client is: given out through the log, kept in memory, ended by each member's own clock.

They are in no snapshot: a client whose token is unknown after a restart, or after a snapshot of the leader took the
place of part of the log, shows its password again, as with etcd.
"""

from collections.abc import Callable


class TokenTable:
    """Token -> user. ``now`` is injected: seconds, never going back."""

    def __init__(self, now: Callable[[], float], *, ttl_s: float = 300.0) -> None:
        self._now = now
        self.ttl_s = ttl_s
        self._tokens: dict[str, tuple[str, float]] = {}  # token -> (user, when it ends)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, token: str, user: str) -> None:
        """Give out a token; those whose time has run out are forgotten meanwhile."""
        now = self._now()
        self._tokens = {known: entry for known, entry in self._tokens.items() if entry[1] > now}
        self._tokens[token] = (user, now + self.ttl_s)

    def user_of(self, token: str) -> str | None:
        """Return whose token this is and give it its whole time again; None if it is not known (any more)."""
        user, ends = self._tokens.get(token, ("", 0.0))
        now = self._now()
        if ends <= now:
            self._tokens.pop(token, None)
            return None
        self._tokens[token] = (user, now + self.ttl_s)
        return user

    def drop_user(self, user: str) -> None:
        """End every token of a user."""
        self._tokens = {token: entry for token, entry in self._tokens.items() if entry[0] != user}

    def clear(self) -> None:
        """End every token."""
        self._tokens.clear()
