"""Requests of a stream in batches: whatever came while the last batch was being dealt with."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def gathered(requests: AsyncIterator[T], *, at_most: int) -> AsyncIterator[list[T]]:
    """Yield one request at least and ``at_most``, in their order, never waiting for a second one.

    Reads no further ahead than one batch. Raises what ``requests`` raises, after what came before it.
    """
    waiting: asyncio.Queue[T | None] = asyncio.Queue(at_most)
    reading = asyncio.create_task(_read(requests, waiting))
    try:
        while (request := await waiting.get()) is not None:
            batch = [request]
            while len(batch) < at_most and not waiting.empty():
                if (request := waiting.get_nowait()) is None:
                    break
                batch.append(request)
            yield batch
            if request is None:
                break
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(requests: AsyncIterator[T], waiting: "asyncio.Queue[T | None]") -> None:
    try:
        async for request in requests:
            await waiting.put(request)
    except asyncio.CancelledError:
        raise  # nobody waits for the end any more, and there may be no room to tell it
    except Exception:
        await waiting.put(None)
        raise
    await waiting.put(None)
