"""The two faces of a master agree: the same question over REST and over gRPC has the same answer.

Method: each step is asked over REST in one namespace and over gRPC in another; what differs must be only what tells
two objects apart (namespace, uid, versions, times).
"""

import asyncio
import functools
import json
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
import pytest

from client.etcd import EtcdClient
from master import cache as cache_module
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.default_roles import default_objects
from master.access.gate import Gate
from master.access.policies import RegistryPolicies
from master.changes import Watcher
from master.grpc_calls import STATUS_KEY
from master.grpc_server import GrpcServer
from master.rest.server import RestServer
from tests.contract.kv.stores import ours
from tests.contract.storage.conftest import Cluster, running_core
from tests.property.openapi_requests import Requests
from tests.unit.master.conftest import Tokens
from tests.unit.master.rest.fake_registry import FakeRegistry
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc

PATCHES = {
    "json": ("application/json-patch+json", pb.PatchRequest.JSON),
    "merge": ("application/merge-patch+json", pb.PatchRequest.MERGE),
    "strategic": ("application/strategic-merge-patch+json", pb.PatchRequest.STRATEGIC_MERGE),
    "apply": ("application/apply-patch+yaml", pb.PatchRequest.APPLY),
}


class Step(NamedTuple):
    """One question."""

    verb: str
    resource: str = "configmaps"
    name: str = ""
    body: Any = None
    subresource: str = ""
    how: str = ""  # of a patch
    user: str = "admin"
    group: str = ""
    query: Mapping[str, str] = MappingProxyType({})
    manager: str = "me"


class Faces:
    """Both ways to ask."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession, stub: Any) -> None:
        self.cluster = cluster
        self._session = session
        self._stub = stub

    async def both(self, step: Step) -> tuple[tuple[int, Any], tuple[int, Any]]:
        rest, over_grpc = _plain(*await self.rest(step)), _plain(*await self.grpc(step))
        if step.verb == "list" and rest[0] == 200:
            rest = (200, {"items": rest[1]["items"]})
        if step.verb == "delete" and rest[0] == 200 and rest[1]["kind"] == "Status":
            over_grpc = (over_grpc[0], rest[1])  # over gRPC it is always the object that answers
        return rest, over_grpc

    async def rest(self, step: Step) -> tuple[int, Any]:
        path = f"/apis/{step.group}/v1" if step.group else "/api/v1"
        path += "/namespaces/rest/" + "/".join(filter(None, (step.resource, step.name, step.subresource)))
        if step.verb == "create" and not step.subresource:
            path = path.removesuffix(f"/{step.name}")
        method = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}.get(step.verb, "GET")
        query = dict(step.query)
        if method in ("POST", "PUT", "PATCH"):
            query |= {"fieldManager": step.manager} if step.manager else {}
        headers = {"Authorization": f"Bearer {step.user}", "Content-Type": "application/json"}
        if step.how:
            headers["Content-Type"] = PATCHES[step.how][0]
        body = None if step.body is None else json.dumps(step.body)
        async with self._session.request(method, path, params=query, headers=headers, data=body) as answer:
            return answer.status, await answer.json()

    async def grpc(self, step: Step) -> tuple[int, Any]:
        metadata = (("authorization", f"Bearer {step.user}"),)
        target = pb.Target(
            group=step.group,
            version="v1",
            resource=step.resource,
            namespace="grpc",
            name=step.name,
            subresource=step.subresource,
        )
        data = json.dumps(step.body).encode()
        try:
            match step.verb:
                case "get":
                    return 200, json.loads((await self._stub.Get(pb.GetRequest(target=target), metadata=metadata)).json)
                case "list":
                    labels, fields = step.query.get("labelSelector", ""), step.query.get("fieldSelector", "")
                    request = pb.ListRequest(target=target, label_selector=labels, field_selector=fields)
                    return 200, {
                        "items": [
                            json.loads(each.json) for each in (await self._stub.List(request, metadata=metadata)).items
                        ]
                    }
                case "create":
                    created = pb.CreateRequest(target=target, json=data, field_manager=step.manager)
                    made = await self._stub.Create(created, metadata=metadata)
                    return 200, json.loads(made.json)
                case "update":
                    updated = pb.UpdateRequest(target=target, json=data, field_manager=step.manager)
                    made = await self._stub.Update(updated, metadata=metadata)
                    return 200, json.loads(made.json)
                case "patch":
                    request = pb.PatchRequest(
                        target=target,
                        json=data,
                        field_manager=step.manager,
                        type=PATCHES[step.how][1],
                        force=step.query.get("force") == "true",
                    )
                    return 200, json.loads((await self._stub.Patch(request, metadata=metadata)).json)
                case "delete":
                    return 200, json.loads(
                        (await self._stub.Delete(pb.DeleteRequest(target=target), metadata=metadata)).object.json
                    )
        except grpc.aio.AioRpcError as error:
            status = json.loads(pb.Error.FromString(dict(error.trailing_metadata())[STATUS_KEY]).status_json)
            return status["code"], status
        raise AssertionError(step)

    async def openapi(self, root: str) -> Any:
        """Return the published document of a group version."""
        async with self._session.get(f"/openapi/v3/{root}", headers={"Authorization": "Bearer admin"}) as answer:
            return await answer.json()

    async def watch_grpc(self, since: int) -> AsyncIterator[pb.WatchEvent]:
        target = pb.Target(resource="configmaps", namespace="grpc")
        call = self._stub.Watch(
            pb.WatchRequest(target=target, resource_version=since), metadata=(("authorization", "Bearer admin"),)
        )
        await call.initial_metadata()
        return call


def _plain(code: int, document: Any) -> tuple[int, Any]:
    """Return an answer without what tells the two namespaces' objects apart."""
    text = (
        json.dumps(document)
        .replace('"rest"', '"ns"')
        .replace('"grpc"', '"ns"')
        .replace('namespace \\"grpc', 'namespace \\"rest')
    )
    return min(code, 200) if code < 300 else code, _without(json.loads(text))


