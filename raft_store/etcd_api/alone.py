"""Calls that came by the lot, but have to be answered one by one: of callers who are known by name, or what is rare."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from .call import Asked, CallContext
from .errors import Code, RpcError

log = logging.getLogger(__name__)

Request = TypeVar("Request", bound=Message)


class Alone(Generic[Request]):
    """Answers requests of one kind, each in a task; ``one_by_one`` answers one, whatever it takes to do so."""

    def __init__(self, request: type[Request], one_by_one: Callable[[Request, CallContext], Awaitable[bytes]]) -> None:
        self._request = request
        self._one_by_one = one_by_one
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, ask: Asked, call: CallContext) -> None:
        """Answer ``ask``, soon."""
        task = asyncio.ensure_future(self._answer(ask, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, ask: Asked, call: CallContext) -> None:
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
