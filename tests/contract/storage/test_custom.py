"""Custom kinds through real registries: from definition to objects, on one master and on three."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from api.errors import ApiError, BadRequest, Conflict, Invalid, MethodNotAllowed, NotFound, UnsupportedMediaType
from client.etcd import EtcdClient
from client.resources import EventType
from master.controllers.definitions import DefinitionController
from master.controllers.garbagecollector import GarbageCollector
from master.controllers.manager import ControllerManager, Row
from master.controllers.namespaces import NamespaceController
from master.local import LocalResources
from master.rest.seam import Query, WriteOptions
from tests.contract.storage.conftest import ADMIN, Cluster, running_core

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
WIDGETS = "widgets.example.com"
ROWS = (
    Row("definitions", DefinitionController),
    Row("namespace", NamespaceController),
    Row("garbagecollector", GarbageCollector),
)
SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1},
        "color": {"type": "string", "default": "red"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
            },
        },
    },
}


def version(name: str = "v1", **more: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": SPEC,
            "status": {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}}},
        },
    }
    found: dict[str, Any] = {
        "name": name,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.size",
                "statusReplicasPath": ".status.size",
                "labelSelectorPath": ".status.selector",
            },
        },
        "selectableFields": [{"jsonPath": ".spec.color"}],
    }
    return found | more


def definition(*versions: dict[str, Any], plural: str = "widgets", kind: str = "Widget", **more: Any) -> dict[str, Any]:
    names = {"plural": plural, "kind": kind, **more.pop("names", {})}
    return {
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": list(versions) or [version()],
            **more,
        },
    }


def widget(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"size": 1, **spec}}


async def until(done: Callable[[], Any]) -> None:
    """Wait, not for long, for what controllers and caches do; ``done`` may be a coroutine function."""
    async with asyncio.timeout(8):
        while not (await found if inspect.isawaitable(found := done()) else found):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def controllers(cluster: Cluster) -> AsyncIterator[None]:
    manager = ControllerManager(LocalResources(cluster.registry, ADMIN), rows=ROWS, table=cluster.registry.table)
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def define(cluster: Cluster, document: dict[str, Any]) -> None:
    """Create a definition and wait until ``cluster`` serves it."""
    await cluster.create(DEFINITIONS, document)
    await until(lambda: cluster.registry.table.defined_by(document["metadata"]["name"]))


@pytest.fixture
async def custom(cluster: Cluster) -> AsyncIterator[Cluster]:
    """A cluster whose controllers run and that has widgets."""
    async with controllers(cluster):
        await define(cluster, definition())
        yield cluster


class TestDefinitions:
    async def test_an_accepted_definition_says_so(self, custom: Cluster) -> None:
        status = (await custom.get(DEFINITIONS, WIDGETS))["status"]
        assert {each["type"]: each["status"] for each in status["conditions"]} == {
            "NamesAccepted": "True",
            "Established": "True",
        }
        assert status["storedVersions"] == ["v1"]
        assert status["acceptedNames"] == {
            "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
        }  # fmt: skip

    async def test_who_comes_second_does_not_get_the_name(self, custom: Cluster) -> None:
        await custom.create(DEFINITIONS, definition(plural="gadgets", kind="Widget"))

        async def conditions() -> dict[str, Any]:
            status = (await custom.get(DEFINITIONS, "gadgets.example.com")).get("status", {})
            return {each["type"]: each for each in status.get("conditions", ())}

        await until(conditions)
        found = await conditions()
        assert (found["NamesAccepted"]["status"], found["NamesAccepted"]["reason"]) == ("False", "ListKindConflict")
        assert found["Established"]["status"] == "False"
        assert custom.registry.table.defined_by("gadgets.example.com") is None
        # When the first one goes its name is free.
        await custom.delete(DEFINITIONS, WIDGETS)
        await until(lambda: custom.registry.table.defined_by("gadgets.example.com"))

    async def test_deleting_a_definition_deletes_its_objects_first(self, custom: Cluster) -> None:
        made = await custom.create(
            WIDGETS, {"metadata": {"name": "a", "finalizers": ["example.com/hold"]}, "spec": {"size": 1}}
        )
        kind = custom.kind(WIDGETS)
        await custom.create(WIDGETS, widget("b"))
        events = custom.registry.watch(kind, Query(resource_version=made["metadata"]["resourceVersion"]))
        await anext(events)
        await custom.delete(DEFINITIONS, WIDGETS)

        async def only_a_is_left() -> bool:
            page = await custom.registry.list(kind, Query())
            return [stored.obj.metadata.name for stored in page.items] == ["a"]

        await until(only_a_is_left)
        with pytest.raises(MethodNotAllowed, match="terminating"):
            await custom.create(WIDGETS, widget("c"))
        await custom.patch(WIDGETS, "a", {"metadata": {"finalizers": None}})
        await until(lambda: custom.registry.table.defined_by(WIDGETS) is None)
        with pytest.raises(NotFound):
            await custom.get(DEFINITIONS, WIDGETS)
        seen = [event async for batch in events for event in batch]  # the watch ends in order
        assert [event.stored.obj.metadata.name for event in seen if event.type is EventType.DELETED] == ["b", "a"]
        # A kind of the same name is another one.
        await define(custom, definition(scope="Cluster"))
        assert await custom.names(WIDGETS) == []

    async def test_what_was_stored_before_a_restart_is_served_after_it(
        self, custom: Cluster, client: EtcdClient
    ) -> None:
        await custom.create(WIDGETS, widget("a", color="blue"))
        # So that the object's key is older than its definition's.
        await custom.patch(DEFINITIONS, WIDGETS, {"metadata": {"labels": {"a": "b"}}})
        async with running_core(client) as core:
            again = Cluster(core)
            assert (await again.get(WIDGETS, "a"))["spec"]["color"] == "blue"


class TestObjects:
    async def test_a_new_object_is_pruned_completed_and_counted(self, custom: Cluster) -> None:
        made = await custom.create(
            WIDGETS, {**widget("a", other=1, free={"x": {"y": 1}}), "status": {"size": 9}, "z": 1}
        )
        assert made["spec"] == {"size": 1, "color": "red", "free": {"x": {"y": 1}}}
        assert "status" not in made
        assert "z" not in made
        assert made["metadata"]["generation"] == 1
        assert (made["apiVersion"], made["kind"]) == ("example.com/v1", "Widget")

    async def test_unknown_fields_are_told_or_refused(self, custom: Cluster) -> None:
        kind = custom.kind(WIDGETS)
        written = await custom.write_new(kind, widget("a", other=1), "default", field_validation="Warn")
        assert written.warnings == ('unknown field "spec.other"',)
        with pytest.raises(BadRequest, match=r'unknown field "spec\.other"'):
            await custom.write_new(kind, widget("b", other=1), "default", field_validation="Strict")

    async def test_a_finalizer_without_a_domain_is_told_of_when_it_is_added(self, custom: Cluster) -> None:
        kind = custom.kind(WIDGETS)
        plain = {**widget("a"), "metadata": {"name": "a", "finalizers": ["mine", "example.com/mine", "orphan"]}}
        written = await custom.write_new(kind, plain, "default")
        (told,) = written.warnings
        assert told.startswith('metadata.finalizers: "mine": prefer a domain-qualified finalizer name')
        assert (await custom.write_patch(WIDGETS, "a", {"spec": {"size": 2}})).warnings == ()

    async def test_a_wrong_object_is_refused_with_every_fault(self, custom: Cluster) -> None:
        with pytest.raises(Invalid) as refused:
            await custom.create(WIDGETS, {"metadata": {"name": "A_"}, "spec": {"size": 0, "color": 1}})
        assert {cause.field for cause in refused.value.causes} == {"metadata.name", "spec.size", "spec.color"}
        assert str(refused.value).startswith('Widget.example.com "A_" is invalid: ')

    async def test_spec_and_status_are_written_apart(self, custom: Cluster) -> None:
        made = await custom.create(WIDGETS, widget("a"))
        with_status = await custom.update(
            WIDGETS, made | {"status": {"size": 3}, "spec": {"size": 5}}, subresource="status"
        )
        assert (with_status["spec"]["size"], with_status["status"]) == (1, {"size": 3})
        assert with_status["metadata"]["generation"] == 1
        changed = await custom.update(WIDGETS, with_status | {"status": {"size": 4}, "spec": {"size": 5}})
        assert (changed["spec"]["size"], changed["status"]) == (5, {"size": 3})
        assert changed["metadata"]["generation"] == 2
        with pytest.raises(Invalid, match=r"status\.size"):
            await custom.patch(WIDGETS, "a", {"status": {"size": "many"}}, subresource="status")
        same = await custom.update(WIDGETS, changed)
        assert same["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]

    async def test_an_update_needs_a_resource_version(self, custom: Cluster) -> None:
        await custom.create(WIDGETS, widget("a"))
        with pytest.raises(Invalid, match="must be specified for an update"):
            await custom.update(WIDGETS, widget("a") | {"metadata": {"name": "a", "namespace": "default"}})

    async def test_scale(self, custom: Cluster) -> None:
        await custom.create(WIDGETS, widget("a"))
        await custom.patch(WIDGETS, "a", {"status": {"size": 2, "selector": "a=b"}}, subresource="status")
        scale = await custom.patch(WIDGETS, "a", {"spec": {"replicas": 7}}, subresource="scale")
        assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 7)
        assert scale["status"] == {"replicas": 2, "selector": "a=b"}
        assert (await custom.get(WIDGETS, "a"))["spec"] == {"size": 7, "color": "red"}
        assert (await custom.get(WIDGETS, "a"))["metadata"]["generation"] == 2

    async def test_patches(self, custom: Cluster) -> None:
        await custom.create(WIDGETS, widget("a", color="blue"))
        assert (await custom.patch(WIDGETS, "a", {"spec": {"color": None}}))["spec"]["color"] == "red"
        replace = [{"op": "replace", "path": "/spec/size", "value": 4}]
        assert (await custom.patch(WIDGETS, "a", replace, "json"))["spec"]["size"] == 4
        with pytest.raises(UnsupportedMediaType):
            await custom.patch(WIDGETS, "a", {"spec": {"size": 1}}, "strategic")

    async def test_server_side_apply(self, custom: Cluster) -> None:
        def intent(**spec: Any) -> dict[str, Any]:
            return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec}

        one = intent(size=1, tags=["x"], parts=[{"name": "p", "count": 1}], free={"k": 1})
        made = await custom.patch(WIDGETS, "a", one, "apply", field_manager="one")
        (entry,) = made["metadata"]["managedFields"]
        assert entry["fieldsV1"]["f:spec"] == {
            "f:size": {},
            "f:tags": {'v:"x"': {}},
            "f:parts": {'k:{"name":"p"}': {".": {}, "f:name": {}, "f:count": {}}},
            "f:free": {"f:k": {}},
        }
        two = intent(tags=["y"], parts=[{"name": "q", "count": 2}], free={"l": 2})
        both = await custom.patch(WIDGETS, "a", two, "apply", field_manager="two")
        assert both["spec"] == {
            "size": 1, "color": "red", "tags": ["x", "y"], "free": {"k": 1, "l": 2},
            "parts": [{"name": "p", "count": 1}, {"name": "q", "count": 2}],
        }  # fmt: skip
        with pytest.raises(Conflict, match=r"\.spec\.size"):
            await custom.patch(WIDGETS, "a", intent(size=5), "apply", field_manager="two")
        less = await custom.patch(WIDGETS, "a", intent(size=1), "apply", field_manager="one")
        assert less["spec"] == {
            "size": 1, "color": "red", "tags": ["y"], "free": {"l": 2}, "parts": [{"name": "q", "count": 2}],
        }  # fmt: skip
        with pytest.raises(BadRequest, match="field not declared in schema"):
            await custom.patch(WIDGETS, "a", intent(sise=5), "apply", field_manager="two")

    async def test_selectable_fields(self, custom: Cluster) -> None:
        for name, color in (("a", "blue"), ("b", "red")):
            await custom.create(WIDGETS, widget(name, color=color))
        assert await custom.names(WIDGETS, field_selector="spec.color=blue") == ["a"]
        assert await custom.names(WIDGETS, field_selector="metadata.name=b") == ["b"]
        with pytest.raises(BadRequest, match="field label not supported"):
            await custom.names(WIDGETS, field_selector="spec.size=1")

    async def test_owned_objects_go_with_their_owner(self, custom: Cluster) -> None:
        owner = await custom.create(WIDGETS, widget("owner"))
        reference = {
            "apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"],
        }  # fmt: skip
        await custom.create("configmaps", {"metadata": {"name": "owned", "ownerReferences": [reference]}})
        await custom.create(WIDGETS, {**widget("child"), "metadata": {"name": "child", "ownerReferences": [reference]}})
        await custom.delete(WIDGETS, "owner")

        async def everything_is_gone() -> bool:
            return not await custom.names(WIDGETS) and not await custom.names("configmaps")

        await until(everything_is_gone)

    async def test_a_namespace_takes_them_along(self, custom: Cluster) -> None:
        await custom.create("namespaces", {"metadata": {"name": "gone"}})
        await custom.create(WIDGETS, widget("a"), namespace="gone")
        await custom.create(WIDGETS, widget("a"))
        await custom.delete("namespaces", "gone")

        async def it_is_gone() -> bool:
            return "gone" not in await custom.names("namespaces")

        await until(it_is_gone)
        assert [each.namespace for each in (await custom.list(WIDGETS)).items] == ["default"]


class TestVersions:
    async def test_one_object_in_two_versions(self, custom: Cluster) -> None:
        await custom.delete(DEFINITIONS, WIDGETS)
        await until(lambda: custom.registry.table.defined_by(WIDGETS) is None)
        old = version("v1beta1", storage=False)
        await define(custom, definition(version("v1"), old))
        table = custom.registry.table
        new_kind, old_kind = (
            table.resource("example.com", "v1", "widgets"),
            table.resource("example.com", "v1beta1", "widgets"),
        )
        assert new_kind is not None
        assert old_kind is not None
        assert table.preferred("example.com", "widgets") is new_kind
        written = await custom.write_new(old_kind, widget("a"), "default")
        assert msgspec.json.decode(written.stored.json)["apiVersion"] == "example.com/v1beta1"
        assert (await custom.get(WIDGETS, "a"))["apiVersion"] == "example.com/v1"
        page = await custom.registry.list(old_kind, Query(field_selector="spec.color=red"))
        assert [msgspec.json.decode(each.json)["apiVersion"] for each in page.items] == ["example.com/v1beta1"]
        stored = await custom.core.storage.get("/registry/example.com/widgets/default/a")
        assert stored is not None
        assert msgspec.json.decode(stored.data)["apiVersion"] == "example.com/v1"

    async def test_every_verb_in_the_version_that_is_not_stored(self, custom: Cluster) -> None:
        """Goal: a client of the older version never sees the newer one. Method: patch, apply, lists in chunks, watch."""
        changed = await custom.get(DEFINITIONS, WIDGETS)
        newer = version("v2", deprecated=True)
        newer["schema"]["openAPIV3Schema"]["properties"]["spec"] = {
            **SPEC, "properties": {**SPEC["properties"], "extra": {"type": "string", "default": "x"}},
        }  # fmt: skip
        changed["spec"]["versions"] = [version("v1", storage=False), newer]
        stored = await custom.update(DEFINITIONS, changed)
        assert stored["status"]["storedVersions"] == ["v1", "v2"]
        await until(lambda: custom.registry.table.resource("example.com", "v2", "widgets"))
        old_kind = custom.registry.table.resource("example.com", "v1", "widgets")
        new_kind = custom.registry.table.resource("example.com", "v2", "widgets")
        assert old_kind is not None
        assert new_kind is not None
        assert new_kind.deprecated == "example.com/v2 Widget is deprecated"
        for name in ("a", "b", "c"):
            await custom.write_new(old_kind, widget(name), "default")
        options = WriteOptions(user=ADMIN, field_manager="me")
        for patch, how in (
            ({"spec": {"color": "blue"}}, "merge"),
            (
                {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 1}},
                "apply",
            ),
        ):
            written = await custom.registry.patch(old_kind, patch, how, namespace="default", name="a", options=options)
            shown = msgspec.json.decode(written.stored.json)
            assert (shown["apiVersion"], "extra" in shown["spec"]) == ("example.com/v1", False)
        newest = await custom.registry.get(new_kind, namespace="default", name="a")
        assert msgspec.json.decode(newest.json)["spec"] == {"size": 1, "color": "blue", "extra": "x"}
        names, token = [], ""
        while True:
            page = await custom.registry.list(old_kind, Query(limit=1, continue_token=token))
            names += [(each.obj.metadata.name, each.obj.api_version) for each in page.items]
            if not (token := page.continue_token):
                break
        assert names == [(name, "example.com/v1") for name in ("a", "b", "c")]
        events = custom.registry.watch(old_kind, Query())
        await anext(events)
        assert {event.stored.obj.api_version for event in await anext(events)} == {"example.com/v1"}
        await events.aclose()

    async def test_a_changed_schema_holds_for_older_objects(self, custom: Cluster) -> None:
        await custom.create(WIDGETS, widget("a", color="blue"))
        changed = await custom.get(DEFINITIONS, WIDGETS)
        properties = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        properties["shape"] = {"type": "string", "default": "round"}
        del properties["color"]
        changed["spec"]["versions"][0].pop("selectableFields")
        events = custom.registry.watch(custom.kind(WIDGETS), Query())
        assert await anext(events) == ()
        await custom.update(DEFINITIONS, changed)
        seen = [event.type async for batch in events for event in batch]
        assert seen == [EventType.ADDED]  # and then the watch ends: its client comes back to the new schema
        assert (await custom.get(WIDGETS, "a"))["spec"] == {"size": 1, "shape": "round"}
        patched = await custom.patch(WIDGETS, "a", {"spec": {"size": 2}})
        assert patched["spec"] == {"size": 2, "shape": "round"}


async def test_no_object_comes_in_behind_a_kind_that_goes(client: EtcdClient) -> None:
    """Goal: nothing outlives its kind. Method: a master whose cache stands still creates while another deletes."""
    async with running_core(client) as first, running_core(client) as second:
        leading, lagging = Cluster(first), Cluster(second)
        await leading.create("namespaces", {"metadata": {"name": "default"}})
        async with controllers(leading):
            await define(leading, definition())
            await lagging.registry.catch_up()
            second.cache.apply = lambda message: None  # type: ignore[method-assign] - hears nothing any more
            await leading.delete(DEFINITIONS, WIDGETS)
            await until(lambda: first.registry.table.defined_by(WIDGETS) is None)
            assert second.registry.table.defined_by(WIDGETS) is not None
            with pytest.raises(ApiError):
                await lagging.create(WIDGETS, widget("late"))
            await define(leading, definition())
            assert await leading.names(WIDGETS) == []
            assert await leading.core.storage.get("/registry/example.com/widgets/default/late") is None


async def test_whoever_was_told_that_a_kind_is_established_finds_it_on_every_master(client: EtcdClient) -> None:
    """Goal: no 404 after Established, whichever master is asked. Method: three masters, caches at their own pace."""
    async with running_core(client) as first, running_core(client) as second, running_core(client) as third:
        clusters = [Cluster(core) for core in (first, second, third)]
        await clusters[0].create("namespaces", {"metadata": {"name": "default"}})
        async with controllers(clusters[0]):
            for number in range(8):
                plural = f"things{number}"
                await clusters[number % 3].create(DEFINITIONS, definition(plural=plural, kind=f"Thing{number}"))
                told = clusters[(number + 1) % 3]
                await until(lambda told=told, plural=plural: told.registry.table.defined_by(f"{plural}.example.com"))
                for each in clusters:
                    await each.registry.catch_up()
                    assert each.registry.table.preferred("example.com", plural) is not None
                    await each.create(f"{plural}.example.com", widget(f"by-{clusters.index(each)}"))
                assert len(await clusters[2].names(f"{plural}.example.com")) == 3
