"""A master's storage, cache and registry, without its servers, upon real stores."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest

from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions
from client.etcd import EtcdClient
from master.access.user import SYSTEM_MASTERS, User
from master.config import MasterConfig, parse
from master.program import Core
from master.rest.seam import Deleted, Page, Query, Stored, WriteOptions, Written
from tests.contract.kv.stores import Store, ours, real_etcd

STORES = [
    pytest.param("memory-1", id="memory"),
    pytest.param("native-3", id="native-3"),
    pytest.param("etcd-3", id="etcd-3", marks=pytest.mark.etcd),
]
ADMIN = User("admin", (SYSTEM_MASTERS,))
CONFIG: Mapping[str, Any] = {
    "name": "master1",
    "address": "127.0.0.1",
    "store_endpoints": ["127.0.0.1:1"],
    "tls": {"client_ca": "-", "cert": "-", "key": "-"},
    "service_cidr": "10.96.0.0/24",
    "node_port_range": "30000-30009",
}
_numbers = itertools.count()


@pytest.fixture(scope="session", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp(request.param)
    engine, members = request.param.split("-")
    if engine == "etcd":
        with real_etcd(folder, members=int(members)) as running:
            yield running
    else:
        with ours(folder, members=int(members), engine=engine) as running:
            yield running


@pytest.fixture
async def client(store: Store) -> AsyncIterator[EtcdClient]:
    """A client of an empty store."""
    async with EtcdClient(store.endpoints) as client:
        await client.delete(b"\0", b"\0")
        yield client


def config() -> MasterConfig:
    return parse(dict(CONFIG), "test")


class Cluster:
    """The registry's verbs in the words of tests: kinds by plural, documents in and out."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.registry = core.registry
        self.options = WriteOptions(user=ADMIN)

    def kind(self, resource: str) -> Kind:
        plural, _, group = resource.partition(".")
        kind = self.registry.table.preferred(group, plural)
        assert kind is not None, resource
        return kind

    async def create(
        self, resource: str, document: dict[str, Any], *, namespace: str = "default", **more: Any
    ) -> dict[str, Any]:
        kind = self.kind(resource)
        return _json((await self.write_new(kind, document, namespace if kind.namespaced else "", **more)).stored)

    async def write_new(self, kind: Kind, document: dict[str, Any], namespace: str, **more: Any) -> Written:
        document = {"apiVersion": kind.group_version, "kind": kind.kind, **document}
        subresource, name = more.pop("subresource", ""), more.pop("name", "")
        options = self._options(more)
        return await self.registry.create(
            kind, document, namespace=namespace, name=name, subresource=subresource, options=options
        )

    async def get(self, resource: str, name: str, *, namespace: str = "default", **more: Any) -> dict[str, Any]:
        kind = self.kind(resource)
        return _json(await self.registry.get(kind, namespace=namespace if kind.namespaced else "", name=name, **more))

    async def update(
        self, resource: str, document: dict[str, Any], *, subresource: str = "", name: str = "", **more: Any
    ) -> dict[str, Any]:
        kind = self.kind(resource)
        meta = document["metadata"]
        written = await self.registry.update(
            kind,
            document,
            namespace=meta.get("namespace", ""),
            name=name or meta["name"],
            subresource=subresource,
            options=self._options(more),
        )
        return _json(written.stored)

    async def patch(
        self, resource: str, name: str, patch: Any, how: str = "merge", *, subresource: str = "", **more: Any
    ) -> dict[str, Any]:
        return _json((await self.write_patch(resource, name, patch, how, subresource=subresource, **more)).stored)

    async def write_patch(
        self, resource: str, name: str, patch: Any, how: str = "merge", *, subresource: str = "", **more: Any
    ) -> Written:
        kind = self.kind(resource)
        namespace = more.pop("namespace", "default") if kind.namespaced else ""
        return await self.registry.patch(
            kind, patch, how, namespace=namespace, name=name, subresource=subresource, options=self._options(more)
        )

    async def delete(self, resource: str, name: str, *, namespace: str = "default", **more: Any) -> Deleted:
        kind = self.kind(resource)
        uid, version = more.pop("uid", ""), more.pop("version", "")
        preconditions = Preconditions(uid=uid, resource_version=version) if uid or version else None
        return await self.registry.delete(
            kind,
            namespace=namespace if kind.namespaced else "",
            name=name,
            options=DeleteOptions(preconditions=preconditions, **more),
            user=ADMIN,
        )

    async def list(self, resource: str, **query: Any) -> Page:
        return await self.registry.list(self.kind(resource), Query(**query))

    async def names(self, resource: str, **query: Any) -> Sequence[str]:
        return [stored.obj.metadata.name for stored in (await self.list(resource, **query)).items]

    def _options(self, more: dict[str, Any]) -> WriteOptions:
        return WriteOptions(user=more.pop("user", ADMIN), **more)


def _json(stored: Stored) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.json.decode(stored.json))


@pytest.fixture
async def cluster(client: EtcdClient) -> AsyncIterator[Cluster]:
    async with running_core(client) as core:
        found = Cluster(core)
        for name in ("default", "kube-system"):
            await found.create("namespaces", {"metadata": {"name": name}})
        yield found


class running_core:  # noqa: N801 - reads as a function
    """A master's core with its cache filled and fed."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client

    async def __aenter__(self) -> Core:
        self.core = Core(config(), self._client)
        self._task = asyncio.create_task(self.core.cache.run())
        async with asyncio.timeout(10):
            while not self.core.cache.connected:  # noqa: ASYNC110 - the cache tells nobody
                await asyncio.sleep(0.01)
        return self.core

    async def __aexit__(self, *exc: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
