"""Whom the store takes a client for: by its certificate, by its token, and never by the gateway's."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest

from deploy.pki import Authority, Subject
from raft_store.config import Config, TlsTable
from raft_store.member import running
from raft_store.tool.live import Access
from tests.ports import free_ports
from trireme_pb.authpb import auth_pb2
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create("test")
        (folder / "ca.pem").write_bytes(self.authority.pair.certificate)

    def of(self, user: str, *, server: bool = False) -> TlsTable:
        pair = self.authority.issue(Subject(user, addresses=("127.0.0.1",), server=server))
        cert, key = self.folder / f"{user}.pem", self.folder / f"{user}.key"
        cert.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        return TlsTable(ca=self.folder / "ca.pem", cert=cert, key=key)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@asynccontextmanager
async def channel(port: int, tls: TlsTable) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as opened:
        yield opened


async def code_of(call: grpc.aio.UnaryUnaryCall) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        return f"{exc.code().name}: {exc.details()}"
    return "OK"


@pytest.mark.parametrize("front", ["fast", "grpcio"])
async def test_a_certificate_names_a_user(certificates: Certificates, tmp_path: Path, front: str) -> None:
    (http,) = free_ports(1)
    config = Config(
        name="m0",
        members={"m0": "http://127.0.0.1:1"},
        data_dir=tmp_path / "data",
        client_url="https://127.0.0.1:1",
        client_listen="127.0.0.1:0",
        http_listen=f"127.0.0.1:{http}",
        engine="memory",
        front=front,
        client_tls=certificates.of("server", server=True),
    )
    root, ann, eve = (certificates.of(user) for user in ("root", "ann", "eve"))
    denied = "PERMISSION_DENIED: etcdserver: permission denied"
    async with running(config) as member, channel(member.client_port, root) as opened:
        auth, kv = rpc_pb2_grpc.AuthStub(opened), rpc_pb2_grpc.KVStub(opened)
        for name in ("root", "ann"):
            await auth.UserAdd(pb.AuthUserAddRequest(name=name, options=auth_pb2.UserAddOptions(no_password=True)))
        await auth.UserGrantRole(pb.AuthUserGrantRoleRequest(user="root", role="root"))
        await auth.RoleAdd(pb.AuthRoleAddRequest(name="some"))
        permission = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"a")
        await auth.RoleGrantPermission(pb.AuthRoleGrantPermissionRequest(name="some", perm=permission))
        await auth.UserGrantRole(pb.AuthUserGrantRoleRequest(user="ann", role="some"))
        await auth.UserAdd(pb.AuthUserAddRequest(name="bob", password="secret"))
        await auth.AuthEnable(pb.AuthEnableRequest())
        assert await code_of(kv.Put(pb.PutRequest(key=b"z"))) == "OK"
        token = (await auth.Authenticate(pb.AuthenticateRequest(name="bob", password="secret"))).token
        # The token says more than the certificate.
        assert await code_of(kv.Put(pb.PutRequest(key=b"a"), metadata=(("token", token),))) == denied
        for tls, key, expected in ((ann, b"a", "OK"), (ann, b"b", denied), (eve, b"a", denied)):
            async with channel(member.client_port, tls) as other:
                assert await code_of(rpc_pb2_grpc.KVStub(other).Put(pb.PutRequest(key=key))) == expected
        await gateway_knows_no_certificate(http, root)
        if front == "fast":
            await gateway_knows_none_by_http_2_either(member.client_port, root)
        await auth.AuthDisable(pb.AuthDisableRequest())


async def gateway_knows_no_certificate(port: int, tls: TlsTable) -> None:
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(tls.cert, tls.key)
    url = f"https://127.0.0.1:{port}/v3/kv/range"
    async with aiohttp.ClientSession() as session, session.post(url, json={"key": "YQ=="}, ssl=context) as response:
        assert (response.status, json.loads(await response.text())["error"]) == (400, "etcdserver: user name is empty")


async def gateway_knows_none_by_http_2_either(port: int, tls: TlsTable) -> None:
    """curl negotiates it by itself."""
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-m", "10", "--cacert", str(tls.ca), "--cert", str(tls.cert), "--key", str(tls.key)),
        *("-w", "%{http_version} %{http_code}", "-d", '{"key": "YQ=="}', f"https://127.0.0.1:{port}/v3/kv/range"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await curl.communicate()
    assert output.endswith(b"2 400")
    assert b'"error":"etcdserver: user name is empty"' in output


async def test_the_tools_fetch_pages_with_a_certificate(certificates: Certificates, tmp_path: Path) -> None:
    config = Config(
        name="m0",
        members={"m0": "http://127.0.0.1:1"},
        data_dir=tmp_path / "data",
        client_url="https://127.0.0.1:1",
        client_listen="127.0.0.1:0",
        engine="memory",
        client_tls=certificates.of("server", server=True),
    )
    ann = certificates.of("ann")
    async with running(config) as member:
        endpoint = f"127.0.0.1:{member.client_port}"
        access = Access((endpoint,), ca=str(ann.ca), cert=str(ann.cert), key=str(ann.key))
        health = await asyncio.to_thread(access.get, endpoint, "/health", timeout_s=5)
        assert health is not None
        assert json.loads(health)["health"] == "true"
        # A group of one tells no messages.
        assert await asyncio.to_thread(access.get, endpoint, "/trace?after=0", timeout_s=5) is None
        with pytest.raises(OSError, match=r"(?i)certificate|ssl|tls|reset|closed"):
            await asyncio.to_thread(Access((endpoint,), ca=str(ann.ca)).get, endpoint, "/health", timeout_s=5)
