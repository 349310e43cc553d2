"""Calls that came by the lot, but have to be answered one by one: of callers who are known by name, or what is rare."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from raft_store.engine import Overloaded

from .call import Asked, CallContext
from .errors import Code, RpcError, rpc_error

log = logging.getLogger(__name__)

Request = TypeVar("Request", bound=Message)
MAX_WAITING = 20_000  # requests of one kind: each is a task, of several kilobytes ...
MAX_WAITING_BYTES = 64 << 20  # ... and its own bytes


class Alone(Generic[Request]):
    """Answers requests of one kind, each in a task; ``one_by_one`` answers one, whatever it takes to do so."""

    def __init__(self, request: type[Request], one_by_one: Callable[[Request, CallContext], Awaitable[bytes]]) -> None:
        self._request = request
        self._one_by_one = one_by_one
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting_bytes = 0

    def take(self, ask: Asked, call: CallContext) -> None:
        """Answer ``ask``, soon; that too many wait if they do: without a leader each would, for its whole time."""
        waiting, size_bytes = len(self._tasks), len(ask.message)
        if waiting >= MAX_WAITING or self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
            error = rpc_error(Overloaded(f"{waiting} requests of {self._waiting_bytes} bytes are waiting"))
            ask.fail(error.code, error.text)
            return
        self._waiting_bytes += size_bytes
        task = asyncio.ensure_future(self._answer(ask, call))
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, size_bytes))

    def _forget(self, size_bytes: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._waiting_bytes -= size_bytes

    async def _answer(self, ask: Asked, call: CallContext) -> None:
        if ask.gone:  # given up before its turn came
            return
        try:
            ask.answer(await self._one_by_one(decode(self._request, ask.message), call))
        except RpcError as exc:
            ask.fail(exc.code, exc.text)
        except Exception as exc:
            # Our own mistake; whoever asked is told what a front tells of a call that it took in alone.
            log.exception("a request failed")
            ask.fail(Code.UNKNOWN, f"{type(exc).__name__}: {exc}")


def decode(request: type[Request], message: bytes) -> Request:
    """Return the request. Raises RpcError if ``message`` is none."""
    try:
        return request.FromString(message)
    except DecodeError as exc:
        raise RpcError(Code.INTERNAL, f"a request cannot be decoded: {exc}") from exc
