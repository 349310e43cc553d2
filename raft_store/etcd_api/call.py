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
    token: str | None = None  # that an earlier Authenticate gave out
    wants_leader: bool = False  # the call must fail while there is no leader


def context_of(metadata: Mapping[str, str], common_name: str = "") -> CallContext:
    """Return what a call's metadata, and its client's certificate, say."""
    token = metadata.get("token", metadata.get("authorization"))  # an empty one is one, too
    return CallContext(metadata, common_name, token, metadata.get("hasleader") == "true")


NO_CONTEXT = CallContext()


class Asked(Protocol):
    """A call that was taken in with others, and waits for its answer."""

    message: bytes  # the request as it came; it may be none
    gone: bool  # answered, or nobody waits any more

    def answer(self, message: bytes) -> None:
        """Answer with a response that is encoded already; nothing happens if nobody waits any more."""

    def answer_all(self, asks: Sequence[Any], messages: Sequence[bytes], *, at_once: bool) -> None:
        """Answer calls that were taken in together, this one among them, each by its message.

        at_once: the answers leave now, not at the end of this turn of the loop with those of others.
        """

    def fail(self, status: int, text: str) -> None:
        """Answer with a failure; nothing happens if nobody waits any more."""


class Outlet(Protocol):
    """Where a stream's responses go, if its front takes bytes."""

    async def send(self, response: bytes | Message) -> None:
        """Send a response; waits while the client is too slow."""

    def push(self, response: bytes) -> bool:
        """Send a response at once; return False if that has to wait, and nothing was sent."""


Batch = Callable[[Sequence[Asked], CallContext], None]  # takes calls of one client that say the same of themselves
