"""One thread for calls that block: one at a time, in order.

What a thread pool adds to that (futures of two kinds, locks, a callback that schedules a callback) would be a third of
a write's cost when writes come one by one.
"""

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar, cast

T = TypeVar("T")

Done = Callable[[object, BaseException | None], None]  # (what the call returned, what it raised)


class DiskThread:
    """Runs calls for one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, name: str) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[[], object], Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(self, call: Callable[[], object], done: Done) -> None:
        """Run ``call`` in the thread, then ``done`` in the event loop; it must not raise."""
        self._calls.put((call, done))

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``call`` in the thread, after what was begun before; await what it returns, or raises."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: object, exc: BaseException | None) -> None:
            if future.done():
                return  # nobody waits any more
            if exc is not None:
                future.set_exception(exc)
            else:
                future.set_result(cast("T", result))

        self.begin(call, done)
        return future

    def close(self) -> None:
        """Let the thread end after the calls that were begun; returns when it has. Blocks."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, done = item
            result, raised = None, None
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - it is raised where somebody waits
                raised = exc
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
                self._loop.call_soon_threadsafe(done, result, raised)
            # The names must not keep alive, until the next call, what belongs to this one.
            del item, call, done, result, raised
