"""What controllers rely on, wherever the objects come from: the fake of the tests and a master's own registry."""

import asyncio
from typing import TypeVar

import pytest
from msgspec.structs import replace

from api.errors import AlreadyExists, Conflict, NotFound
from api.kinds.apps import Deployment, DeploymentSpec, DeploymentStatus
from api.kinds.core import ConfigMap, Namespace, NamespaceSpec, Node
from api.kinds.pods import Pod
from api.meta import LabelSelector, ObjectMeta, Resource
from client.resources import EventType, Resources, Revision, WatchEvent
from tests.fakes.world import ready_node, template

R = TypeVar("R", bound=Resource)


def config_map(name: str = "a", *, finalizers: tuple[str, ...] = (), **data: str) -> ConfigMap:
    meta = ObjectMeta(name=name, namespace="default", labels={"name": name}, finalizers=finalizers)
    return ConfigMap(metadata=meta, data=data)


def pod(name: str = "p") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=template({}).spec)


async def changes(
    resources: Resources, model: type[R], since: Revision, count: int, **query: str
) -> list[WatchEvent[R]]:
    """Return the next ``count`` events that are no bookmarks."""
    found: list[WatchEvent[R]] = []
    async with asyncio.timeout(10):
        async for event in resources.watch(model, revision=since, **query):
            if event.type is not EventType.BOOKMARK:
                found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_new_object_is_complete(resources: Resources) -> None:
    made = await resources.create(config_map(k="1"))
    meta = made.metadata
    assert meta.uid
    assert meta.resource_version
    assert meta.creation_timestamp
    assert (made.api_version, made.kind, made.data) == ("v1", "ConfigMap", {"k": "1"})
    assert await resources.get(ConfigMap, "a", namespace="default") == made
    with pytest.raises(AlreadyExists):
        await resources.create(config_map())


async def test_generated_names_differ(resources: Resources) -> None:
    meta = ObjectMeta(generate_name="web-", namespace="default")
    names = {(await resources.create(ConfigMap(metadata=meta))).metadata.name for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("web-") for name in names)


async def test_an_update_of_an_old_state_conflicts(resources: Resources) -> None:
    old = await resources.create(config_map())
    await resources.update(replace(old, data={"k": "1"}))
    with pytest.raises(Conflict):
        await resources.update(replace(old, data={"k": "2"}))
    unconditional = replace(old, metadata=replace(old.metadata, resource_version=""), data={"k": "3"})
    assert (await resources.update(unconditional)).data == {"k": "3"}
    with pytest.raises(NotFound):
        await resources.update(config_map("missing"))


async def test_a_write_that_changes_nothing_is_no_revision(resources: Resources) -> None:
    made = await resources.create(config_map())
    assert (await resources.update(made)).metadata.resource_version == made.metadata.resource_version


async def test_spec_and_status_are_written_apart(resources: Resources) -> None:
    selector = LabelSelector(match_labels={"a": "b"})
    spec = DeploymentSpec(replicas=1, selector=selector, template=template({"a": "b"}))
    made = await resources.create(Deployment(metadata=ObjectMeta(name="d", namespace="default"), spec=spec))
    assert made.metadata.generation == 1
    both = replace(made, spec=replace(made.spec, replicas=2), status=DeploymentStatus(replicas=7))
    changed = await resources.update(both)
    assert (changed.spec.replicas, changed.status.replicas, changed.metadata.generation) == (2, None, 2)
    status = replace(changed, spec=replace(changed.spec, replicas=9), status=DeploymentStatus(replicas=7))
    told = await resources.update(status, subresource="status")
    assert (told.spec.replicas, told.status.replicas, told.metadata.generation) == (2, 7, 2)


async def test_a_patch_deletes_with_null_and_minds_the_revision(resources: Resources) -> None:
    made = await resources.create(config_map(a="1", b="2"))
    changed = await resources.patch(ConfigMap, "a", {"data": {"a": None, "c": "3"}}, namespace="default")
    assert changed.data == {"b": "2", "c": "3"}
    stale = {"metadata": {"resourceVersion": made.metadata.resource_version}, "data": {"d": "4"}}
    with pytest.raises(Conflict):
        await resources.patch(ConfigMap, "a", stale, namespace="default")


