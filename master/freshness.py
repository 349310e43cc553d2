"""How new the store is: asked once for everybody who waits for the answer."""

import asyncio
from collections.abc import Awaitable, Callable


class Freshness:
    """Asks for the store's revision, once for everybody who is waiting."""

    def __init__(self, ask: Callable[[], Awaitable[int]]) -> None:
        self._ask = ask
        self._running: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None

    async def revision(self) -> int:
        """Return a revision that the store was at after this call began."""
        # A question under way may have been answered before we came: only the one after it is good for us.
        if self._next is None:
            self._next = asyncio.create_task(self._ask_after(self._running))
        return await asyncio.shield(self._next)

    async def _ask_after(self, running: "asyncio.Task[int] | None") -> int:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._ask()
