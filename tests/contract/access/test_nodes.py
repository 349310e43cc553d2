"""A node that knows a bootstrap token and nothing else joins; its pods speak to the API as their service account."""

import base64
import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.access.cluster import Cluster
from tests.contract.access.test_admission import pod
from tests.contract.access.test_identity import bootstrap_secret
from tests.contract.kv.stores import ROOT
from tests.ports import free_ports

NODE = "joiner"


@contextlib.contextmanager
def hollow_agent(cluster: Cluster, folder: Path, token: str) -> Iterator[Path]:
    """Run a node agent without containers that has no certificate yet; yields its data directory."""
    ports = free_ports(2)
    config, data = folder / "node.toml", folder / "data"
    config.write_text(f"""
name = "{NODE}"
address = "127.0.0.1"
masters = {json.dumps(cluster.grpc)}
listen = "127.0.0.1:{ports[0]}"
http_listen = "127.0.0.1:{ports[1]}"
data_dir = "{data}"
runtime = "hollow"
[tls]
ca = "{cluster.authority.path}.crt"
cert = "{folder}/pki/client.crt"
key = "{folder}/pki/client.key"
serving_cert = "{folder}/pki/serving.crt"
serving_key = "{folder}/pki/serving.key"
[bootstrap]
api = "{cluster.urls[0].removeprefix("https://")}"
token = "{token}"
""")
    log = folder / "node.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "node_agent", "--config", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield data
        finally:
            process.terminate()
            process.wait(15)


def serving_request(cluster: Cluster) -> str:
    found = [
        each["metadata"]["name"]
        for each in cluster.get("csr")["items"]
        if each["spec"]["username"] == f"system:node:{NODE}" and not each.get("status", {}).get("conditions")
    ]
    return found[0] if found else ""


def is_ready(cluster: Cluster) -> bool:
    conditions = cluster.get("node", NODE)["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_joining_and_speaking_for_a_pod(cluster, namespace, tmp_path):
    cluster.apply(bootstrap_secret("newone", "0123456789abcdef"))
    with hollow_agent(cluster, tmp_path, "newone.0123456789abcdef") as data:
        name = cluster.until("the agent asks for a serving certificate", lambda: serving_request(cluster), timeout_s=30)
        cluster.kubectl("certificate", "approve", name)
        cluster.until("the node is ready", lambda: is_ready(cluster), timeout_s=40)
        key = tmp_path / "pki" / "client.key"
        assert key.stat().st_mode & 0o777 == 0o600

        cluster.kubectl("create", "serviceaccount", "robot", "-n", namespace)
        cluster.kubectl(
            "create", "rolebinding", "v", "--clusterrole=view", f"--serviceaccount={namespace}:robot", "-n", namespace
        )
        cluster.apply(pod("p", namespace, serviceAccountName="robot", nodeName=NODE))
        cluster.until("the pod runs", lambda: cluster.get("pod", "p", "-n", namespace)["status"]["phase"] == "Running")
        uid = cluster.get("pod", "p", "-n", namespace)["metadata"]["uid"]
        (volume,) = (data / "pods" / uid / "volumes" / "projected").iterdir()
        assert (volume / "namespace").read_text() == namespace
        token = (volume / "token").read_text()
        body = token.split(".")[1]
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["kubernetes.io"]
        assert said["pod"] == {"name": "p", "uid": uid}
        assert said["node"]["name"] == NODE
        names = official_client(cluster, volume).list_namespaced_pod(namespace).items
        assert [each.metadata.name for each in names] == ["p"]

        # The token dies with the pod.
        cluster.kubectl("delete", "pod", "p", "-n", namespace, "--wait=true")
        from kubernetes.client import ApiException

        with pytest.raises(ApiException) as refused:
            official_client(cluster, volume, token).list_namespaced_pod(namespace)
        assert refused.value.status == 401


def official_client(cluster: Cluster, volume: Path, token: str = ""):
    """The official client as it configures itself inside a pod."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kubernetes import client
        from kubernetes.config.incluster_config import InClusterConfigLoader

    host, _, port = cluster.urls[0].removeprefix("https://").partition(":")
    configuration = client.Configuration()
    if token:
        configuration.host, configuration.ssl_ca_cert = cluster.urls[0], f"{cluster.authority.path}.crt"
        configuration.api_key = {"authorization": f"Bearer {token}"}
    else:
        loader = InClusterConfigLoader(
            token_filename=str(volume / "token"),
            cert_filename=str(volume / "ca.crt"),
            environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
        )
        loader.load_and_set(configuration)
    return client.CoreV1Api(client.ApiClient(configuration))


def test_a_wrong_token_ends_the_agent(cluster, tmp_path):
    with hollow_agent(cluster, tmp_path, "newone.fedcba9876543210"):
        log = tmp_path / "node.log"
        cluster.until("it gives up", lambda: "the cluster refuses with 401" in log.read_text(), timeout_s=30)
        assert "Traceback" not in log.read_text()
