"""A member's background work: every task has an owner, and none ends unheard.

A chore that fails begins anew after a rest, so that one bad moment costs little. One that keeps failing is our own
mistake, and a member that seems to live but ends no leases, say, is worse than one that ends: then the member does.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

REST_S = 1.0  # before a chore that failed begins anew
MAX_FAILURES = 3  # one after the other; with that many the member ends
GOOD_S = 60.0  # a chore that ran so long has recovered from whatever it failed of before


class Chores:
    """Runs chores until ``stop``; ``on_fatal`` is told why if one cannot be kept going."""

    def __init__(self, on_fatal: Callable[[Exception], None]) -> None:
        self._on_fatal = on_fatal
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, name: str, chore: Callable[[], Coroutine[None, None, None]]) -> None:
        """Start a chore; it may end by itself when it is done."""
        self._tasks.append(asyncio.create_task(self._keep(name, chore), name=name))

    async def stop(self) -> None:
        """Cancel all of them, and return when they are over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _keep(self, name: str, chore: Callable[[], Coroutine[None, None, None]]) -> None:
        failures, now = 0, asyncio.get_running_loop().time
        while True:
            began = now()
            try:
                await chore()
            except Exception as exc:
                failures = failures + 1 if now() - began < GOOD_S else 1
                if failures == MAX_FAILURES:
                    log.critical("a chore cannot be kept going name=%s failures=%d", name, failures, exc_info=exc)
                    self._on_fatal(exc)
                    return
                log.exception("a chore failed and begins anew name=%s failures=%d", name, failures)
                await asyncio.sleep(REST_S)
            else:
                return
