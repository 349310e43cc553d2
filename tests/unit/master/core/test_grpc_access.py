"""Who is let in by the gRPC face, and what the audit log is told: by grpcio's client, over TLS, and beside REST."""

import asyncio
import contextlib
import hashlib
import json
import ssl
from types import SimpleNamespace

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from api.errors import Conflict
from api.kinds import rbac
from api.meta import ObjectMeta
from fastgrpc.server import server_tls
from master.access.audit import AuditLog, Policy, PolicyRule
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.default_roles import default_objects
from master.access.gate import Gate
from master.access.policies import RegistryPolicies
from master.grpc_calls import GrpcPassage, asked_by, read_fields
from master.grpc_server import GrpcServer
from master.rest.server import RestServer
from tests.contract.access.cluster import Authority
from tests.unit.master.conftest import Tokens, until
from tests.unit.master.rest.fake_registry import FakeRegistry
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc as rpc

NODES = pb.GetRequest(target=pb.Target(resource="nodes", name="n1"))
IMPERSONATED = {
    "username": "bob",
    "uid": "7",
    "groups": ["devs", "system:authenticated"],
    "extra": {"scopes": ["1", "2"]},
}


class File:
    def write(self, lines):
        raise AssertionError("nobody runs this log")


class Faces:
    """Both faces of a master upon one gate, with TLS."""

    def __init__(self, registry, policies, audit, authority, rest, port):
        self.registry = registry
        self.policies = policies  # a registry of roles and bindings
        self.audit = audit
        self.authority = authority
        self.rest = rest  # URL
        self.port = port  # of gRPC

    def channel(self, user="", *groups, authority=None):
        """Return a channel of whom a certificate names; without a name, of nobody."""
        ca = self.authority.path.with_suffix(".crt").read_bytes()
        files = ()
        if user:
            stem = (authority or self.authority).issue(user, user, *groups)
            files = (stem.with_suffix(".key").read_bytes(), stem.with_suffix(".crt").read_bytes())
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", grpc.ssl_channel_credentials(ca, *files))

    def events(self):
        return [json.loads(line) for line in self.audit._take()]


@pytest.fixture
async def faces(tmp_path, registry):
    authority = Authority(tmp_path)
    stem = authority.issue("server", "master")

    def tls():
        return server_tls(f"{stem}.crt", f"{stem}.key", str(authority.path.with_suffix(".crt")), optional=True)

    audit = AuditLog(File(), Policy(rules=(PolicyRule(level="RequestResponse"),)))
    policies = FakeRegistry().furnish(default_objects())
    authorizer = Authorizer(RegistryPolicies(policies))
    gate = Gate(Authenticator([Tokens()]), authorizer, audit=audit)
    server, rest = GrpcServer(registry, gate), RestServer(registry, gate)
    port = await server.start("127.0.0.1", 0, tls())
    url = f"https://127.0.0.1:{await rest.start('127.0.0.1', 0, tls())}"
    yield Faces(registry, policies, audit, authority, url, port)
    await rest.stop()
    await server.stop()


async def get_node(channel, **metadata):
    """Return the status code of the answer to whether there is a node n1 (there is none), and what it says."""
    sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rpc.ResourcesStub(channel).Get(NODES, metadata=sent)
    packed = dict(refused.value.trailing_metadata())["trireme-status-bin"]
    status = json.loads(pb.Error.FromString(packed).status_json)
    assert status["message"] == refused.value.details()
    return refused.value.code(), status


