"""One transaction a write, and a plain answer even when the store's own answer was lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from api.errors import Timeout, Unavailable
from client import etcd
from client.etcd import EtcdClient
from master import storage
from master.storage import Fence, Fenced, Put, Refused, Remove, Storage, exact_progress


class LosingClient:
    """Passes calls to a real client, and loses the answers of some transactions."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.faults: list[str] = []  # for each transaction to come: "before", "after", "down" or ""
        self.meanwhile: Callable[[], Any] | None = None  # what others do after a lost one

    async def txn(self, *arguments: Any, **options: Any) -> etcd.TxnResult:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "down":
            raise etcd.Unavailable("nobody is there")
        answer = None
        if fault != "before":
            answer = await self._client.txn(*arguments, **options)
        if fault:
            if self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                await meanwhile()
            raise etcd.Unknown("the answer was lost")
        assert answer is not None
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


@pytest.fixture
def losing(client: EtcdClient) -> LosingClient:
    return LosingClient(client)


@pytest.fixture
def store_of(losing: LosingClient) -> Storage:
    return Storage(losing)  # type: ignore[arg-type]


KEY = "/registry/x/a"


async def test_without_a_quorum_no_write_begins(store_of: Storage, losing: LosingClient) -> None:
    """Goal: a client of a master that is cut off hears of it while its connection stands, and asks another master."""
    store_of.has_quorum = False
    losing.faults = ["down"]
    with pytest.raises(Unavailable) as refused:
        await store_of.commit([Put(KEY, b"mine", 0)])
    assert refused.value.retry_after_s == 1
    assert losing.faults == ["down"]


async def test_a_write_that_nobody_took_ends_with_the_quorum(store_of: Storage, losing: LosingClient) -> None:
    losing.faults = ["down"] * 500
    writing = asyncio.create_task(store_of.commit([Put(KEY, b"mine", 0)]))
    await asyncio.sleep(0.1)
    assert not writing.done()
    store_of.has_quorum = False
    with pytest.raises(Unavailable):
        await writing


async def test_without_a_quorum_a_write_that_somebody_may_have_taken_is_asked_after(
    store_of: Storage, losing: LosingClient
) -> None:
    async def lose_it() -> None:
        store_of.has_quorum = False

    losing.faults, losing.meanwhile = ["after", "down"], lose_it
    revision = await store_of.commit([Put(KEY, b"mine", 0)])
    found = await store_of.get(KEY)
    assert found is not None
    assert found.revision == revision


class Asked:
    """A store that is asked for its revision; what it does, one time after the other."""

    def __init__(self, *does: str) -> None:
        self.does = list(does)

    async def revision(self, *, timeout_s: float) -> int:
        match self.does.pop(0):
            case "is late":
                await asyncio.sleep(timeout_s)
            case "is away":
                raise etcd.Unavailable("nobody is there")
            case "refuses":
                raise etcd.Refused("permission denied")
        return 7


