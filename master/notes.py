"""What a request picks up on its way: warnings for the client, annotations for the audit log.

They travel in a context variable, beside the verbs and not through them: whoever has something to say, however deep,
says it, and the server at the edge collects it. Outside a request (controllers, boot) nobody listens.
"""

from contextvars import ContextVar


class Notes:
    """The notes of one request, each text once, in the order they came."""

    def __init__(self) -> None:
        self._warnings: dict[str, None] = {}
        self.annotations: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warnings."""
        return tuple(self._warnings)

    def warn(self, text: str) -> None:
        """Take a warning; a change that is worked out twice repeats it."""
        self._warnings[text] = None


_current: ContextVar[Notes | None] = ContextVar("notes", default=None)


def collect() -> Notes:
    """Begin the notes of a request: what is said in this task, and in those it starts, is in them from now on."""
    notes = Notes()
    _current.set(notes)
    return notes


def warn(text: str) -> None:
    """Tell the client something that is no refusal."""
    if (notes := _current.get()) is not None:
        notes.warn(text)


def annotate(key: str, value: str) -> None:
    """Add to what the audit log says of this request."""
    if (notes := _current.get()) is not None:
        notes.annotations[key] = value
