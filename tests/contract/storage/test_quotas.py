"""What a quota pays for a write that comes to nothing: nothing, at once."""

from typing import Any

import pytest

from api.errors import AlreadyExists, Conflict, Timeout
from master.storage import Storage
from tests.contract.storage.conftest import Cluster


@pytest.fixture
async def used(cluster: Cluster) -> Any:
    """Return what the quota of the default namespace shows as used."""
    hard = {"count/configmaps": "5", "requests.storage": "9Gi"}
    quota = await cluster.create("resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    status = {"hard": hard, "used": {"count/configmaps": "0", "requests.storage": "0"}}
    await cluster.update("resourcequotas", quota | {"status": status}, subresource="status")
    await cluster.get("resourcequotas", "q")  # a read waits for the cache, which admission looks into as it is

    async def read(name: str) -> str:
        return str((await cluster.get("resourcequotas", "q"))["status"]["used"][name])

    return read


async def test_a_name_that_is_taken(cluster: Cluster, used: Any) -> None:
    document = {"metadata": {"name": "m"}}
    await cluster.create("configmaps", document)
    assert await used("count/configmaps") == "1"
    with pytest.raises(AlreadyExists):
        await cluster.create("configmaps", document)
    assert await used("count/configmaps") == "1"


async def test_an_update_upon_an_old_state(cluster: Cluster, used: Any) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "a"}
    claim = await cluster.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
    assert await used("requests.storage") == "1Gi"
    await cluster.patch("persistentvolumeclaims", "c", {"metadata": {"labels": {"a": "b"}}})
    claim["spec"]["resources"]["requests"]["storage"] = "5Gi"
    with pytest.raises(Conflict):
        await cluster.update("persistentvolumeclaims", claim)
    assert await used("requests.storage") == "1Gi"


async def test_a_write_that_may_have_happened_stays_charged(
    cluster: Cluster, used: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Storage.commit

    async def lose(self: Storage, writes: Any, **more: Any) -> int:
        revision = await commit(self, writes, **more)
        if "configmaps" in writes[0].key:
            raise Timeout("nobody knows")
        return revision

    monkeypatch.setattr(Storage, "commit", lose)
    with pytest.raises(Timeout):
        await cluster.create("configmaps", {"metadata": {"name": "m"}})
    assert await used("count/configmaps") == "1"
