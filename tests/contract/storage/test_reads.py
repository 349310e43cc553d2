"""Lists in pages and versions, watches from any point, and a cache that never disagrees with the store."""

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Self

import pytest

from api.errors import AlreadyExists, BadRequest, Conflict, Expired, NotFound, Timeout
from client.etcd import EtcdClient
from client.resources import EventType
from master import changes
from master.cache import LAST_BOOKMARK_S
from master.reads import ExpiredList
from master.rest.seam import Event, Query
from tests.contract.storage.conftest import Cluster, running_core
from tests.contract.storage.test_registry import config_map

ALL = {"namespace": "default"}


async def fill(cluster: Cluster, count: int) -> None:
    for n in range(count):
        await cluster.create("configmaps", {"metadata": {"name": f"c{n:02}", "labels": {"odd": str(n % 2)}}})


def forged(**token: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode()


class Watching:
    """A watch that has been opened, read one event at a time."""

    def __init__(self, cluster: Cluster, resource: str = "configmaps", **query: Any) -> None:
        self._batches = cluster.registry.watch(cluster.kind(resource), Query(**{**ALL, **query}))
        self._events: list[Event] = []

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(5):
            self._events += await anext(self._batches)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._batches.aclose()

    async def next(self) -> Event:
        while not self._events:
            async with asyncio.timeout(5):
                self._events += await anext(self._batches)
        return self._events.pop(0)

    async def told(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event.type.value, event.stored.obj.metadata.name if event.stored else "") for event in events]


