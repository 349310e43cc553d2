"""Custom kinds as real clients use them: kubectl old and new, the Python client, an operator framework."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.cluster import Cluster, Failed, old_kubectl, until

pytestmark = pytest.mark.clients

NEWER = sorted(Path("/usr/lib/google-cloud-sdk/bin").glob("kubectl.1.*"))
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "A garden and what grows in it",
    "properties": {
        "spec": {
            "type": "object",
            "description": "What shall grow",
            "required": ["flowers"],
            "properties": {
                "flowers": {"type": "array", "items": {"type": "string"}, "description": "Names of flowers"},
                "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1},
                "beds": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "width": {"x-kubernetes-int-or-string": True}},
                    },
                },
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


def definition(plural: str = "gardens", kind: str = "Garden") -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [plural[:3]], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": SCHEMA},
                    "subresources": {
                        "status": {},
                        "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
                    },
                    "additionalPrinterColumns": [
                        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                        {"name": "First", "type": "string", "jsonPath": ".spec.flowers[0]"},
                        {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "priority": 1},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "selectableFields": [{"jsonPath": ".spec.size"}],
                }
            ],
        },
    }


def garden(name: str, *, kind: str = "Garden", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"flowers": ["rose", "tulip"], **spec},
    }


@pytest.fixture(params=["1.20", *(each.name.removeprefix("kubectl.") for each in NEWER)])
def kubectl(request: pytest.FixtureRequest, three_masters: Cluster) -> Any:
    """Return a function that runs one version of kubectl, on another master each time."""
    newer = {each.name.removeprefix("kubectl."): str(each) for each in NEWER}
    binary = newer.get(request.param) or old_kubectl()
    count = iter(range(1000))

    def run(*args: str, document: Any = None, check: bool = True) -> str:
        if document is not None:
            args = (*args, "-f", "-")
        text = None if document is None else yaml.safe_dump(document)
        return three_masters.kubectl(*args, binary=binary, text=text, check=check, master=next(count) % 3)

    return run


def test_the_life_of_a_custom_kind(kubectl: Any) -> None:
    """Goal: everything that kubectl does with a kind of somebody's own. Method: each step on another master."""
    name = "plots.example.com"
    assert "created" in kubectl("apply", document=definition("plots", "Plot"))
    kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=10s")
    assert "unchanged" in kubectl("apply", document=definition("plots", "Plot"))
    explained = kubectl("explain", "plots.spec")
    assert "What shall grow" in explained
    assert "Names of flowers" in explained
    assert "flowers\t<[]string> -required-" in explained
    assert "width" in kubectl("explain", "plots", "--recursive")
    with contextlib.ExitStack() as stack:
        stack.callback(kubectl, "delete", f"crd/{name}")
        walk(kubectl)
    assert "NotFound" in kubectl("get", f"crd/{name}", check=False)
    assert "could not find the requested resource" in kubectl("get", "--raw", "/apis/example.com/v1/plots", check=False)


def walk(kubectl: Any) -> None:
    plot = garden("one", kind="Plot")
    assert "created" in kubectl("apply", document=plot)
    assert "unchanged" in kubectl("apply", document=plot)
    header, line = kubectl("get", "plo").splitlines()
    assert header.split() == ["NAME", "SIZE", "FIRST", "AGE"]
    assert line.split()[:3] == ["one", "1", "rose"]
    assert "PHASE" in kubectl("get", "plots", "-o", "wide")
    assert "plot.example.com/one" in kubectl("get", "all")
    refused = kubectl(
        "apply", "--validate=false", document=garden("two", kind="Plot", size=10, flowers="x"), check=False
    )
    assert "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9" in refused
    assert 'spec.flowers in body must be of type array: "string"' in refused
    unknown = kubectl("apply", document=garden("two", kind="Plot", colour="red"), check=False)
    assert "colour" in unknown  # refused: by an old kubectl itself, for a newer one by the server
    assert "created" not in unknown
    kubectl("scale", "plot/one", "--replicas=4")
    kubectl("patch", "plot", "one", "--type=merge", "-p", '{"spec":{"flowers":["lily"]}}')
    patch = '[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]'
    kubectl("patch", "plot", "one", "--type=json", "-p", patch)
    kubectl("label", "plot", "one", "c=d")
    assert "kubectl.kubernetes.io" in kubectl("get", "plot", "one", "-o", "yaml")
    found = json.loads(kubectl("get", "plots", "-l", "a=b,c=d", "--field-selector=spec.size=4", "-o", "json"))
    assert [(each["spec"]["size"], each["spec"]["flowers"]) for each in found["items"]] == [(4, ["lily"])]
    digger = ("apply", "--server-side", "--validate=false", "--field-manager=digger")
    for manager, bed in (("planter", {"name": "a", "width": 1}), ("digger", {"name": "b", "width": "20%"})):
        wider = garden("one", kind="Plot", beds=[bed])
        del wider["spec"]["flowers"]
        kubectl(*digger[:-1], f"--field-manager={manager}", document=wider)
    beds = json.loads(kubectl("get", "plot", "one", "-o", "json"))["spec"]["beds"]
    assert beds == [{"name": "a", "width": 1}, {"name": "b", "width": "20%"}]
    clash = garden("one", kind="Plot", size=2)
    assert "conflict" in kubectl(*digger, document=clash, check=False)
    assert "Size:" in kubectl("describe", "plot", "one")
    kubectl("delete", "plot", "one")
    assert "No resources found" in kubectl("get", "plots", check=False)


