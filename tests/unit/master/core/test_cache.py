"""The watch cache against a source that a test plays."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from api.errors import Expired, Timeout, Unavailable
from api.kinds.table import TABLE
from client.resources import EventType
from master import cache as cache_module
from master.cache import HistoryLost, KeyChange, KeyChanges, WatchCache
from master.changes import Watcher
from master.freshness import Freshness
from master.objects import Selection, with_revision, without_revision

KIND = TABLE.preferred("", "configmaps")
assert KIND is not None
EVERYTHING = Selection()


def stored(name: str, uid: str = "u", **labels: str) -> bytes:
    import msgspec

    meta = {"name": name, "namespace": "n", "uid": uid, "labels": labels}
    return msgspec.json.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})


def put(name: str, revision: int, uid: str = "u") -> KeyChange:
    return KeyChange(f"configmaps/n/{name}", revision, stored(name, uid))


def gone(name: str, revision: int) -> KeyChange:
    return KeyChange(f"configmaps/n/{name}", revision, None)


class Played:
    """A store whose listings and watch messages a test hands out."""

    def __init__(self) -> None:
        self.listings: asyncio.Queue[KeyChanges] = asyncio.Queue()
        self.messages: asyncio.Queue[KeyChanges | Exception] = asyncio.Queue()
        self.followed_from: list[int] = []
        self.questions = 0
        self.revision = 0
        self.progress = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def list_all(self) -> KeyChanges:
        return await self.listings.get()

    async def follow(self, *, after: int) -> AsyncGenerator[KeyChanges, None]:
        self.followed_from.append(after)
        while True:
            message = await self.messages.get()
            if isinstance(message, Exception):
                raise message
            yield message

    async def current_revision(self) -> int:
        self.questions += 1
        answer = self.revision
        await self.gate.wait()
        return answer

    async def request_progress(self) -> None:
        self.progress += 1
        self.messages.put_nowait(KeyChanges(self.revision))


async def told(watcher: Watcher, count: int) -> list[tuple[EventType, str, int]]:
    events = []
    async with asyncio.timeout(2):
        while len(events) < count:
            events += await watcher.next_batch()
    return [(event.type, event.stored.name if event.stored else "", event.revision) for event in events]


@pytest.fixture
def source() -> Played:
    return Played()


@pytest.fixture
async def cache(source: Played, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[WatchCache, None]:
    monkeypatch.setattr(cache_module, "RETRY_S", 0.0)
    filled = WatchCache(TABLE, source)
    task = asyncio.create_task(filled.run())
    source.listings.put_nowait(KeyChanges(10, [put("a", 3), put("b", 5)]))
    async with asyncio.timeout(2):
        while not filled.connected:  # noqa: ASYNC110 - the cache tells nobody
            await asyncio.sleep(0)
    yield filled
    task.cancel()
    await asyncio.wait([task])


def watch(cache: WatchCache, revision: int) -> Watcher:
    return cache.watch_since(KIND, EVERYTHING, EVERYTHING, revision, bookmarks=False)


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param([put("a", 20), put("b", 5)], id="one change"),
        pytest.param([put("a", 20), put("c", 25)], id="several"),
        pytest.param([put("a", 3), put("b", 22, uid="another")], id="deleted and made again"),
        pytest.param([], id="deletions"),
    ],
)
async def test_who_watches_what_changed_unseen_lists_again(
    cache: WatchCache, source: Played, listed: list[KeyChange]
) -> None:
    """Goal: nobody is told what happened in steps that may not have been the real ones, and goes on from their middle."""
    watcher = watch(cache, 10)
    heard: list[str] = []
    cache.listen(KIND.place, lambda name, stored: heard.append(name))
    source.messages.put_nowait(HistoryLost())
    source.listings.put_nowait(KeyChanges(30, listed))
    with pytest.raises(Expired):
        await told(watcher, 1)
    assert heard, "what is made of the objects inside the master follows all the same"
    with pytest.raises(Expired):
        watch(cache, 29)
    watch(cache, 30)


async def test_who_watches_what_did_not_change_unseen_goes_on(cache: WatchCache, source: Played) -> None:
    watcher = watch(cache, 10)
    source.messages.put_nowait(HistoryLost())
    source.listings.put_nowait(KeyChanges(30, [put("a", 3), put("b", 5)]))
    source.messages.put_nowait(KeyChanges(31, [put("a", 31)]))
    assert await told(watcher, 1) == [(EventType.MODIFIED, "a", 31)]


async def test_broken_watch_goes_on_where_it_was(cache: WatchCache, source: Played) -> None:
    watcher = watch(cache, 10)
    source.messages.put_nowait(KeyChanges(11, [put("a", 11)]))
    source.messages.put_nowait(Unavailable("gone for a while"))
    source.messages.put_nowait(KeyChanges(12, [put("a", 11), gone("b", 12)]))
    assert await told(watcher, 2) == [(EventType.MODIFIED, "a", 11), (EventType.DELETED, "b", 12)]
    assert source.followed_from == [10, 11]


async def test_slow_watcher_is_cut_and_told(cache: WatchCache) -> None:
    slow = Watcher(EVERYTHING, backlog=2)
    cache.place(KIND).open(slow)
    cache.apply(KeyChanges(14, [put("a", 11), put("a", 12), put("a", 13), put("a", 14)]))
    with pytest.raises(Expired, match="too far behind"):
        await told(slow, 1)


async def test_one_question_answers_for_everybody_who_waits(cache: WatchCache, source: Played) -> None:
    source.revision = 10
    source.gate.clear()
    readers = [asyncio.create_task(cache.fresh()) for _ in range(20)]
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(cache.fresh()) for _ in range(20)]
    await asyncio.sleep(0.01)
    source.gate.set()
    async with asyncio.timeout(2):
        await asyncio.gather(*readers, *late)
    assert source.questions == 2, "those who came after the first question was asked need a second one"


async def test_reader_waits_until_the_cache_has_come_so_far(cache: WatchCache, source: Played) -> None:
    source.revision = 17  # moved by writes that the watch does not show
    async with asyncio.timeout(2):
        await cache.fresh()
    assert cache.revision == 17
    assert source.progress == 1


async def test_revision_that_does_not_come(cache: WatchCache) -> None:
    with pytest.raises(Timeout) as refusal:
        await cache.reach(99, timeout_s=0.02)
    assert refusal.value.causes[0].reason == "ResourceVersionTooLarge"


async def test_failed_question_fails_only_those_who_asked() -> None:
    answers: list[int | Exception] = [Unavailable("no quorum"), 5]

    async def ask() -> int:
        await asyncio.sleep(0)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    fresh = Freshness(ask)
    with pytest.raises(Unavailable):
        await fresh.revision()
    assert await fresh.revision() == 5


async def test_cache_that_was_never_filled_answers_nothing(source: Played) -> None:
    with pytest.raises(Unavailable):
        await WatchCache(TABLE, source).reach(0)


def test_revision_is_put_in_and_taken_out_of_bytes() -> None:
    data = stored("a", resourceVersion="no, a label")
    shown = with_revision(data, 7)
    assert b'"metadata":{"resourceVersion":"7","name":"a"' in shown
    assert without_revision(shown) == data
    assert with_revision(shown, 8) == with_revision(data, 8)


@pytest.mark.parametrize("namespace", ["", "a", "b", "ab", "z"])
def test_what_follows_a_page_is_counted_without_being_looked_at(namespace: str) -> None:
    place = WatchCache(TABLE, Played()).place(KIND)
    names = ["a/1", "a/2", "a-b/1", "ab/1", "b/1", "b/2", "b/3", "c/1"]
    place.fill({name: name for name in names})  # type: ignore[dict-item] - only keys are counted
    selection = Selection(namespace)
    for after in ["a/1", "a/15", "ab/1", "b/0", "b/2", "b/3", "c/1", "d/1"]:
        assert place.count(selection, after=after) == len(list(place.select(selection, selection, after=after)))
    assert len(list(place.select(selection, selection))) == sum(
        not namespace or name.startswith(f"{namespace}/") for name in names
    )
