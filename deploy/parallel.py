"""Doing the same to many hosts at once."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
WORKERS = 16


def each(items: Iterable[Item], action: Callable[[Item], Outcome]) -> list[Outcome]:
    """Return ``action`` of every item, in their order; raises the first failure once all have ended.

    All have ended even then: whoever cleans up after a failure must not race with what is still being made.
    """
    todo: Sequence[Item] = list(items)
    if len(todo) <= 1:
        return [action(item) for item in todo]
    with ThreadPoolExecutor(max_workers=min(WORKERS, len(todo))) as pool:
        futures = [pool.submit(action, item) for item in todo]
        wait(futures)
    return [future.result() for future in futures]
