"""What may be cut short when a pod ends: an operation says by its task's name how far it has come.

Calls that reached the engine run to their end, for whatever they make must be seen to be removed.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

PREPARE = "prepare"  # waits for others: image, network, objects; cancelled when the pod ends
COMMIT = "commit"  # talks to the engine: never cancelled
KILL = "kill"  # waits for a grace period: begun again when the period becomes shorter


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Say that the current operation is in another phase meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    before = task.get_name()
    task.set_name(name)
    try:
        yield
    finally:
        task.set_name(before)


def shared(task: "asyncio.Task[T]") -> "asyncio.Task[T]":
    """Return a task that several wait for, perhaps nobody at its end: then its failure is nobody's, and no error."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task
