"""Clusters that several tests of real clients share."""

from collections.abc import Iterator

import pytest

from tests.clients.cluster import Cluster, running


@pytest.fixture(scope="session")
def three_masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without nodes behind three masters."""
    with running(tmp_path_factory.mktemp("three-masters"), nodes=0, masters=3) as cluster:
        yield cluster