@pytest.mark.parametrize(
    ("does", "has_quorum"),
    [
        pytest.param(["tells"], True, id="it tells"),
        pytest.param(["is late", "tells"], True, id="late once: a slow election, or our own loop"),
        pytest.param(["is away", "tells"], True, id="away once"),
        pytest.param(["is late", "is late"], False, id="it is cut off"),
        pytest.param(["is away", "is away"], False, id="nobody is there"),
        pytest.param(["refuses"], True, id="a refusal is an answer"),
    ],
)
async def test_a_store_has_a_quorum_that_says_anything_when_it_is_asked_twice(
    does: Sequence[str], *, has_quorum: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PROBE_S", 0.02)
    monkeypatch.setattr(storage, "PROBE_AGAIN_S", 0.02)
    monkeypatch.setattr(storage, "PROBE_EVERY_S", 60.0)
    asked = Asked(*does)
    store = Storage(asked)  # type: ignore[arg-type]
    store.has_quorum = not has_quorum
    probing = asyncio.create_task(store.probe())
    async with asyncio.timeout(10):
        while store.has_quorum is not has_quorum:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
    probing.cancel()
    assert asked.does == []


@pytest.mark.parametrize("faults", [["before"], ["after"], ["after", "down", "before"], ["down"]], ids="-".join)
async def test_create_whose_answer_is_lost(store_of: Storage, losing: LosingClient, faults: Sequence[str]) -> None:
    losing.faults = list(faults)
    revision = await store_of.commit([Put(KEY, b"mine", 0)])
    found = await store_of.get(KEY)
    assert found is not None
    assert (found.data, found.revision) == (b"mine", revision)


async def test_lost_create_of_a_name_that_somebody_else_took(store_of: Storage, losing: LosingClient) -> None:
    losing.faults = ["before"]
    losing.meanwhile = lambda: losing.put(KEY.encode(), b"theirs")
    with pytest.raises(Refused) as refusal:
        await store_of.commit([Put(KEY, b"mine", 0)])
    present = refusal.value.present[KEY]
    assert present is not None
    assert present.data == b"theirs"


async def test_lost_update_that_was_written_over(store_of: Storage, losing: LosingClient) -> None:
    first = await store_of.commit([Put(KEY, b"1", 0)])
    losing.faults = ["after"]

    async def others() -> None:
        for data in (b"3", b"4"):
            await losing.put(KEY.encode(), data)

    losing.meanwhile = others
    revision = await store_of.commit([Put(KEY, b"2", first)])
    assert revision == first + 1, "it did take effect, though it is not what the key holds now"


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_lost_delete(store_of: Storage, losing: LosingClient, fault: str) -> None:
    first = await store_of.commit([Put(KEY, b"1", 0)])
    losing.faults = [fault]
    assert await store_of.commit([Remove(KEY, first)]) > first
    assert await store_of.get(KEY) is None


async def test_all_writes_or_none(store_of: Storage) -> None:
    await store_of.commit([Put("/registry-alloc/1", b"", 0)])
    with pytest.raises(Refused) as refusal:
        await store_of.commit([Put(KEY, b"", 0), Put("/registry-alloc/1", b"", 0)])
    assert refusal.value.present[KEY] is None
    assert await store_of.get(KEY) is None


async def test_fence_that_holds_no_more(store_of: Storage, losing: LosingClient) -> None:
    revision = (await losing.put(b"/lead", b"me")).revision
    fence = Fence("/lead", revision)
    await store_of.commit([Put(KEY, b"1", 0)], fence=fence)
    await losing.put(b"/lead", b"you")
    with pytest.raises(Fenced):
        await store_of.commit([Put("/registry/x/b", b"1", 0)], fence=fence)
    assert await store_of.get("/registry/x/b") is None
    await losing.delete(b"/lead")
    with pytest.raises(Fenced):
        await store_of.commit([Put("/registry/x/b", b"1", 0)], fence=fence)


@pytest.mark.parametrize(("fault", "kind"), [("down", Unavailable), ("before", Timeout)])
async def test_store_that_stays_away(
    store_of: Storage, losing: LosingClient, fault: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "WRITE_TIMEOUT_S", 0.3)
    losing.faults = [fault] * 100
    with pytest.raises(kind) as refusal:
        await store_of.commit([Put(KEY, b"1", 0)])
    assert refusal.value.retry_after_s > 0  # type: ignore[attr-defined]


async def test_listing_in_pages_is_one_revision(store_of: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        await store_of.commit([Put(f"/registry/x/{n}", b"%d" % n, 0)])
    pages = store_of.page

    async def page_of_two(prefix: str, **options: Any) -> Any:
        found = await pages(prefix, **options, limit=2)
        await store_of.client.put(b"/registry/x/9", b"late")
        return found

    monkeypatch.setattr(store_of, "page", page_of_two)
    listing = await store_of.list_all()
    assert [item.key for item in listing.changes] == [f"x/{n}" for n in range(7)]


async def test_following_tells_all_changes_in_order(store_of: Storage) -> None:
    start = await store_of.current_revision()
    first = await store_of.commit([Put(KEY, b"1", 0)])
    told = []
    stream = store_of.follow(after=start)
    second = await store_of.commit([Put(KEY, b"2", first)])
    third = await store_of.commit([Remove(KEY, second)])
    async with asyncio.timeout(5):
        async for message in stream:
            told += [(change.key, change.revision, change.data) for change in message.changes]
            if message.revision >= third:
                break
    await stream.aclose()
    assert told == [("x/a", first, b"1"), ("x/a", second, b"2"), ("x/a", third, None)]


@pytest.mark.parametrize(
    ("version", "exact"),
    [("3.4.30", False), ("3.4.31", True), ("3.5.12", False), ("3.5.13", True), ("3.6.0", True), ("4.0.0-rc.1", True),
     ("", False), ("3.3.99", False)],
)  # fmt: skip
def test_progress_is_asked_for_only_where_it_is_exact(version: str, exact: bool) -> None:  # noqa: FBT001 - a column
    assert exact_progress(version) is exact
