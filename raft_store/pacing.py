"""Long work in the event loop, in short steps with rests between them.

What touches the machine's state has to run in the loop, where heartbeats and requests wait for it. So it comes as an
iterator whose every step is short, and takes a share of the loop's time, not all of it.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TypeVar

SHARE = 0.3  # of the loop's time
LONGEST_REST_S = 0.1
WORTH_A_REST_S = 0.0005  # shorter work is put together

_T = TypeVar("_T")


async def paced(steps: Iterator[_T]) -> AsyncIterator[_T]:
    """Yield what ``steps`` yields; before the next one, the loop had its turn."""
    now = asyncio.get_running_loop().time
    worked_s, began = 0.0, now()
    for step in steps:
        worked_s += now() - began
        yield step
        if worked_s >= WORTH_A_REST_S:
            await asyncio.sleep(min(worked_s * (1 - SHARE) / SHARE, LONGEST_REST_S))
            worked_s = 0.0
        began = now()


async def result_of(steps: Generator[None, None, _T]) -> _T:
    """Return what a generator returns after its steps, taken as ``paced`` does."""
    returned: list[_T] = []

    def drain() -> Iterator[None]:
        returned.append((yield from steps))

    async for _ in paced(drain()):
        pass
    return returned[0]
