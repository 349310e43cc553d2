"""Informers: what subscribers are told, what indexes hold, what happens when watches break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.errors import Expired, Unavailable
from api.kinds.core import ConfigMap
from api.meta import ObjectMeta, OwnerReference
from client.clock import ManualClock
from client.informer import Informer, SharedInformers, by_label
from tests.fakes.resources import MemoryResources


def config_map(name: str, namespace: str = "x", owner: str = "", **labels: str) -> ConfigMap:
    owners = (OwnerReference(api_version="v1", kind="ConfigMap", name=owner, uid=owner),) if owner else ()
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels, owner_references=owners))


@asynccontextmanager
async def running(informers: SharedInformers) -> AsyncIterator[None]:
    task = asyncio.create_task(informers.run())
    try:
        await informers.wait_synced()
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_subscribers_get_keys_of_what_is_and_of_what_comes() -> None:
    memory = MemoryResources()
    await memory.create(config_map("a"))
    informers = SharedInformers(memory)
    cache = informers.of(ConfigMap)
    seen: list[str] = []
    cache.subscribe(seen.append)
    async with running(informers):
        await memory.create(config_map("b"))
        await memory.delete(ConfigMap, "a", namespace="x")
        await cache.wait_until(lambda: cache.get("x/a") is None and cache.get("x/b") is not None)
        late: list[str] = []
        cache.subscribe(late.append)
    assert seen == ["x/a", "x/b", "x/a"]
    assert late == ["x/b"]


async def test_what_a_change_concerns_is_asked_of_both_states() -> None:
    memory = MemoryResources()
    informers = SharedInformers(memory)
    cache = informers.of(ConfigMap)
    seen: list[str] = []

    def owners(before: ConfigMap | None, after: ConfigMap | None) -> list[str]:
        return [each.name for state in (before, after) if state for each in state.metadata.owner_references]

    cache.subscribe(seen.append, owners)
    async with running(informers):
        await memory.create(config_map("a", owner="one"))
        moved = {
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "two", "uid": "2"}]}
        }
        await memory.patch(ConfigMap, "a", moved, namespace="x")
        await turns()
    assert seen == ["one", "one", "two"]


async def test_indexes_follow_changes() -> None:
    memory = MemoryResources()
    await memory.create(config_map("a", color="red"))
    informers = SharedInformers(memory)
    cache = informers.of(ConfigMap, indexes={"color": by_label("color")})
    async with running(informers):
        await memory.create(config_map("b", "y", owner="o", color="red"))
        await memory.patch(ConfigMap, "a", {"metadata": {"labels": {"color": "blue"}}}, namespace="x")
        await turns()
        assert [each.metadata.name for each in cache.indexed("color", "red")] == ["b"]
        assert [each.metadata.name for each in cache.indexed("color", "blue")] == ["a"]
        assert [each.metadata.name for each in cache.owned_by("o")] == ["b"]
        assert [each.metadata.name for each in cache.in_namespace("x")] == ["a"]
        await memory.delete(ConfigMap, "b", namespace="y")
        await turns()
        assert cache.owned_by("o") == []


async def test_one_informer_for_all_who_ask_alike() -> None:
    informers = SharedInformers(MemoryResources())
    assert informers.of(ConfigMap) is informers.of(ConfigMap)
    assert informers.of(ConfigMap) is not informers.of(ConfigMap, namespace="x")
    async with running(informers):
        late = informers.of(ConfigMap, namespace="late")
        await informers.wait_synced()
        assert late.synced.is_set()


async def test_a_watch_that_breaks_goes_on_without_a_new_list() -> None:
    clock = ManualClock()
    memory = MemoryResources(clock=clock)
    informers = SharedInformers(memory, clock=clock)
    cache = informers.of(ConfigMap)
    async with running(informers):
        memory.break_watches(Unavailable("gone"))
        await turns()
        await memory.create(config_map("a"))
        await turns()
        assert cache.get("x/a") is None
        clock.advance(1)
        await turns()
        assert cache.get("x/a") is not None
    assert [verb for verb, _, _ in memory.calls].count("list") == 1


async def test_lost_history_means_a_new_list_that_tells_only_differences() -> None:
    clock = ManualClock()
    memory = MemoryResources(clock=clock)
    for name in ("kept", "changed", "gone"):
        await memory.create(config_map(name))
    informers = SharedInformers(memory, clock=clock)
    cache = informers.of(ConfigMap)
    async with running(informers):
        seen: list[tuple[str, bool, bool]] = []

        def note(before: ConfigMap | None, after: ConfigMap | None) -> list[str]:
            state = after or before
            assert state is not None
            seen.append((state.metadata.name, before is not None, after is not None))
            return []

        cache.subscribe(lambda key: None, note)
        seen.clear()
        memory.break_watches(Expired("compacted"))
        await memory.delete(ConfigMap, "gone", namespace="x")
        await memory.patch(ConfigMap, "changed", {"data": {"k": "v"}}, namespace="x")
        await memory.create(config_map("new"))
        memory.compact()
        await turns()
        clock.advance(1)
        await turns()
        assert sorted(seen) == [("changed", True, True), ("gone", True, False), ("new", False, True)]


async def test_an_older_list_is_not_believed_at_once() -> None:
    clock = ManualClock()
    memory = MemoryResources(clock=clock)
    await memory.create(config_map("a"))
    cache = Informer(memory, ConfigMap, clock=clock)
    task = asyncio.create_task(cache.run())
    await cache.synced.wait()
    await turns()
    memory.revision, kept = 0, memory.revision
    memory._history.clear()
    memory.break_watches(Expired("compacted"))
    await turns()
    clock.advance(1)
    await turns()
    assert cache.revision >= kept
    task.cancel()
    await asyncio.wait((task,))