_APART = frozenset(
    {"uid", "resourceVersion", "creationTimestamp", "time", "deletionTimestamp", "lastTransitionTime", "metadata.uid"}
)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(each) for key, each in value.items() if key not in _APART}
    return [_without(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
async def faces(tmp_path: Path) -> AsyncIterator[Faces]:
    with ours(tmp_path, members=1, engine="memory") as store:
        async with EtcdClient(store.endpoints) as client, running_core(client) as core:
            cluster = Cluster(core)
            for name in ("rest", "grpc"):
                await cluster.create("namespaces", {"metadata": {"name": name}})
                await cluster.create("serviceaccounts", {"metadata": {"name": "default"}}, namespace=name)
            authorizer = Authorizer(RegistryPolicies(FakeRegistry().furnish(default_objects())))
            gate = Gate(Authenticator([Tokens()]), authorizer)
            rest = RestServer(core.registry, gate)
            port = await rest.start("127.0.0.1", 0, None)
            server = GrpcServer(core.registry, gate)
            address = f"127.0.0.1:{await server.start('127.0.0.1', 0, None)}"
            async with (
                grpc.aio.insecure_channel(address) as channel,
                aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            ):
                yield Faces(cluster, session, cluster_pb2_grpc.ResourcesStub(channel))
            await server.stop()
            await rest.stop()


POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
SPEC = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}}
APPS = {"resource": "deployments", "group": "apps", "name": "d"}
PODS = {"resource": "pods", "name": "p"}
STEPS = [
    Step("get", name="none"),
    Step("create", name="a", body={"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}),
    Step("create", name="a", body={"metadata": {"name": "a"}}),
    Step("create", body={"metadata": {"name": "A B"}}),
    Step("create", body={"metadata": {"name": "b"}, "kind": "Pod"}),
    Step("create", body=[]),
    Step("create", body={"metadata": {"name": "deep", "annotations": functools.reduce(lambda below, _: {"a": below}, range(150), {})}}),
    Step("create", body={"metadata": {"name": "b"}}, manager="m" * 200),
    Step("create", body={"metadata": {"name": "b"}}, user="alice"),
    Step("get", name="a"),
    Step("get", name="a", user="alice"),
    Step("list"),
    Step("list", query={"labelSelector": "x=y"}),
    Step("list", query={"labelSelector": "x in"}),
    Step("list", query={"fieldSelector": "data.k=v"}),
    Step("list", query={"fieldSelector": "metadata.name=a"}, user="alice"),
    Step("update", name="a", body={"metadata": {"name": "a"}, "data": {"k": "w"}}),
    Step("update", name="a", body={"metadata": {"name": "other"}}),
    Step("update", name="a", body={"metadata": {"name": "a", "resourceVersion": "1"}}),
    Step("patch", name="a", how="merge", body={"data": {"l": "1"}}),
    Step("patch", name="a", how="json", body=[{"op": "test", "path": "/data/l", "value": "2"}]),
    Step("patch", name="a", how="strategic", body={"data": {"l": None}}),
    Step("patch", name="a", how="merge", body={}, query={"force": "true"}),
    Step("patch", name="a", how="apply", body={"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "z"}}, manager="else"),
    Step("patch", name="a", how="apply", body={"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "z"}}, manager=""),
    Step("patch", name="a", how="apply", body={"data": {"k": "z"}}, manager="else", query={"force": "true"}),
    Step("create", **PODS, body=POD),
    Step("get", **PODS, subresource="status"),
    Step("get", **PODS, subresource="binding"),
    Step("get", **PODS, subresource="scale"),
    Step("patch", **PODS, subresource="status", how="merge", body={"status": {"phase": "Running"}}),
    Step("update", **PODS, subresource="status", body=POD | {"status": {"phase": "Failed"}}),
    Step("delete", **PODS, subresource="status"),
    Step("create", **APPS, body={"metadata": {"name": "d"}, "spec": SPEC}),
    Step("get", **APPS, subresource="scale"),
    Step("update", **APPS, subresource="scale", body={"metadata": {"name": "d"}, "spec": {"replicas": 3}}),
    Step("patch", **APPS, subresource="scale", how="merge", body={"spec": {"replicas": -1}}),
    Step("create", resource="serviceaccounts", name="default", subresource="token", body={}),
    Step("delete", **PODS, user="alice"),
    Step("delete", **PODS),
    Step("delete", name="none"),
    Step("list", resource="nothings"),
]  # fmt: skip


async def test_the_same_question_has_the_same_answer(faces: Faces) -> None:
    codes = set()
    for step in STEPS:
        rest, over_grpc = await faces.both(step)
        assert over_grpc == rest, step
        codes.add(rest[0])
    assert codes == {200, 400, 403, 404, 405, 409, 422}


@pytest.mark.parametrize("seed", range(3))
async def test_random_changes_come_to_the_same(faces: Faces, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        name, value = rng.choice("abc"), str(rng.randrange(3))
        body = {"metadata": {"name": name}, "data": {"k": value}}
        how = rng.choice(("merge", "strategic", "apply"))
        typed = (
            {"apiVersion": "v1", "kind": "ConfigMap", **body} if how == "apply" else {"data": {rng.choice("kl"): value}}
        )
        manager = rng.choice(("me", "you"))
        step = rng.choice([
            Step("create", name=name, body=body, manager=manager), Step("update", name=name, body=body, manager=manager),
            Step("patch", name=name, how=how, body=typed, manager=manager), Step("delete", name=name), Step("get", name=name), Step("list"),
        ])  # fmt: skip
        rest, over_grpc = await faces.both(step)
        assert over_grpc == rest, step


async def test_a_caller_that_does_not_read_costs_a_bounded_queue(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a slow caller holds up nobody and is told to list again. Method: far more than fits into its connection."""
    opened: list[Watcher] = []

    def watcher(*args: Any, **more: Any) -> Watcher:
        opened.append(Watcher(*args, backlog=10, **more))
        return opened[-1]

    monkeypatch.setattr(cache_module, "Watcher", watcher)
    stream = await faces.watch_grpc(faces.cluster.registry.cache_revision)
    waiting = 0
    for number in range(60):
        document = {"metadata": {"name": f"c{number}"}, "data": {"x": "x" * 400_000}}
        await faces.cluster.create("configmaps", document, namespace="grpc")
        await asyncio.sleep(0)
        waiting = max(waiting, len(opened[0]._events))
    assert waiting <= 10
    taken: list[pb.WatchEvent] = []

    async def take_all() -> None:
        async for event in stream:
            taken.append(event)  # noqa: PERF401 - what was taken before the refusal is looked at

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await asyncio.wait_for(take_all(), 20)
    assert refusal.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert 0 < len(taken) < 60


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_written_comes_to_the_same(faces: Faces, seed: int) -> None:
    """Goal: no rule that one face has and the other has not. Method: objects drawn from the published OpenAPI."""
    rng = random.Random(seed)
    codes: set[int] = set()
    for root, group in (("api/v1", ""), ("apis/apps/v1", "apps")):
        document = await faces.openapi(root)
        requests = Requests(document, rng, odd=0.02)
        for drawn in (requests.draw() for _ in range(400)):
            if "/.." in drawn.path:
                continue  # our client of REST would shorten it
            match drawn.path.removeprefix(f"/{root}/namespaces/").split("/"):
                case [_, "finalize" | "status" | "bindings"]:
                    continue  # of the namespace itself; and what over gRPC is the pod's subresource alone
                case [_, resource]:
                    name, subresource = "", ""
                case [_, resource, name]:
                    subresource = ""
                case [_, resource, name, ("status" | "scale") as subresource]:
                    pass
                case _:
                    continue
            verb = {"POST": "create", "PUT": "update"}.get(drawn.method, "")
            if (
                not verb
                or drawn.headers.get("Content-Type") != "application/json"
                or not drawn.path.startswith(f"/{root}/namespaces/")
            ):
                continue
            try:
                body = json.loads(drawn.body)
            except ValueError:
                continue
            step = Step(verb, resource=resource, name=name, subresource=subresource, body=body, group=group)
            rest, over_grpc = await faces.both(step)
            assert over_grpc[0] == rest[0], (step, rest, over_grpc)
            assert over_grpc[1].get("reason") == rest[1].get("reason"), step
            codes.add(rest[0])
    assert {200, 400, 404, 422} <= codes