class TestList:
    async def test_in_pages_shows_one_state(self, cluster: Cluster) -> None:
        await fill(cluster, 7)
        first = await cluster.list("configmaps", limit=3, **ALL)
        assert ([each.obj.metadata.name for each in first.items], first.remaining) == (["c00", "c01", "c02"], 4)
        await cluster.delete("configmaps", "c04")
        await cluster.create("configmaps", config_map("c045"))
        second = await cluster.list("configmaps", limit=3, continue_token=first.continue_token, **ALL)
        third = await cluster.list("configmaps", limit=3, continue_token=second.continue_token, **ALL)
        assert [each.obj.metadata.name for each in (*second.items, *third.items)] == ["c03", "c04", "c05", "c06"]
        assert (second.remaining, third.continue_token) == (1, "")
        assert first.revision == second.revision == third.revision

    async def test_in_pages_with_a_selector(self, cluster: Cluster) -> None:
        await fill(cluster, 9)
        names: list[str] = []
        token = ""
        while True:
            page = await cluster.list("configmaps", limit=2, label_selector="odd=1", continue_token=token, **ALL)
            assert page.remaining is None
            names += [each.obj.metadata.name for each in page.items]
            await cluster.patch("configmaps", "c00", {"data": {"x": str(len(names))}})
            if not (token := page.continue_token):
                break
        assert names == ["c01", "c03", "c05", "c07"]

    async def test_of_few_among_many_is_read_in_few_steps(
        self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await fill(cluster, 33)
        await cluster.create("configmaps", {"metadata": {"name": "d", "labels": {"odd": "2"}}})
        then = (await cluster.create("configmaps", {"metadata": {"name": "e", "labels": {"odd": "2"}}}))["metadata"]
        await fill_more(cluster)
        asked = []
        page_of = cluster.core.storage.page

        async def counting(*args: Any, **more: Any) -> Any:
            asked.append(more["limit"])
            return await page_of(*args, **more)

        monkeypatch.setattr(cluster.core.storage, "page", counting)
        exact = {"resource_version": then["resourceVersion"], "label_selector": "odd=2", "limit": 1, **ALL}
        page = await cluster.list("configmaps", **exact)
        assert [each.obj.metadata.name for each in page.items] == ["d"]
        assert len(asked) <= 6, "what a page holds is no measure of what must be read for it"
        rest = {"continue_token": page.continue_token, "label_selector": "odd=2", "limit": 1, **ALL}
        assert await cluster.names("configmaps", **rest) == ["e"]

    @pytest.mark.parametrize(
        ("token", "refusal"),
        [
            ("!", BadRequest),
            (forged(rv=0, start="default/c00"), BadRequest),
            (forged(rv=-7, start="default/c00"), BadRequest),
            (forged(rv=2**70, start=""), BadRequest),
            (forged(rv=10**12, start="default/c00"), Timeout),
        ],
    )
    async def test_with_a_token_that_nobody_gave(self, cluster: Cluster, token: str, refusal: type[Exception]) -> None:
        with pytest.raises(refusal):
            await cluster.list("configmaps", continue_token=token, limit=1, **ALL)

    async def test_with_a_token_of_another_namespace_shows_only_its_own(self, cluster: Cluster) -> None:
        await fill(cluster, 2)
        await cluster.create("configmaps", config_map("there"), namespace="kube-system")
        then = (await cluster.list("configmaps")).revision
        await fill_more(cluster)
        token = forged(rv=then, start="default/c00")
        assert await cluster.names("configmaps", continue_token=token, namespace="kube-system") == ["there"]
        token = forged(rv=then, start="kube-system/there")
        assert await cluster.names("configmaps", continue_token=token, **ALL) == []

    async def test_whose_history_is_gone_offers_to_go_on(self, cluster: Cluster) -> None:
        await fill(cluster, 4)
        page = await cluster.list("configmaps", limit=2, **ALL)
        made = await cluster.create("configmaps", config_map("late"))
        await cluster.core.storage.client.compact(int(made["metadata"]["resourceVersion"]))
        with pytest.raises(ExpiredList) as refusal:
            await cluster.list("configmaps", limit=2, continue_token=page.continue_token, **ALL)
        token = refusal.value.status()["metadata"]["continue"]
        assert await cluster.names("configmaps", continue_token=token, **ALL) == ["c02", "c03", "late"]

    async def test_at_an_exact_version(self, cluster: Cluster) -> None:
        await fill(cluster, 2)
        then = (await cluster.list("configmaps", **ALL)).revision
        await fill_more(cluster)
        exact = {"resource_version": str(then), "resource_version_match": "Exact", **ALL}
        assert await cluster.names("configmaps", **exact) == ["c00", "c01"]
        newer = {"resource_version": str(then), "resource_version_match": "NotOlderThan", **ALL}
        assert "later" in await cluster.names("configmaps", **newer)

    async def test_of_a_version_that_has_not_come(self, cluster: Cluster) -> None:
        with pytest.raises(Timeout) as refusal:
            await cluster.list("configmaps", resource_version=str(10**9), **ALL)
        assert refusal.value.causes[0].reason == "ResourceVersionTooLarge"
        assert refusal.value.retry_after_s == 1

    async def test_of_one_namespace_among_similar_names(self, cluster: Cluster) -> None:
        for name in ("a", "a-b", "a.b", "a0"):
            if "." not in name:
                await cluster.create("namespaces", {"metadata": {"name": name}})
                await cluster.create("configmaps", config_map(f"in-{name}"), namespace=name)
        assert await cluster.names("configmaps", namespace="a") == ["in-a"]
        assert sorted(await cluster.names("configmaps")) == ["in-a", "in-a-b", "in-a0"]

    async def test_field_that_cannot_be_selected(self, cluster: Cluster) -> None:
        with pytest.raises(BadRequest, match="is not a known field selector: only"):
            await cluster.list("configmaps", field_selector="data.x=1")

    async def test_sees_what_another_master_wrote(self, cluster: Cluster, client: EtcdClient) -> None:
        async with running_core(client) as other:
            theirs = Cluster(other)
            for n in range(10):
                made = await theirs.create("configmaps", config_map(f"c{n}"))
                assert await cluster.get("configmaps", f"c{n}") == made

    async def test_is_newest_though_others_write_elsewhere_in_the_store(self, cluster: Cluster) -> None:
        # These writes move the store's revision and never show on the registry's watch.
        for _ in range(5):
            await cluster.core.storage.client.put(b"/elsewhere", b"x")
            async with asyncio.timeout(2):
                await cluster.list("configmaps")


async def fill_more(cluster: Cluster) -> None:
    await cluster.delete("configmaps", "c00")
    await cluster.create("configmaps", config_map("later"))


class TestWatch:
    async def test_from_a_version_tells_what_came_after(self, cluster: Cluster) -> None:
        await fill(cluster, 2)
        then = (await cluster.list("configmaps", **ALL)).revision
        await cluster.patch("configmaps", "c00", {"data": {"x": "1"}})
        async with Watching(cluster, resource_version=str(then)) as watch:
            await cluster.delete("configmaps", "c01")
            await cluster.create("configmaps", config_map("new"))
            assert await watch.told(3) == [("MODIFIED", "c00"), ("DELETED", "c01"), ("ADDED", "new")]

    async def test_without_a_version_begins_with_what_is(self, cluster: Cluster) -> None:
        await fill(cluster, 2)
        async with Watching(cluster) as watch:
            assert sorted(await watch.told(2)) == [("ADDED", "c00"), ("ADDED", "c01")]
            await cluster.delete("configmaps", "c00")
            assert await watch.told(1) == [("DELETED", "c00")]

    async def test_as_a_list_ends_it_with_a_bookmark(self, cluster: Cluster) -> None:
        await fill(cluster, 1)
        query = {"initial_events": True, "bookmarks": True, "resource_version_match": "NotOlderThan"}
        async with Watching(cluster, **query) as watch:
            assert await watch.told(1) == [("ADDED", "c00")]
            end = await watch.next()
            assert (end.type, end.initial_events_end) == (EventType.BOOKMARK, True)
            assert end.revision >= int((await cluster.get("configmaps", "c00"))["metadata"]["resourceVersion"])

    async def test_ends_with_a_bookmark_to_go_on_from(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        query = {"label_selector": "x=y", "bookmarks": True, "timeout_s": LAST_BOOKMARK_S + 0.05}
        async with Watching(cluster, resource_version=made["metadata"]["resourceVersion"], **query) as watch:
            there = int((await cluster.create("configmaps", config_map("unwanted")))["metadata"]["resourceVersion"])
            last = await watch.next()
        assert (last.type, last.revision >= there) == (EventType.BOOKMARK, True)

    async def test_deleted_shows_the_last_state_at_the_deletions_version(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a", x="1"))
        async with Watching(cluster, resource_version=made["metadata"]["resourceVersion"]) as watch:
            await cluster.delete("configmaps", "a")
            event = await watch.next()
        assert event.stored is not None
        assert event.revision > int(made["metadata"]["resourceVersion"])
        assert event.stored.obj.metadata.resource_version == str(event.revision)
        assert event.stored.obj.metadata.uid == made["metadata"]["uid"]

    async def test_selector_turns_changes_into_comings_and_goings(self, cluster: Cluster) -> None:
        made = await cluster.create("configmaps", config_map("a"))
        since = made["metadata"]["resourceVersion"]
        async with Watching(cluster, resource_version=since, label_selector="in=yes") as watch:
            for labels in ({"in": "yes"}, {"in": "yes", "more": "1"}, {"in": "no", "more": None}, {"in": "yes"}):
                await cluster.patch("configmaps", "a", {"metadata": {"labels": labels}})
            assert [kind for kind, _ in await watch.told(4)] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]

    async def test_by_field(self, cluster: Cluster) -> None:
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        made = await cluster.create("pods", pod)
        since = made["metadata"]["resourceVersion"]
        async with Watching(cluster, "pods", resource_version=since, field_selector="spec.nodeName=n1") as watch:
            await cluster.create("pods", {"target": {"name": "n1"}}, name="p", subresource="binding")
            assert await watch.told(1) == [("ADDED", "p")]

    async def test_from_a_version_too_old(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(changes, "RECENT_CHANGES", 3)
        made = await cluster.create("configmaps", config_map("a"))
        for n in range(5):
            await cluster.patch("configmaps", "a", {"data": {"x": str(n)}})
        await cluster.list("configmaps")
        with pytest.raises(Expired, match="too old resource version"):
            async with Watching(cluster, resource_version=made["metadata"]["resourceVersion"]):
                pass

    async def test_goes_on_where_another_master_left_off(self, cluster: Cluster, client: EtcdClient) -> None:
        async with running_core(client) as other:
            theirs = Cluster(other)
            await fill(cluster, 2)
            async with Watching(cluster) as watch:
                seen = [await watch.next() for _ in range(2)]
            await fill_more(cluster)
            async with Watching(theirs, resource_version=str(seen[-1].revision)) as watch:
                assert await watch.told(2) == [("DELETED", "c00"), ("ADDED", "later")]

    async def test_of_the_other_face(self, cluster: Cluster) -> None:
        async with Watching(cluster, "events.events.k8s.io", field_selector="regarding.name=web") as watch:
            about = {"kind": "Pod", "name": "web", "namespace": "default"}
            await cluster.create("events", {"metadata": {"name": "e"}, "involvedObject": about, "message": "m"})
            event = await watch.next()
        assert event.stored is not None
        assert event.stored.obj.api_version == "events.k8s.io/v1"


async def test_unreadable_object_is_hidden_and_no_obstacle(cluster: Cluster) -> None:
    client = cluster.core.storage.client
    await client.put(b"/registry/configmaps/default/bad", b"not json")
    await client.put(b"/registry/configmaps/default/pretty", b'{ "kind": "ConfigMap", "metadata": {"name": "pretty"} }')
    await client.put(b"/registry/unheard/of", b"{}")
    await cluster.create("configmaps", config_map("good"))
    assert await cluster.names("configmaps", **ALL) == ["good", "pretty"]


@pytest.mark.parametrize("seed", range(3))
async def test_list_and_watch_give_the_stores_own_state(cluster: Cluster, client: EtcdClient, seed: int) -> None:
    """Goal: whoever lists, then watches, has exactly what the store has. Method: churn by two masters, compare.

    Readers list and watch from there at random moments, with and without a selector, some through the other master.
    """
    rng = random.Random(seed)
    async with running_core(client) as other:
        masters = [cluster, Cluster(other)]
        stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        readers = [
            asyncio.create_task(_mirror(rng.choice(masters), stop, selector, delay_s=rng.random()))
            for selector in ("", "odd=1", "odd=0", "")
        ]
        await asyncio.gather(*(churn(rng.choice(masters), random.Random(rng.random()), 60) for _ in range(4)))
        final = (await cluster.create("configmaps", {"metadata": {"name": "zz", "labels": {"odd": "1"}}}))["metadata"]
        stop.set_result(int(final["resourceVersion"]))
        async with asyncio.timeout(60):
            mirrors = await asyncio.gather(*readers)
    found = await client.range(b"/registry/configmaps/", b"/registry/configmaps0")
    stored = {kv.key.decode().rpartition("/")[2]: kv.mod_revision for kv in found.kvs}
    odd = {name for name in stored if name.endswith(("1", "3", "zz"))}
    assert stored["zz"] == int(final["resourceVersion"])
    assert mirrors[0] == mirrors[3] == stored
    assert mirrors[1] == {name: revision for name, revision in stored.items() if name in odd}
    assert mirrors[2] == {name: revision for name, revision in stored.items() if name not in odd}


async def churn(cluster: Cluster, rng: random.Random, count: int) -> None:
    for _ in range(count):
        number = rng.randrange(5)
        name = f"c{number}"
        try:
            match rng.randrange(3):
                case 0:
                    await cluster.create("configmaps", {"metadata": {"name": name, "labels": {"odd": str(number % 2)}}})
                case 1:
                    await cluster.patch("configmaps", name, {"data": {"x": str(rng.random())}})
                case 2:
                    await cluster.delete("configmaps", name)
        except (NotFound, AlreadyExists, Conflict):
            continue


async def _mirror(cluster: Cluster, stop: "asyncio.Future[int]", selector: str, *, delay_s: float) -> dict[str, int]:
    """Keep a copy by list and watch until the last change is in it; fail on any gap, repeat or step back.

    stop: the revision of the last change. Who selects something else never sees it, and stops when nothing comes.
    """
    await asyncio.sleep(delay_s)
    page = await cluster.list("configmaps", label_selector=selector, **ALL)
    copy = {each.obj.metadata.name: each.revision for each in page.items}
    query = Query(label_selector=selector, resource_version=str(page.revision), **ALL)
    last = page.revision
    async with aclosing(cluster.registry.watch(cluster.kind("configmaps"), query)) as batches:
        sees_last = selector != "odd=0"
        async for event in _until_over(batches, stop, last, sees_last=sees_last):
            assert event.stored is not None
            assert event.revision > last, "revisions go up and never repeat"
            last = event.revision
            name = event.stored.obj.metadata.name
            match event.type:
                case EventType.ADDED:
                    assert name not in copy
                    copy[name] = event.revision
                case EventType.MODIFIED:
                    assert name in copy
                    copy[name] = event.revision
                case EventType.DELETED:
                    del copy[name]
    return copy


async def _until_over(batches: Any, stop: "asyncio.Future[int]", seen: int, *, sees_last: bool) -> AsyncIterator[Event]:
    coming = asyncio.ensure_future(anext(batches))
    # The last change may be seen before whoever made it says which it is.
    while not (stop.done() and seen >= stop.result()):
        done, _ = await asyncio.wait([coming], timeout=0.5 if stop.done() else 0.05)
        if not done:
            if stop.done() and not sees_last:
                break
            continue
        for event in coming.result():
            seen = event.revision
            yield event
        coming = asyncio.ensure_future(anext(batches))
    coming.cancel()
    await asyncio.wait([coming])
