"""What a call brings besides its messages, whichever front took it in."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import msgspec
from google.protobuf.message import Message

_NOTHING: Mapping[str, str] = MappingProxyType({})


class CallContext(msgspec.Struct, frozen=True):
    """Who calls, and under which wishes."""

    metadata: Mapping[str, str] = _NOTHING  # lower-case name -> its first value
    common_name: str = ""  # of the client's verified certificate; empty: it showed none

    @property
    def token(self) -> str | None:
        """Return the token that an earlier Authenticate gave out."""
        return self.metadata.get("token") or self.metadata.get("authorization")

    @property
    def wants_leader(self) -> bool:
        """Return whether the call must fail while there is no leader."""
        return self.metadata.get("hasleader") == "true"


NO_CONTEXT = CallContext()


class Asked(Protocol):
    """A call that was taken in with others, and waits for its answer."""

    message: bytes  # the request as it came; it may be none
    gone: bool  # answered, or nobody waits any more

    def answer(self, message: bytes) -> None:
        """Answer with a response that is encoded already; nothing happens if nobody waits any more."""

    def answer_all(self, asks: Sequence[Any], messages: Sequence[bytes]) -> None:
        """Answer calls that were taken in together, this one among them, each by its message."""

    def fail(self, status: int, text: str) -> None:
        """Answer with a failure; nothing happens if nobody waits any more."""


class Outlet(Protocol):
    """Where a stream's responses go, if its front takes bytes."""

    async def send(self, response: bytes | Message) -> None:
        """Send a response; waits while the client is too slow."""

    def push(self, response: bytes) -> bool:
        """Send a response at once; return False if that has to wait, and nothing was sent."""


Batch = Callable[[Sequence[Asked], CallContext], None]  # takes calls of one client that say the same of themselves
