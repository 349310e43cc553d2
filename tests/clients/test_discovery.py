"""A scraper with prometheus's configuration finds what runs in the cluster by Kubernetes service discovery.

It is Debian's victoria-metrics, unmodified, whose discovery is its own; Debian builds prometheus without one.
"""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from deploy.checks import debian_victoria_metrics
from tests.clients.cluster import Cluster, until
from tests.ports import free_ports

NAMESPACE = "monitoring"
META = "__meta_kubernetes_"
ROLES = ("pod", "service", "endpoints", "endpointslice", "ingress")
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


class Scraper:
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


def _answers(scraper: Scraper) -> bool:
    try:
        return scraper.targets("nodes") is not None
    except OSError:
        return False


def _config(cluster: Cluster, folder: Path) -> dict[str, Any]:
    host = cluster.url.removeprefix("https://")
    client = {
        "authorization": {"credentials_file": str(folder / "token")},
        "tls_config": {"ca_file": str(cluster.files / "ca.crt")},
    }
    scraped = {**client, "scheme": "https", "scrape_interval": "1s"}
    through_the_api = [
        {"target_label": "__address__", "replacement": host},
        {
            "source_labels": [f"{META}node_name"],
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/nodes/$1/proxy/metrics",
        },
    ]
    # Of a target whose own labels stay the same the scraper goes on showing what it first found.
    labelled = [{"regex": f"{META}service_label_(.+)", "action": "labelmap"}]

    def found(role: str, **where: Any) -> dict[str, Any]:
        return {"kubernetes_sd_configs": [{"api_server": cluster.url, "role": role, **client, **where}]}

    jobs = [
        {"job_name": "nodes", **found("node"), "relabel_configs": through_the_api, **scraped},
        {"job_name": "masters", "static_configs": [{"targets": [host]}], **scraped},
    ]
    own = {"namespaces": {"names": [NAMESPACE]}}
    # Hollow pods have nobody who could answer: they are found, and left alone.
    seldom = {"scrape_interval": "1h"}
    jobs += [{"job_name": role, **found(role, **own), "relabel_configs": labelled, **seldom} for role in ROLES]
    return {"scrape_configs": jobs}


@pytest.fixture(scope="module")
def scraper(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraper]:
    folder = tmp_path_factory.mktemp("scraper")
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-f", "-", text=ACCESS)
    cluster.kubectl("apply", "-f", "-", text=WORKLOAD)
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/web", "--timeout=60s", timeout_s=70)
    (folder / "token").write_text(cluster.kubectl("-n", NAMESPACE, "create", "token", "prometheus"))
    (folder / "prometheus.yml").write_text(yaml.dump(_config(cluster, folder)))
    (port,) = free_ports(1)
    command = [str(debian_victoria_metrics(Console(stderr=True))), f"-promscrape.config={folder}/prometheus.yml"]
    command += [f"-storageDataPath={folder}/data", f"-httpListenAddr=127.0.0.1:{port}"]
    # What is written can be asked for at once, and a change of discovery is acted upon within a second.
    command += ["-search.latencyOffset=0s", "-promscrape.kubernetesSDCheckInterval=1s"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as run:
        try:
            found = Scraper(port)
            until("the scraper answers", lambda: _answers(found))
            yield found
        finally:
            run.terminate()
            run.wait(20)
    assert "forbidden" not in (folder / "log").read_text()
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s", timeout_s=70)


def test_every_role_finds_its_objects(cluster: Cluster, scraper: Scraper) -> None:
    listed = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    pods = {each["metadata"]["name"]: each for each in listed}
    assert len(pods) == 2
    until("pods are found", lambda: scraper.names("pod", "pod_name") == sorted(pods))
    for target in scraper.targets("pod"):
        labels = target["discoveredLabels"]
        pod = pods[labels[f"{META}pod_name"]]
        assert labels[f"{META}pod_ip"] == pod["status"]["podIP"]
        assert labels[f"{META}pod_node_name"] == pod["spec"]["nodeName"] == "node0"
        assert labels[f"{META}pod_uid"] == pod["metadata"]["uid"]
        assert (labels[f"{META}pod_phase"], labels[f"{META}pod_ready"]) == ("Running", "true")
        assert (labels[f"{META}pod_controller_kind"], labels[f"{META}pod_label_app"]) == ("ReplicaSet", "web")
        assert labels[f"{META}pod_annotation_prometheus_io_scrape"] == "true"
        assert labels["__address__"] == f"{pod['status']['podIP']}:8080"
    until("services are found", lambda: scraper.names("service", "service_name") == ["web"])
    assert scraper.names("service", "service_port_name") == ["http"]
    until("ingresses are found", lambda: scraper.names("ingress", "ingress_host") == ["web.example"])
    for role in ("endpoints", "endpointslice"):
        until("endpoints are found", lambda of=role: scraper.names(of, "pod_name") == sorted(pods))
        assert scraper.names(role, "service_label_app") == ["web", "web"]
        assert scraper.names(role, f"{role.removesuffix('s')}_port_name") == ["http", "http"]


def test_nodes_and_masters_are_scraped(scraper: Scraper) -> None:
    def health(job: str) -> list[str]:
        return [f"{each['health']} {each['lastError']}".strip() for each in scraper.targets(job)]

    assert scraper.names("nodes", "node_name") == ["node0"]
    until("the node's figures come through the API", lambda: health("nodes") == ["up"])
    until("the master's figures come", lambda: health("masters") == ["up"])
    until("both are stored", lambda: scraper.query("node_memory_working_set_bytes") and scraper.query("up == 1"))


def test_what_comes_and_goes_is_followed(cluster: Cluster, scraper: Scraper) -> None:
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/web", "--replicas=3")
    until("a third pod is found", lambda: len(scraper.targets("pod")) == 3)
    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/web", "--replicas=1")
    until("two are forgotten", lambda: len(scraper.targets("pod")) == 1)
    until("their endpoints, too", lambda: len(scraper.targets("endpointslice")) == 1)
    cluster.kubectl("-n", NAMESPACE, "label", "service", "web", "app=renamed", "--overwrite")
    until("a new label is seen", lambda: scraper.names("service", "service_label_app") == ["renamed"])
