"""One master for the tests that get along with each other."""

from collections.abc import Iterator

import pytest

from tests.contract.access.cluster import Cluster, running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("access")) as cluster:
        yield cluster


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, furnished."""
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[:60].rstrip("-")
    cluster.kubectl("create", "namespace", name)
    cluster.until("its service account is there", lambda: cluster.get("serviceaccount", "default", "-n", name))
    return str(name)