async def test_deletion_minds_the_uid_and_finalizers(resources: Resources) -> None:
    made = await resources.create(config_map(finalizers=("example.com/hold",)))
    with pytest.raises(Conflict):
        await resources.delete(ConfigMap, "a", namespace="default", uid="another")
    await resources.delete(ConfigMap, "a", namespace="default", uid=made.metadata.uid)
    held = await resources.get(ConfigMap, "a", namespace="default")
    assert held.metadata.deletion_timestamp
    await resources.patch(ConfigMap, "a", {"metadata": {"finalizers": None}}, namespace="default")
    with pytest.raises(NotFound):
        await resources.get(ConfigMap, "a", namespace="default")


async def test_a_bound_pod_has_grace_and_goes_at_once_by_force(resources: Resources) -> None:
    made = await resources.create(pod())
    await resources.create(ready_node("n1"))
    await resources.bind(namespace="default", pod="p", uid=made.metadata.uid, node="n1")
    with pytest.raises(Conflict):
        await resources.bind(namespace="default", pod="p", uid=made.metadata.uid, node="n1")
    bound = await resources.get(Pod, "p", namespace="default")
    assert bound.spec.node_name == "n1"
    assert [(each.type, each.status) for each in bound.status.conditions] == [("PodScheduled", "True")]
    await resources.delete(Pod, "p", namespace="default")
    leaving = await resources.get(Pod, "p", namespace="default")
    assert leaving.metadata.deletion_grace_period_seconds == 30
    await resources.delete(Pod, "p", namespace="default", grace_period_s=0)
    with pytest.raises(NotFound):
        await resources.get(Pod, "p", namespace="default")


async def test_a_namespace_goes_when_it_is_finalized(resources: Resources) -> None:
    made = await resources.create(Namespace(metadata=ObjectMeta(name="shop")))
    assert made.spec.finalizers == ("kubernetes",)
    await resources.delete(Namespace, "shop")
    leaving = await resources.get(Namespace, "shop")
    assert leaving.status.phase == "Terminating"
    await resources.update(replace(leaving, spec=NamespaceSpec()), subresource="finalize")
    with pytest.raises(NotFound):
        await resources.get(Namespace, "shop")


async def test_a_watch_tells_every_change_after_a_list_in_order(resources: Resources) -> None:
    await resources.create(config_map("before"))
    listing = await resources.list(ConfigMap, namespace="default")
    assert [each.metadata.name for each in listing.items] == ["before"]
    made = await resources.create(config_map("a"))
    changed = await resources.update(replace(made, data={"k": "1"}))
    await resources.delete(ConfigMap, "a", namespace="default")
    events = await changes(resources, ConfigMap, listing.revision, 3, namespace="default")
    assert [each.type for each in events] == [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert [each.object for each in events[:2]] == [made, changed]
    revisions = [int(each.revision) for each in events]
    assert revisions == sorted(revisions)
    assert revisions[:2] == [int(each.metadata.resource_version) for each in (made, changed)]


async def test_selectors_turn_changes_into_comings_and_goings(resources: Resources) -> None:
    start = (await resources.list(Pod)).revision
    made = await resources.create(pod())
    await resources.create(ready_node("n1"))
    await resources.bind(namespace="default", pod="p", uid=made.metadata.uid, node="n1")
    await resources.delete(Pod, "p", namespace="default", grace_period_s=0)
    events = await changes(resources, Pod, start, 2, field_selector="spec.nodeName=n1")
    assert [each.type for each in events] == [EventType.ADDED, EventType.DELETED]
    listing = await resources.list(Node, label_selector="kubernetes.io/hostname in (n1)")
    assert [each.metadata.name for each in listing.items] == ["n1"]