MAY = grpc.StatusCode.NOT_FOUND
MAY_NOT = grpc.StatusCode.PERMISSION_DENIED
WHO = grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("certificate", "headers", "code", "user"),
    [
        (("admin", "system:masters"), {}, MAY, "admin"),
        (
            ("admin", "system:masters"),
            {"authorization": "Bearer unknown"},
            MAY,
            "admin",
        ),  # who has shown one needs no other
        (("bob",), {}, MAY_NOT, "bob"),
        ((), {"authorization": "Bearer admin"}, MAY, "admin"),
        ((), {"authorization": "bearer  admin"}, MAY, "admin"),
        ((), {"authorization": "Bearer alice"}, MAY_NOT, "alice"),
        ((), {"authorization": "Bearer unknown"}, WHO, ""),
        ((), {"authorization": "Basic admin"}, WHO, ""),
        ((), {}, MAY_NOT, "system:anonymous"),
    ],
)
async def test_who_is_there_over_grpc_is_who_is_there_over_rest(faces, certificate, headers, code, user):
    """Goal: one chain. Method: the same credentials at both faces; the same refusal, and the same audit event."""
    async with faces.channel(*certificate) as channel:
        seen, status = await get_node(channel, **headers)
    assert seen is code
    context = ssl.create_default_context(cafile=str(faces.authority.path.with_suffix(".crt")))
    if certificate:
        context.load_cert_chain(*(faces.authority.folder / f"{certificate[0]}{end}" for end in (".crt", ".key")))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{faces.rest}/api/v1/nodes/n1", headers=headers, ssl=context) as answer,
    ):
        assert await answer.json() == status
    over_grpc, over_rest = faces.events()
    assert over_grpc["user"].get("username", "") == user
    for apart in ("auditID", "requestURI", "userAgent", "requestReceivedTimestamp", "stageTimestamp", "responseObject"):
        over_grpc.pop(apart, None), over_rest.pop(apart, None)
    assert over_grpc.pop("objectRef") | {"apiVersion": "v1"} == over_rest.pop("objectRef")
    assert over_grpc == over_rest


@pytest.mark.parametrize(
    ("headers", "code", "says"),
    [
        ({"impersonate_user": "bob"}, MAY_NOT, 'User "bob" cannot get resource "nodes"'),
        ({"impersonate_user": "bob", "impersonate_group": "system:masters"}, MAY, "not found"),
        ({"impersonate_group": "devs"}, grpc.StatusCode.INVALID_ARGUMENT, "without impersonating a user"),
        ({"authorization": "Bearer alice", "impersonate_user": "bob"}, MAY_NOT, "cannot impersonate resource"),
    ],
)
async def test_acting_as_somebody_else(faces, headers, code, says):
    async with faces.channel() as channel:
        seen, status = await get_node(channel, **{"authorization": "Bearer admin"} | headers)
    assert (seen, says in status["message"]) == (code, True), status


async def test_everything_of_somebody_else_is_told(faces):
    metadata = [
        ("authorization", "Bearer admin"), ("impersonate-user", "bob"), ("impersonate-uid", "7"),
        ("impersonate-group", "devs"), ("impersonate-extra-scopes", "1"), ("impersonate-extra-scopes", "2"),
        ("audit-id", "mine"),
    ]  # fmt: skip
    async with faces.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await rpc.ResourcesStub(channel).Get(NODES, metadata=metadata)
    (event,) = faces.events()
    assert (event["user"]["username"], event["impersonatedUser"], event["auditID"]) == ("admin", IMPERSONATED, "mine")
    assert event["sourceIPs"] == ["127.0.0.1"]
    assert "grpc-python" in event["userAgent"]


async def test_a_name_in_the_target_of_a_list_opens_nothing(faces):
    """Goal: who may read one object by name cannot list all. Method: a list, and a watch, with that name in its target."""
    rule = rbac.PolicyRule(verbs=("list", "watch"), api_groups=("",), resources=("secrets",), resource_names=("mine",))
    meta = ObjectMeta(name="one")
    subject = rbac.Subject(kind="User", api_group="rbac.authorization.k8s.io", name="bob")
    reference = rbac.RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name="one")
    binding = rbac.ClusterRoleBinding(metadata=meta, subjects=(subject,), role_ref=reference)
    faces.policies.furnish([rbac.ClusterRole(metadata=meta, rules=(rule,)), binding])
    all_of_them = pb.Target(resource="secrets", namespace="default")
    named = pb.Target(resource="secrets", namespace="default", name="mine")
    chosen = pb.ListRequest(target=all_of_them, field_selector="metadata.name=mine")
    async with faces.channel("bob") as bob, faces.channel("admin", "system:masters") as admin:
        stub = rpc.ResourcesStub(bob)
        await stub.List(chosen)
        for call in (stub.List(pb.ListRequest(target=named)), stub.Watch(pb.WatchRequest(target=named)).read()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is MAY_NOT
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc.ResourcesStub(admin).List(pb.ListRequest(target=named))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("verb", "target", "namespace", "name"),
    [
        ("get", {"resource": "secrets", "namespace": "a", "name": "x"}, "a", "x"),
        ("list", {"resource": "secrets", "namespace": "a", "name": "x"}, "a", ""),
        ("watch", {"resource": "secrets", "namespace": "a", "name": "x"}, "a", ""),
        ("create", {"resource": "secrets", "namespace": "a", "name": "x"}, "a", ""),  # no POST has a name in its path
        ("create", {"resource": "pods", "namespace": "a", "name": "x", "subresource": "binding"}, "a", "x"),
        ("get", {"resource": "namespaces", "name": "x"}, "x", "x"),
        ("list", {"resource": "namespaces", "name": "x"}, "", ""),  # who administers one would see all
        ("create", {"resource": "namespaces", "name": "x"}, "", ""),
        ("update", {"resource": "namespaces", "name": "x", "subresource": "finalize"}, "x", "x"),
    ],
)
def test_a_target_is_authorized_as_its_path_would_be(verb, target, namespace, name):
    requests = {"list": pb.ListRequest, "watch": pb.WatchRequest}
    asked = asked_by(verb, requests.get(verb, pb.GetRequest)(target=pb.Target(**target)))
    assert (asked.namespace, asked.name) == (namespace, name)


