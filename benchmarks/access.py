"""What it costs to say who asks, whether they may, and to admit what they ask for.

Run: ``python -m benchmarks.access`` from the checkout. Microseconds a call, on a master's own parts over a store in
memory; no network. Read them as ratios: what a service account's request costs beside an administrator's, and what a
pod's admission costs beside a config map's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api import codec
from api.defaults import apply_defaults
from api.kinds.core import ServiceAccount
from api.meta import Resource
from client.etcd import EtcdClient
from master.access.bootstrap_roles import BootstrapRoles
from master.access.rules import Request
from master.access.user import AUTHENTICATED, SYSTEM_MASTERS, User
from master.admission.chain import Attributes
from master.config import parse
from master.program import Core
from master.rest.seam import WriteOptions
from tests.contract.kv.stores import ours

ADMIN = User("admin", (SYSTEM_MASTERS, AUTHENTICATED))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
ROUNDS = 2000


async def measure(name: str, call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(50):
        await call()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        await call()
    print(f"{name:48} {(time.perf_counter() - began) / ROUNDS * 1e6:8.1f} us")


def attributes(core: Core, obj: Resource) -> Attributes:
    meta = obj.metadata
    return Attributes(
        kind=core.registry.table.of(type(obj)),
        operation="CREATE",
        namespace=meta.namespace,
        name=meta.name,
        user=ADMIN,
        obj=obj,
    )


async def admit(core: Core, obj: Resource) -> None:
    found = attributes(core, obj)
    await core.chain.mutate(found, obj)
    await core.chain.judge(found)


async def run(core: Core) -> None:
    options = WriteOptions(user=ADMIN)
    table = core.registry.table

    async def create(kind: str, version: str, namespace: str, **document: object) -> Resource:
        row = table.kind(version, kind)
        assert row is not None, kind
        body = {"apiVersion": version, "kind": kind, **document}
        return (await core.registry.create(row, body, namespace=namespace, options=options)).stored.obj

    await create("Namespace", "v1", "", metadata={"name": "default"})
    await create("Namespace", "v1", "", metadata={"name": "kube-system"})
    await create("Namespace", "v1", "", metadata={"name": "kube-public"})
    account = await create("ServiceAccount", "v1", "default", metadata={"name": "default"})
    assert isinstance(account, ServiceAccount)
    await BootstrapRoles(core.registry, options).ensure()
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    await create(
        "RoleBinding", "rbac.authorization.k8s.io/v1", "default",
        metadata={"name": "e"}, roleRef=role, subjects=[subject],
    )  # fmt: skip
    await core.cache.fresh()
    tokens = core.access.tokens
    assert tokens is not None
    token = tokens.issue(account).token
    robot = await tokens.verify(token)
    assert robot is not None

    async def fresh_verify() -> None:
        tokens._verified.clear()  # noqa: SLF001 - as if it had never been seen
        await tokens.verify(token)

    await measure("token, seen before", lambda: tokens.verify(token))
    await measure("token, seen for the first time", fresh_verify)
    for name, user in (("administrator", ADMIN), ("node agent", NODE), ("service account with a role", robot)):
        asked = Request(user, "list", "", "pods", "", "default")
        await measure(f"may they: {name}", lambda asked=asked: core.authorizer.decide(asked))
    for kind in ("ConfigMap", "Pod"):
        row = table.kind("v1", kind)
        assert row is not None
        document: dict[str, object] = {"metadata": {"name": "x", "namespace": "default"}}
        if kind == "Pod":
            document["spec"] = {"containers": [{"name": "c", "image": "i"}]}
        apply_defaults(row, document)
        obj = codec.decode(row, document)
        await measure(f"admission: {kind}", lambda obj=obj: admit(core, obj))


async def main() -> None:
    with TemporaryDirectory() as folder:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = Path(folder) / "sa.key"
        path.write_bytes(pem)
        with ours(Path(folder), members=1, engine="memory") as store:
            config = parse(
                {
                    "name": "m", "address": "127.0.0.1", "store_endpoints": store.endpoints,
                    "tls": {"client_ca": "-", "cert": "-", "key": "-"}, "access": {"signing_keys": [str(path)]},
                },
                "benchmark",
            )  # fmt: skip
            async with EtcdClient(store.endpoints) as client:
                core = Core(config, client)
                feeding = asyncio.create_task(core.cache.run())
                while not core.cache.connected:  # noqa: ASYNC110 - the cache tells nobody
                    await asyncio.sleep(0.01)
                await run(core)
                feeding.cancel()


if __name__ == "__main__":
    asyncio.run(main())
