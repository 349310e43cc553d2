"""What comes with the official Python client: dynamic client, files, informers, leader election, the asyncio client."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes")
from kubernetes import client, config, utils
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError, ResourceNotFoundError
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import leaderelection
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from tests.clients.cluster import Cluster, until

NAMESPACE = "python-tools"
WAIT_S = 20
BOATS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "boats.python.tools"},
    "spec": {
        "group": "python.tools",
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.oars", "statusReplicasPath": ".status.oars"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"oars": {"type": "integer", "minimum": 0}}},
                            "status": {
                                "type": "object",
                                "properties": {"oars": {"type": "integer"}, "afloat": {"type": "boolean"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        core.create_namespace({"metadata": {"name": NAMESPACE}})
        yield api
        core.delete_namespace(NAMESPACE)


@pytest.fixture(scope="module")
def dynamic(api: client.ApiClient) -> DynamicClient:
    return DynamicClient(api)


def _map(name: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"of": "tools"}},
        "data": data,
    }


def test_kinds_are_discovered(dynamic: DynamicClient) -> None:
    deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    assert (deployments.name, deployments.namespaced, deployments.preferred) == ("deployments", True, True)
    assert set(deployments.subresources) == {"status", "scale"}
    assert dynamic.resources.get(short_names=["po"]).kind == "Pod"
    assert {each.group_version for each in dynamic.resources.search(kind="Event")} >= {"v1", "events.k8s.io/v1"}
    assert "trireme" in dynamic.version["kubernetes"]["gitVersion"]
    with pytest.raises(ResourceNotFoundError):
        dynamic.resources.get(api_version="v1", kind="Nothing")


def test_objects_of_a_built_in_kind(dynamic: DynamicClient) -> None:
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(body=_map("one", a="1"), namespace=NAMESPACE)
    assert maps.get(name="one", namespace=NAMESPACE).data.a == "1"
    assert [each.metadata.name for each in maps.get(namespace=NAMESPACE, label_selector="of=tools").items] == ["one"]
    merge = {"data": {"b": "2"}}
    merged = maps.patch(body=merge, name="one", namespace=NAMESPACE, content_type="application/merge-patch+json")
    assert merged.data.to_dict() == {"a": "1", "b": "2"}
    steps = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "remove", "path": "/data/a"}]
    stepped = maps.patch(body=steps, name="one", namespace=NAMESPACE, content_type="application/json-patch+json")
    assert stepped.data.to_dict() == {"b": "2"}
    stale = made.to_dict()
    with pytest.raises(ConflictError):
        maps.replace(body=stale, name="one", namespace=NAMESPACE)
    fresh = maps.get(name="one", namespace=NAMESPACE).to_dict() | {"data": {"c": "3"}}
    assert maps.replace(body=fresh, name="one", namespace=NAMESPACE).data.to_dict() == {"c": "3"}
    maps.delete(name="one", namespace=NAMESPACE)
    with pytest.raises(NotFoundError):
        maps.get(name="one", namespace=NAMESPACE)


def test_apply_on_the_server(dynamic: DynamicClient) -> None:
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")

    def apply(manager: str, **more: Any) -> Any:
        return maps.server_side_apply(body=_map("owned", a=manager), namespace=NAMESPACE, field_manager=manager, **more)

    apply("first")
    with pytest.raises(ConflictError):
        apply("second")
    taken = apply("second", force_conflicts=True)
    assert taken.data.a == "second"
    assert {entry.manager for entry in taken.metadata.managedFields} == {"first", "second"}
    maps.delete(name="owned", namespace=NAMESPACE)


def test_a_watch_of_the_dynamic_client(dynamic: DynamicClient) -> None:
    maps = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    version = maps.get(namespace=NAMESPACE).metadata.resourceVersion
    maps.create(body=_map("seen"), namespace=NAMESPACE)
    maps.patch(body={"data": {"a": "1"}}, name="seen", namespace=NAMESPACE, content_type="application/merge-patch+json")
    maps.delete(name="seen", namespace=NAMESPACE)
    events = maps.watch(namespace=NAMESPACE, resource_version=version, timeout=WAIT_S)
    assert [(each["type"], each["object"].metadata.name) for _, each in zip(range(3), events, strict=False)] == [
        ("ADDED", "seen"),
        ("MODIFIED", "seen"),
        ("DELETED", "seen"),
    ]


def test_a_kind_of_ones_own(dynamic: DynamicClient) -> None:
    definitions = dynamic.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    definitions.create(body=BOATS)
    try:

        def established() -> bool:
            conditions = definitions.get(name="boats.python.tools").status.conditions or []
            return any((each.type, each.status) == ("Established", "True") for each in conditions)

        until("the definition is established", established)
        # What a client has cached is older than the definition: it looks again by itself.
        boats = dynamic.resources.get(api_version="python.tools/v1", kind="Boat")
        boat = {"apiVersion": "python.tools/v1", "kind": "Boat", "metadata": {"name": "argo"}, "spec": {"oars": 50}}
        boats.create(body=boat, namespace=NAMESPACE)
        with pytest.raises(client.ApiException) as refused:
            boats.create(body=boat | {"metadata": {"name": "x"}, "spec": {"oars": -1}}, namespace=NAMESPACE)
        assert refused.value.status == 422
        merge = "application/merge-patch+json"
        status = {"status": {"afloat": True}, "spec": {"oars": 1}}
        told = boats.status.patch(body=status, name="argo", namespace=NAMESPACE, content_type=merge)
        assert (told.status.afloat, told.spec.oars) == (True, 50)
        scaled = boats.scale.patch(
            body={"spec": {"replicas": 30}}, name="argo", namespace=NAMESPACE, content_type=merge
        )
        assert (scaled.kind, scaled.spec.replicas) == ("Scale", 30)
        assert [each.spec.oars for each in boats.get(namespace=NAMESPACE).items] == [30]
        boats.delete(name="argo", namespace=NAMESPACE)
    finally:
        definitions.delete(name="boats.python.tools")


def test_files_of_several_objects(api: client.ApiClient, tmp_path: Path) -> None:
    path = tmp_path / "several.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: filed}\nspec: {ports: [{port: 80}], selector: {a: b}}\n---\n"
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: apps/v1, kind: Deployment, metadata: {name: filed}, spec: {selector: {matchLabels: {a: b}}, "
        "replicas: 0, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}\n"
        "- {apiVersion: batch/v1, kind: Job, metadata: {name: filed}, spec: {template: {spec: {restartPolicy: Never, "
        "containers: [{name: c, image: i}]}}}}\n"
        "- {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: filed}, rules: []}\n"
    )
    utils.create_from_yaml(api, str(path), namespace=NAMESPACE)
    assert client.AppsV1Api(api).read_namespaced_deployment("filed", NAMESPACE).spec.replicas == 0
    job = client.BatchV1Api(api).read_namespaced_job("filed", NAMESPACE)
    assert job.spec.template.metadata.labels["batch.kubernetes.io/controller-uid"] == job.metadata.uid
    with pytest.raises(utils.FailToCreateError) as refused:
        utils.create_from_yaml(api, str(path), namespace=NAMESPACE)
    assert [each.status for each in refused.value.api_exceptions] == [409] * 4
    # As the real server writes it, to the last character: people compare it.
    assert refused.value.api_exceptions[0].body == (
        '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"services \\"filed\\" already exists",'
        '"reason":"AlreadyExists","details":{"name":"filed","kind":"services"},"code":409}\n'
    )
    utils.create_from_yaml(api, str(path), namespace=NAMESPACE, apply=True)


def test_an_informer(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_config_map(NAMESPACE, _map("before"))
    told: queue.Queue[tuple[str, str]] = queue.Queue()
    informer = SharedInformer(list_func=core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="of=tools")
    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, lambda obj, kind=kind: told.put((kind, obj.metadata.name)))
    informer.start()
    try:
        assert told.get(timeout=WAIT_S) == (ADDED, "before")
        core.create_namespaced_config_map(NAMESPACE, _map("after"))
        assert told.get(timeout=WAIT_S) == (ADDED, "after")
        core.patch_namespaced_config_map("after", NAMESPACE, {"data": {"a": "1"}})
        assert told.get(timeout=WAIT_S) == (MODIFIED, "after")
        assert {each.metadata.name for each in informer.cache.list()} == {"before", "after"}
        core.delete_namespaced_config_map("after", NAMESPACE)
        assert told.get(timeout=WAIT_S) == (DELETED, "after")
    finally:
        informer.stop()
    core.delete_namespaced_config_map("before", NAMESPACE)


@pytest.mark.parametrize("lock", [ConfigMapLock, LeaseLock])
def test_leaders_are_elected_and_replaced(cluster: Cluster, api: client.ApiClient, monkeypatch: Any, lock: Any) -> None:
    monkeypatch.setattr(client.Configuration, "_default", None)
    config.load_kube_config(str(cluster.kubeconfig))
    events: queue.Queue[tuple[str, str]] = queue.Queue()
    resign = {name: threading.Event() for name in ("a", "b")}

    def candidate(name: str) -> threading.Thread:
        def lead() -> None:
            events.put((name, "leads"))
            resign[name].wait(60)
            raise RuntimeError("resigned")

        settings = Config(
            lock(f"election-{lock.__name__.lower()}", NAMESPACE, name),
            lease_duration=3,
            renew_deadline=2,
            retry_period=1,
            onstarted_leading=lead,
            onstopped_leading=lambda: events.put((name, "stopped")),
        )
        thread = threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True)
        thread.start()
        return thread

    threads = [candidate("a")]
    assert events.get(timeout=WAIT_S) == ("a", "leads")
    threads.append(candidate("b"))
    resign["a"].set()
    assert events.get(timeout=WAIT_S) == ("a", "stopped")
    assert events.get(timeout=WAIT_S) == ("b", "leads")
    resign["b"].set()
    assert events.get(timeout=WAIT_S) == ("b", "stopped")
    for thread in threads:
        thread.join(WAIT_S)


async def test_the_asyncio_client(cluster: Cluster, api: client.ApiClient) -> None:
    from kubernetes import aio

    settings = aio.client.Configuration()
    await aio.config.load_kube_config(config_file=str(cluster.kubeconfig), client_configuration=settings)
    async with aio.client.ApiClient(settings) as connection:
        core = aio.client.CoreV1Api(connection)
        listed = await core.list_namespaced_config_map(NAMESPACE)
        await core.create_namespaced_config_map(NAMESPACE, _map("async", a="1"))
        await core.patch_namespaced_config_map("async", NAMESPACE, {"data": {"b": "2"}})
        await core.delete_namespaced_config_map("async", NAMESPACE)
        seen = []
        version = listed.metadata.resource_version
        async with aio.watch.Watch() as watch:
            async for event in watch.stream(
                core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=WAIT_S
            ):
                seen.append((event["type"], event["object"].data))
                if event["type"] == "DELETED":
                    break
        assert seen == [("ADDED", {"a": "1"}), ("MODIFIED", {"a": "1", "b": "2"}), ("DELETED", {"a": "1", "b": "2"})]
        dynamic = await aio.dynamic.DynamicClient(connection)
        nodes = await dynamic.resources.get(api_version="v1", kind="Node")
        assert [each.metadata.name for each in (await nodes.get()).items] == ["node0"]