@pytest.fixture
def gardens(three_masters: Cluster) -> Iterator[Cluster]:
    """The cluster with the kind Garden."""
    three_masters.kubectl("apply", "-f", "-", text=yaml.safe_dump(definition()))
    three_masters.kubectl("wait", "--for=condition=Established", "crd/gardens.example.com", "--timeout=10s")
    yield three_masters
    three_masters.kubectl("delete", "crd/gardens.example.com")


def test_the_dynamic_client(gardens: Cluster) -> None:
    """Goal: the official Python client finds a new kind by discovery and does every verb on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kubernetes import client, config, dynamic

        api = dynamic.DynamicClient(config.new_client_from_config(str(gardens.kubeconfig)))
        kind = api.resources.get(api_version="example.com/v1", kind="Garden")
        assert kind.namespaced
        made = kind.create(body=garden("a"), namespace="default")
        assert made.spec.size == 1
        kind.patch(
            body={"spec": {"size": 3}}, name="a", namespace="default", content_type="application/merge-patch+json"
        )
        kind.status.patch(
            body={"status": {"phase": "x"}}, name="a", namespace="default", content_type="application/merge-patch+json"
        )
        found = kind.get(name="a", namespace="default")
        assert (found.spec.size, found.status.phase) == (3, "x")
        seen = []
        for event in kind.watch(namespace="default", timeout=5):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == 1:
                kind.delete(name="a", namespace="default")
            if event["type"] == "DELETED":
                break
        assert seen[0] == ("ADDED", "a")
        assert seen[-1] == ("DELETED", "a")
        custom = client.CustomObjectsApi(config.new_client_from_config(str(gardens.kubeconfig)))
        assert custom.list_cluster_custom_object("example.com", "v1", "gardens")["items"] == []


@contextlib.contextmanager
def kopf(cluster: Cluster) -> Iterator[Path]:
    """Run the operator of this folder; give where it logs."""
    log = cluster.files / "kopf.log"
    command = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", "default", "--verbose"]
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, str(Path(__file__).with_name("garden_operator.py"))],
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_an_operator_runs_unmodified(gardens: Cluster) -> None:
    """Goal: kopf works end to end. Method: create, update, timer, daemon, events, children, finalizer, delete."""

    def read() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(gardens.kubectl("get", "garden", "eden", "-o", "json"))
        return found

    def status() -> dict[str, Any]:
        return dict(read().get("status", {}))

    gardens.kubectl("create", "configmap", "cemetery")
    with kopf(gardens) as log:
        try:
            gardens.kubectl("apply", "-f", "-", text=yaml.safe_dump(garden("eden")))
            until("the operator planted it", lambda: status().get("phase") == "Planted")
            until("the timer ran again", lambda: status().get("watered", 0) >= 2)
            until("the daemon runs", lambda: "Guarded" in gardens.kubectl("get", "events"))
            assert status()["create"] == {"planted": 2}
            assert gardens.kubectl("get", "cm", "eden-beds", "-o", "jsonpath={.data.flowers}") == "rose,tulip"
            assert read()["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
            until("an event was posted", lambda: "Planted" in gardens.kubectl("get", "events"))
            patch = '{"spec":{"flowers":["rose","tulip","lily"]}}'
            gardens.kubectl("patch", "garden", "eden", "--type=merge", "-p", patch)
            until("the operator saw the change", lambda: status().get("replanted") == "2 -> 3")
            gardens.kubectl("delete", "garden", "eden", "--timeout=20s")
            assert gardens.kubectl("get", "cm", "cemetery", "-o", "jsonpath={.data.eden}") == "dug up"
            until("the child went too", lambda: "NotFound" in gardens.kubectl("get", "cm", "eden-beds", check=False))
            assert "Traceback" not in log.read_text()
        except Failed as error:
            raise Failed(f"{error}\n{log.read_text()[-6000:]}") from error
        finally:
            gardens.kubectl("delete", "configmap", "cemetery")
