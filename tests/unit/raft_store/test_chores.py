"""No background task of a member ends unheard."""

import asyncio

import pytest

from raft_store import chores
from raft_store.chores import Chores


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "REST_S", 0.0)


class Chore:
    """Fails as often as it is told, then works until it is cancelled."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.begun = 0
        self.works = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        if self.left:
            self.left -= 1
            raise RuntimeError(f"{self.left} to go")
        self.works.set()
        await asyncio.Event().wait()


async def test_a_chore_that_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    fatal: list[Exception] = []
    owner, chore = Chores(fatal.append), Chore(failures=2)
    owner.begin("sweep", chore)
    async with asyncio.timeout(5):
        await chore.works.wait()
    await owner.stop()
    assert (chore.begun, fatal) == (3, [])
    assert [record.exc_info is not None for record in caplog.records if "name=sweep" in record.message] == [True, True]


async def test_a_member_ends_if_a_chore_cannot_be_kept_going(caplog: pytest.LogCaptureFixture) -> None:
    fatal: asyncio.Queue[Exception] = asyncio.Queue()
    owner, chore = Chores(fatal.put_nowait), Chore(failures=100)
    owner.begin("sweep", chore)
    async with asyncio.timeout(5):
        assert str(await fatal.get()) == "97 to go"
    await owner.stop()
    assert chore.begun == chores.MAX_FAILURES
    assert caplog.records[-1].levelname == "CRITICAL"


async def test_a_chore_that_worked_for_long_has_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "GOOD_S", 0.0)
    fatal: list[Exception] = []
    owner, chore = Chores(fatal.append), Chore(failures=50)
    owner.begin("sweep", chore)
    async with asyncio.timeout(5):
        await chore.works.wait()
    await owner.stop()
    assert fatal == []


async def test_a_chore_may_be_done() -> None:
    async def once() -> None:
        done.set()

    fatal: list[Exception] = []
    done, owner = asyncio.Event(), Chores(fatal.append)
    owner.begin("once", once)
    async with asyncio.timeout(5):
        await done.wait()
    await owner.stop()
    assert fatal == []
