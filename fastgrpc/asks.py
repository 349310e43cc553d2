"""Unary calls by the lot: what one read of a socket brought is handed over, and may be answered, together.

A call of its own costs a coroutine, an object that could do much more, and a turn of the loop or two. Who serves a
method that is called all the time wants none of this: only messages, and whom to answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import msgspec

from .calls import CallFailed, CallHead, Metadata, Status


class BatchMethod(msgspec.Struct, frozen=True):
    """One message in, one out. The handler takes calls by the lot, never empty, and does not wait.

    It answers each call by ``Ask.answer`` or ``Ask.fail``, at once or whenever it can. A lot is what one client sent in
    one go. If the handler raises, those of the lot that have no answer yet fail.
    """

    path: str  # "/package.Service/Method"
    handler: "Callable[[Sequence[Ask]], None]"

    @staticmethod
    def decode(message: bytes) -> bytes:
        """Leave a message as it is: handlers take and give bytes."""
        return message

    encode = decode


class Replies(Protocol):
    """The connection under an ask."""

    memo: Any  # for whoever stands above: what it found out about the client, say

    @property
    def address(self) -> str:
        """Return "host:port" of the client."""

    @property
    def certificate(self) -> dict[str, Any]:
        """Return the client's verified certificate as ``ssl`` describes it; empty: it showed none."""

    def answer(self, ask: "Ask", message: bytes) -> None:
        """Answer a call."""

    def answer_all(self, asks: "Sequence[Ask]", messages: Sequence[bytes], *, at_once: bool) -> None:
        """Answer calls of one method, each by its message; at_once: what is to be written leaves now."""

    def refuse(self, ask: "Ask", exc: CallFailed) -> None:
        """End a call with its failure."""


class Ask(msgspec.Struct, eq=False):
    """One call of a ``BatchMethod``: a message that waits for its answer."""

    peer: Replies
    stream: int
    head: CallHead
    method: BatchMethod
    message: bytes  # as it came; it may be no message of the method's
    deadline_s: float | None = None  # by the loop's clock
    bucket: int = 0  # among the deadlines
    gone: bool = False  # answered, or nobody listens any more

    head_sent: ClassVar[bool] = False  # nothing of a response goes out before its end ...
    task: "ClassVar[asyncio.Task[None] | None]" = None  # ... and no task works on it
    trailing_metadata: ClassVar[Metadata] = ()

    @property
    def metadata(self) -> Metadata:
        """Return what the client sent along."""
        return self.head.metadata

    def answer(self, message: bytes) -> None:
        """Answer with a message that is encoded already; nothing happens if nobody waits any more."""
        if not self.gone:
            self.peer.answer(self, message)

    def answer_all(self, asks: "Sequence[Ask]", messages: Sequence[bytes], *, at_once: bool = False) -> None:
        """Answer calls of one lot, this one among them, each by its message: what ``answer`` does to each, by less.

        at_once: the answers leave now, not at the end of this turn of the loop with whatever else is written in it.
        """
        self.peer.answer_all(asks, messages, at_once=at_once)

    def fail(self, status: int, text: str) -> None:
        """Answer with a failure; nothing happens if nobody waits any more."""
        if not self.gone:
            self.peer.refuse(self, CallFailed(Status(status), text))

    # -- what the connection tells, as it does a ``Call`` --------------------------------------------------------------

    def forget(self) -> int:
        """Nobody listens any more; return how many bytes are still to be called consumed."""
        self.gone = True
        return 0

    def room(self) -> None:
        """What waited has gone out."""
