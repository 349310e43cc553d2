"""Debian's prometheus, unmodified, finds what runs in the cluster by its Kubernetes service discovery."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from deploy.checks import debian_prometheus
from tests.clients.cluster import Cluster, until
from tests.contract.kv.stores import free_ports

NAMESPACE = "monitoring"
META = "__meta_kubernetes_"
# What prometheus's own example configuration asks for, and nothing more.
ACCESS = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: monitoring}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
- {apiGroups: [""], resources: [nodes, nodes/proxy, services, endpoints, pods], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [networking.k8s.io], resources: [ingresses], verbs: [get, list, watch]}
- {nonResourceURLs: [/metrics], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: prometheus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: monitoring}]
"""
WORKLOAD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: monitoring}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {prometheus.io/scrape: "true"}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: nginx, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: monitoring, labels: {app: web}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: monitoring}
spec: {rules: [{host: web.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
"""


class Prometheus:
    """A running one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def targets(self, job: str) -> list[dict[str, Any]]:
        """Return what a job watches: each with ``discoveredLabels``, ``scrapeUrl`` and ``health``."""
        with urllib.request.urlopen(f"{self._url}/targets?state=active", timeout=5) as answer:
            found = json.load(answer)["data"]["activeTargets"]
        return [each for each in found if each["scrapePool"] == job]

    def names(self, job: str, label: str) -> list[str]:
        """Return one label of everything that a job found, sorted."""
        return sorted(each["discoveredLabels"].get(META + label, "") for each in self.targets(job))

    def query(self, expression: str) -> list[Any]:
        """Return the series that an expression selects."""
        from urllib.parse import quote

        with urllib.request.urlopen(f"{self._url}/query?query={quote(expression)}", timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])


def _answers(prometheus: Prometheus) -> bool:
    try:
        return prometheus.targets("nodes") is not None
    except OSError:
        return False


def _job(name: str, role: str, cluster: Cluster, folder: Path, *, own: bool = True, **more: Any) -> dict[str, Any]:
    client = {
        "authorization": {"credentials_file": str(folder / "token")},
        "tls_config": {"ca_file": str(cluster.files / "ca.crt")},
    }
    where = {"namespaces": {"names": [NAMESPACE]}} if own else {}
    return {
        "job_name": name,
        "kubernetes_sd_configs": [{"api_server": cluster.url, "role": role, **client, **where}],
        **client,
        **more,
    }


def _config(cluster: Cluster, folder: Path) -> dict[str, Any]:
    host = cluster.url.removeprefix("https://")
    through_the_api = [
        {"target_label": "__address__", "replacement": host},
        {
            "source_labels": [f"{META}node_name"],
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/nodes/$1/proxy/metrics",
        },
    ]
    kept = {"source_labels": [f"{META}service_name"], "regex": "kubernetes", "action": "keep"}
    jobs = [
        _job("nodes", "node", cluster, folder, own=False, scheme="https", relabel_configs=through_the_api),
        _job("masters", "endpoints", cluster, folder, own=False, scheme="https", relabel_configs=[kept]),
        *(_job(role, role, cluster, folder) for role in ("pod", "service", "endpoints", "endpointslice", "ingress")),
    ]
    return {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}


@pytest.fixture(scope="module")
def prometheus(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-f", "-", text=ACCESS)
    cluster.kubectl("apply", "-f", "-", text=WORKLOAD)
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s", timeout_s=70)
    (folder / "token").write_text(cluster.kubectl("-n", NAMESPACE, "create", "token", "prometheus"))
    (folder / "prometheus.yml").write_text(yaml.dump(_config(cluster, folder)))
    (port,) = free_ports(1)
    command = [str(debian_prometheus(Console(stderr=True))), f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as run:
        try:
            found = Prometheus(port)
            until("prometheus answers", lambda: _answers(found))
            yield found
        finally:
            run.terminate()
            run.wait(20)
    assert "forbidden" not in (folder / "log").read_text()
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s", timeout_s=70)


def test_every_role_finds_its_objects(cluster: Cluster, prometheus: Prometheus) -> None:
    listed = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    pods = {each["metadata"]["name"]: each for each in listed}
    assert len(pods) == 2
    until("pods are found", lambda: prometheus.names("pod", "pod_name") == sorted(pods))
    for target in prometheus.targets("pod"):
        labels = target["discoveredLabels"]
        pod = pods[labels[f"{META}pod_name"]]
        assert labels[f"{META}pod_ip"] == pod["status"]["podIP"]
        assert labels[f"{META}pod_node_name"] == pod["spec"]["nodeName"] == "node0"
        assert labels[f"{META}pod_uid"] == pod["metadata"]["uid"]
        assert (labels[f"{META}pod_phase"], labels[f"{META}pod_ready"]) == ("Running", "true")
        assert (labels[f"{META}pod_controller_kind"], labels[f"{META}pod_label_app"]) == ("ReplicaSet", "web")
        assert labels[f"{META}pod_annotation_prometheus_io_scrape"] == "true"
        assert labels["__address__"] == f"{pod['status']['podIP']}:8080"
    until("services are found", lambda: prometheus.names("service", "service_name") == ["web"])
    assert prometheus.names("service", "service_port_name") == ["http"]
    until("ingresses are found", lambda: prometheus.names("ingress", "ingress_host") == ["web.example"])
    for role in ("endpoints", "endpointslice"):
        until("endpoints are found", lambda of=role: prometheus.names(of, "pod_name") == sorted(pods))
        assert prometheus.names(role, "service_label_app") == ["web", "web"]
        assert prometheus.names(role, f"{role}_port_name") == ["http", "http"]


def test_nodes_and_masters_are_scraped(prometheus: Prometheus) -> None:
    def health(job: str) -> list[str]:
        return [f"{each['health']} {each['lastError']}".strip() for each in prometheus.targets(job)]

    assert prometheus.names("nodes", "node_name") == ["node0"]
    until("the node's figures come through the API", lambda: health("nodes") == ["up"])
    until("the master's figures come", lambda: health("masters") == ["up"])
    until("both are stored", lambda: prometheus.query("node_memory_working_set_bytes") and prometheus.query("up == 1"))


def test_what_comes_and_goes_is_followed(cluster: Cluster, prometheus: Prometheus) -> None:
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/web", "--replicas=3")
    until("a third pod is found", lambda: len(prometheus.targets("pod")) == 3)
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/web", "--replicas=1")
    until("two are forgotten", lambda: len(prometheus.targets("pod")) == 1)
    until("their endpoints, too", lambda: len(prometheus.targets("endpointslice")) == 1)
    cluster.kubectl("-n", NAMESPACE, "label", "service", "web", "app=renamed", "--overwrite")
    until("a new label is seen", lambda: prometheus.names("service", "service_label_app") == ["renamed"])
