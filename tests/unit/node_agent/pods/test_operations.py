"""Operations of a pod: one for each name, and which of them the pod's end cuts short."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.errors import Unavailable
from node_agent.pods import operations
from node_agent.pods.operations import COMMIT, KILL, PREPARE, Operations, phase
from node_agent.runtime.base import RuntimeFailed
from tests.unit.node_agent.pods.situations import REF


class Work:
    """Operations that go on until told to end."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.may_end = asyncio.Event()
        self.ends = 0
        self.done: list[str] = []
        self.operations = Operations(REF, on_end=self._count)

    def _count(self) -> None:
        self.ends += 1

    def start(self, name: str, word: str, *, titled: str = COMMIT, inner: str = "") -> None:
        self.operations.start(self.tasks, name, self._wait(word, inner), phase=titled)

    async def _wait(self, word: str, inner: str) -> None:
        if inner:
            with phase(inner):
                await self.may_end.wait()
        else:
            await self.may_end.wait()
        self.done.append(word)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        found = Work(tasks)
        yield found
        found.may_end.set()


async def test_who_is_busy_gets_no_other_operation(work: Work) -> None:
    work.start("main", "first")
    work.start("main", "second")
    work.start("side", "third")
    assert work.operations.busy == {"main", "side"}
    work.may_end.set()
    await work.settle()
    assert (work.operations.busy, work.done, work.ends) == (frozenset(), ["first", "third"], 2)


@pytest.mark.parametrize(
    ("titled", "inner", "is_cut"),
    [
        (PREPARE, "", True),
        (KILL, "", True),
        (COMMIT, "", False),
        (PREPARE, COMMIT, False),
        (COMMIT, PREPARE, True),
    ],
    ids=["prepares", "kills", "at the engine", "has come to the engine", "waits for others meanwhile"],
)
async def test_an_end_cuts_short_what_has_not_reached_the_engine(
    work: Work, titled: str, inner: str, *, is_cut: bool
) -> None:
    work.start("main", "first", titled=titled, inner=inner)
    await work.settle()
    work.operations.cut_short()
    assert work.operations.busy == (frozenset() if is_cut else {"main"})
    # Its name is free at once: a kill begins again, and the end of the old one must not make the new one forgotten.
    work.start("main", "second", titled=titled)
    await work.settle()
    assert work.operations.busy == {"main"}
    work.may_end.set()
    await work.settle()
    assert work.done == (["second"] if is_cut else ["first"])


@pytest.mark.parametrize("error", [RuntimeFailed("engine"), Unavailable("masters")], ids=["engine", "masters"])
async def test_a_failed_operation_frees_its_name_and_harms_nobody(
    work: Work, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "ENGINE_RETRY_S", 0.0)

    async def fail() -> None:
        raise error

    work.operations.start(work.tasks, "main", fail(), phase=COMMIT)
    work.start("side", "on")
    await work.settle()
    assert (work.operations.busy, work.ends) == ({"side"}, 1)
