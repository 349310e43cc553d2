"""The implementations of ``client.resources.Resources`` that one suite holds to the same rules."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.kinds.core import Namespace
from api.meta import ObjectMeta
from client.etcd import EtcdClient
from client.resources import Resources
from master.local import LocalResources
from tests.contract.kv.stores import ours
from tests.contract.storage.conftest import ADMIN, running_core
from tests.fakes.resources import MemoryResources


@pytest.fixture(params=["memory", "local"])
async def resources(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Resources]:
    """Yield an empty cluster with the namespace ``default``."""
    namespace = Namespace(metadata=ObjectMeta(name="default"))
    if request.param == "memory":
        memory = MemoryResources()
        await memory.create(namespace)
        yield memory
        return
    with ours(tmp_path, members=1, engine="memory") as store:
        async with EtcdClient(store.endpoints) as client, running_core(client) as core:
            local = LocalResources(core.registry, ADMIN)
            await local.create(namespace)
            yield local
