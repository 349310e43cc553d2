"""One pod's operations: slow work at its containers and its sandbox that goes on while the worker looks again.

Whoever has one under way is busy, and gets no other. What may be cut short when the pod ends, an operation says by its
task's name: calls that reached the engine run to their end, for whatever they make must be seen to be removed.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from api.errors import ApiError
from node_agent.errors import NodeError
from node_agent.runtime.base import PodRef

log = logging.getLogger(__name__)

T = TypeVar("T")

PREPARE = "prepare"  # waits for others: image, network, objects; cancelled when the pod ends
COMMIT = "commit"  # talks to the engine: never cancelled
KILL = "kill"  # waits for a grace period: begun again when the period becomes shorter
ENGINE_RETRY_S = 1.0


class Operations:
    """At most one operation for each name. pod: for the log; on_end: called whenever one has ended."""

    def __init__(self, pod: PodRef, *, on_end: Callable[[], None]) -> None:
        self._pod = pod
        self._on_end = on_end
        self._under_way: dict[str, asyncio.Task[None]] = {}

    @property
    def busy(self) -> frozenset[str]:
        """The names with an operation under way."""
        return frozenset(self._under_way)

    def start(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None], *, phase: str) -> None:
        """Begin ``work``, unless ``name`` is busy."""
        if name in self._under_way:
            work.close()
            return
        self._under_way[name] = tasks.create_task(self._operate(name, work), name=phase)

    def cut_short(self) -> None:
        """The pod ends, or ends earlier: give up what it need not wait for."""
        for name, task in list(self._under_way.items()):
            # A kill waits for the longer period: it begins again with what is left. A start that has not reached the
            # engine yet may wait for a registry or a network that never answers.
            if task.get_name() in {KILL, PREPARE}:
                task.cancel()
                self._under_way.pop(name, None)

    def cancel(self) -> None:
        """Give up all, wherever they are."""
        for task in self._under_way.values():
            task.cancel()

    async def _operate(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Own one operation: its failure is the pod's, not the worker's."""
        try:
            await work
        except (NodeError, ApiError) as exc:
            log.warning("pod operation failed pod=%s operation=%r error=%s", self._pod, name, exc)
            await asyncio.sleep(ENGINE_RETRY_S)
        finally:
            if self._under_way.get(name) is asyncio.current_task():
                del self._under_way[name]
            self._on_end()


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
