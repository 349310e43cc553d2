"""The official Python client, unmodified: what its users do every day."""

import threading
from collections.abc import Iterator

import pytest

pytest.importorskip("kubernetes")
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

from tests.clients.cluster import Cluster, until

NAMESPACE = "python-client"


@pytest.fixture(scope="module")
def core(cluster: Cluster) -> Iterator[client.CoreV1Api]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        core.create_namespace({"metadata": {"name": NAMESPACE}})
        yield core
        core.delete_namespace(NAMESPACE)


def _config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"t": "1"}), data=data)


def test_create_read_replace_patch_delete(core: client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map(NAMESPACE, _config_map("a", x="1"))
    assert made.metadata.managed_fields[0].operation == "Update"
    made.data["x"] = "2"
    assert core.replace_namespaced_config_map("a", NAMESPACE, made).data == {"x": "2"}
    with pytest.raises(ApiException) as refused:
        core.replace_namespaced_config_map("a", NAMESPACE, made)
    assert refused.value.status == 409
    assert core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"y": "3"}}).data == {"x": "2", "y": "3"}
    core.delete_namespaced_config_map("a", NAMESPACE)
    with pytest.raises(ApiException) as refused:
        core.read_namespaced_config_map("a", NAMESPACE)
    assert refused.value.status == 404


def test_apply_with_a_field_manager(core: client.CoreV1Api) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"x": "1"}}
    how = {"_content_type": "application/apply-patch+yaml"}
    core.patch_namespaced_config_map("applied", NAMESPACE, body, field_manager="one", **how)
    body["data"] = {"x": "2"}
    with pytest.raises(ApiException) as refused:
        core.patch_namespaced_config_map("applied", NAMESPACE, body, field_manager="two", **how)
    assert refused.value.status == 409
    taken = core.patch_namespaced_config_map("applied", NAMESPACE, body, field_manager="two", force=True, **how)
    assert [entry.manager for entry in taken.metadata.managed_fields] == ["two"]


def test_a_list_in_pages_is_one_state(core: client.CoreV1Api) -> None:
    for number in range(5):
        core.create_namespaced_config_map(NAMESPACE, _config_map(f"page-{number}"))
    first = core.list_namespaced_config_map(NAMESPACE, label_selector="t=1", limit=2)
    core.delete_namespaced_config_map("page-4", NAMESPACE)
    names, page = [each.metadata.name for each in first.items], first
    while page.metadata._continue:
        page = core.list_namespaced_config_map(
            NAMESPACE, label_selector="t=1", limit=2, _continue=page.metadata._continue
        )
        names += [each.metadata.name for each in page.items]
    assert [name for name in names if name.startswith("page-")] == [f"page-{number}" for number in range(5)]


def test_a_watch_goes_on_from_a_list(core: client.CoreV1Api) -> None:
    listed = core.list_namespaced_config_map(NAMESPACE)
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        events = watch.Watch().stream(
            core.list_namespaced_config_map,
            NAMESPACE,
            resource_version=listed.metadata.resource_version,
            timeout_seconds=20,
        )
        for event in events:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    core.create_namespaced_config_map(NAMESPACE, _config_map("watched"))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("watched", NAMESPACE)
    following.join(20)
    assert seen == [("ADDED", "watched"), ("MODIFIED", "watched"), ("DELETED", "watched")]


def test_too_old_a_watch_is_expired(core: client.CoreV1Api) -> None:
    with pytest.raises(ApiException) as refused:
        for _ in watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE, resource_version="9999999", timeout_seconds=5
        ):
            pass
    assert refused.value.status in (410, 504)


# The client leaves the socket of a finished command to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_commands_and_logs_in_a_pod(core: client.CoreV1Api) -> None:
    container = client.V1Container(name="c", image="busybox")
    pod = client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=client.V1PodSpec(containers=[container]))
    core.create_namespaced_pod(NAMESPACE, pod)
    until("the pod runs", lambda: core.read_namespaced_pod("p", NAMESPACE).status.phase == "Running")
    assert core.read_namespaced_pod_log("p", NAMESPACE, tail_lines=1) == ""
    answered = stream(core.connect_get_namespaced_pod_exec, "p", NAMESPACE, command=["true"], stdout=True, stderr=True)
    assert answered == ""
    evicted = client.V1Eviction(metadata=client.V1ObjectMeta(name="p"))
    core.create_namespaced_pod_eviction("p", NAMESPACE, evicted)
    until("the pod has gone", lambda: not core.list_namespaced_pod(NAMESPACE, field_selector="metadata.name=p").items)


def test_scale_and_status(core: client.CoreV1Api) -> None:
    apps = client.AppsV1Api(core.api_client)
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    apps.create_namespaced_deployment(NAMESPACE, {"metadata": {"name": "d"}, "spec": spec})
    scale = apps.read_namespaced_deployment_scale("d", NAMESPACE)
    assert scale.status.selector == "a=b"
    scale.spec.replicas = 1
    scale.metadata.resource_version = None  # the controller has written the deployment's status meanwhile
    assert apps.replace_namespaced_deployment_scale("d", NAMESPACE, scale).spec.replicas == 1
    shown = apps.read_namespaced_deployment("d", NAMESPACE)
    assert shown.spec.replicas == 1
    managers = {(each.subresource, each.operation) for each in shown.metadata.managed_fields}
    assert ("scale", "Update") in managers


def test_metrics_of_nodes(core: client.CoreV1Api) -> None:
    custom = client.CustomObjectsApi(core.api_client)

    def measured() -> bool:
        items = custom.list_cluster_custom_object("metrics.k8s.io", "v1beta1", "nodes")["items"]
        return bool(items) and "cpu" in items[0]["usage"]

    until("the agent has measured", measured)
