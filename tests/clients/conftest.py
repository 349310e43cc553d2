"""Clusters that several tests of real clients share, and the kubectls that they use."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.cluster import Cluster, old_kubectl, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without nodes behind three masters."""
    with running(tmp_path_factory.mktemp("three-masters"), nodes=0, masters=3) as cluster:
        yield cluster


@pytest.fixture(scope="session", params=["new", "1.20"])
def kubectl(request: pytest.FixtureRequest) -> str:
    """The path of a kubectl: the one on the PATH, and Debian's, which speaks SPDY and validates on the client."""
    if request.param == "1.20":
        return old_kubectl()
    found = shutil.which("kubectl")
    assert found is not None, "these tests need kubectl"
    return found


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A Deployment and its Service in a file."""
    path = tmp_path / "web.yaml"
    path.write_text(MANIFEST)
    return path


MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: nginx, ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"""