def test_metadata_are_read_as_header_fields_are():
    fields = read_fields((("impersonate-user", "jörg".encode().decode("latin-1")), ("x-bin", b"\0"), ("a", "1")))
    assert dict(fields) == {"impersonate-user": "jörg", "a": "1"}


async def test_a_certificate_tells_people_of_one_name_apart(faces):
    async with faces.channel("bob") as channel:
        await get_node(channel)
        await get_node(channel)
    first, second = faces.events()
    der = ssl.PEM_cert_to_DER_cert((faces.authority.folder / "bob.crt").read_text())
    expected = {"authentication.kubernetes.io/credential-id": [f"X509SHA256={hashlib.sha256(der).hexdigest()}"]}
    assert first["user"]["extra"] == second["user"]["extra"] == expected


async def test_a_certificate_of_somebody_else_is_refused(faces, tmp_path):
    (tmp_path / "other").mkdir()
    async with faces.channel("admin", "system:masters", authority=Authority(tmp_path / "other")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc.ResourcesStub(channel).Get(NODES, timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert faces.events() == []


async def test_what_is_written_is_told_with_its_object(faces):
    target = pb.Target(resource="configmaps", version="v1", namespace="default")
    document = {"metadata": {"name": "x", "namespace": "default"}}
    async with faces.channel("admin", "system:masters") as channel:
        stub = rpc.ResourcesStub(channel)
        await stub.Create(pb.CreateRequest(target=target, json=json.dumps(document).encode()))
        target.name = "x"
        await stub.Delete(pb.DeleteRequest(target=target))
        target.resource, target.name = "pods", "p"
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        target.name = ""
        await stub.Create(pb.CreateRequest(target=target, json=json.dumps(pod).encode()))
        await stub.List(pb.ListRequest(target=target))
    created, deleted, of_pod, listed = faces.events()
    assert "responseObject" not in created, "what config maps hold is nobody's business"
    assert (deleted["verb"], deleted["responseStatus"]["code"]) == ("delete", 200)
    assert of_pod["requestObject"] == pod
    assert of_pod["responseObject"]["metadata"]["uid"]
    assert listed["responseObject"]["kind"] == "PodList"
    assert [each["metadata"]["name"] for each in listed["responseObject"]["items"]] == ["p"]


@pytest.mark.parametrize(("level", "made"), [("None", 0), ("Metadata", 0), ("Request", 0), ("RequestResponse", 1)])
async def test_an_answer_is_made_for_the_audit_log_only_if_its_policy_wants_it(level, made):
    """A list of everything would be put together once more for a line that says who asked for it."""
    audit, calls = AuditLog(File(), Policy(rules=(PolicyRule(level=level),))), []
    head = SimpleNamespace(path="/trireme.cluster.Resources/List")
    call = SimpleNamespace(metadata=(), peer=SimpleNamespace(address="127.0.0.1:4"), head=head)
    asked = asked_by("list", pb.ListRequest(target=pb.Target(resource="pods")))
    gate = Gate(Authenticator([]), Authorizer(RegistryPolicies(FakeRegistry())), audit=audit)
    gate.finish(GrpcPassage(call, asked), 200, lambda: calls.append("made") or b"{}")
    assert len(calls) == made
    assert len(audit._lines) == (level != "None")


async def waiting(faces, monkeypatch):
    """Let the registry's get wait for ever; return an event that says that one waits."""
    begun = asyncio.Event()

    async def wait(*_, **__):
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(faces.registry, "get", wait)
    return begun


@pytest.mark.parametrize(
    ("left_s", "lasting", "code"),
    [
        (None, False, 499),
        (5.0, False, 499),
        (0.05, False, 504),
        (-1.0, False, 504),
        (None, True, 200),
        (-1.0, True, 200),
    ],
)
async def test_how_a_call_that_is_given_up_is_told(left_s, lasting, code):
    call = SimpleNamespace(metadata=(), peer=SimpleNamespace(address="127.0.0.1:4"), time_left_s=left_s)
    passage = GrpcPassage(call, None)
    passage.lasting = lasting
    assert passage.given_up == code


@pytest.mark.parametrize(("patience_s", "codes"), [(None, {499}), (1.5, {499, 504})])
async def test_a_call_that_is_given_up_is_told(faces, monkeypatch, patience_s, codes):
    begun = await waiting(faces, monkeypatch)
    async with faces.channel("admin", "system:masters") as channel:
        await channel.channel_ready()
        call = asyncio.ensure_future(rpc.ResourcesStub(channel).Get(NODES, timeout=patience_s))
        await begun.wait()
        if patience_s is None:
            call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call
        await until(lambda: faces.audit._lines)
    (event,) = faces.events()
    assert (event["verb"], event["user"]["username"]) == ("get", "admin")
    assert event["responseStatus"]["code"] in codes


async def test_a_request_over_rest_whose_client_leaves_is_told(faces, monkeypatch):
    begun = await waiting(faces, monkeypatch)
    context = ssl.create_default_context(cafile=str(faces.authority.path.with_suffix(".crt")))
    port = int(faces.rest.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(b"GET /api/v1/nodes/n1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n")
    await begun.wait()
    writer.transport.abort()
    await until(lambda: faces.audit._lines)
    (event,) = faces.events()
    assert (event["verb"], event["user"]["username"], event["responseStatus"]["code"]) == ("get", "admin", 499)
    assert event["sourceIPs"] == ["127.0.0.1"]


async def test_our_own_fault_is_told_without_details(faces, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(faces.registry, "get", fail)
    async with faces.channel("admin", "system:masters") as channel:
        code, status = await get_node(channel)
    assert (code, status["code"]) == (grpc.StatusCode.INTERNAL, 500)
    assert "secret" not in status["message"]
    assert [each["responseStatus"]["code"] for each in faces.events()] == [500]


async def test_refusals_keep_their_reason(faces):
    faces.registry.refusal = Conflict("somebody wrote")
    async with faces.channel("admin", "system:masters") as channel:
        assert await get_node(channel) == (grpc.StatusCode.ABORTED, Conflict("somebody wrote").status())


async def test_a_body_beyond_any_object_is_too_large(faces):
    target = pb.Target(resource="configmaps", version="v1", namespace="default")
    async with faces.channel("admin", "system:masters") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await rpc.ResourcesStub(channel).Create(pb.CreateRequest(target=target, json=b" " * (3 << 20) + b"{}"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [each["responseStatus"]["code"] for each in faces.events()] == [413]


async def test_health_is_open_to_all_and_reflection_to_who_may_read_openapi(faces):
    async with faces.channel() as nobody:
        health = health_pb2_grpc.HealthStub(nobody)
        assert (
            await health.Check(health_pb2.HealthCheckRequest())
        ).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watching.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health.Check(health_pb2.HealthCheckRequest(service="x"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        stub = reflection_pb2_grpc.ServerReflectionStub(nobody)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        for token, code in (("", MAY_NOT), ("unknown", WHO), ("alice", None)):
            metadata = [("authorization", f"Bearer {token}")] if token else []
            answers = stub.ServerReflectionInfo(metadata=metadata)
            if code is None:
                await answers.write(asked)
                names = {each.name for each in (await answers.read()).list_services_response.service}
                assert {"trireme.cluster.Resources", "grpc.health.v1.Health"} <= names
            else:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await answers.read()
                assert refused.value.code() is code


async def test_a_client_that_has_no_stubs_makes_them_by_reflection(faces):
    def call(port, files):
        with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*files)) as channel:
            pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            service = pool.FindServiceByName("trireme.cluster.Resources")
            return {each.name: each.input_type.full_name for each in service.methods}

    stem = faces.authority.issue("alice", "alice")
    files = (faces.authority.path.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".crt"))
    found = await asyncio.to_thread(call, faces.port, [each.read_bytes() for each in files])
    assert found["Watch"] == "trireme.cluster.WatchRequest"
    assert len(found) == 7
