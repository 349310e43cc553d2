"""What both fronts offer besides the services."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from raft_store.config import Config
from raft_store.engines.memory import MemoryEngine
from raft_store.member import Member, running
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc


@pytest.fixture(params=["fast", "grpcio"])
async def member(request: pytest.FixtureRequest) -> AsyncIterator[Member]:
    config = Config(
        name="m1",
        members={"m1": "http://127.0.0.1:1"},
        data_dir=Path("/nonexistent"),
        client_url="http://127.0.0.1:2379",
        client_listen="127.0.0.1:0",
        front=request.param,
    )
    async with running(config, MemoryEngine(config.member)) as started:
        yield started


@pytest.fixture
async def channel(member: Member) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{member.client_port}") as channel:
        yield channel


async def test_reflection_lists_every_service(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = (
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV"),
    )
    listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"etcdserverpb.KV", "etcdserverpb.Watch", "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


async def test_health_knows_one_service(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watching = health.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watching.cancel()


async def test_calls_are_counted_by_how_they_end(member: Member, channel: grpc.aio.Channel) -> None:
    kv = rpc_pb2_grpc.KVStub(channel)
    await kv.Put(pb.PutRequest(key=b"k"))
    with pytest.raises(grpc.aio.AioRpcError):
        await kv.Put(pb.PutRequest(key=b""))
    assert member.calls["etcdserverpb.KV", "Put", "OK"] == 1
    assert member.calls["etcdserverpb.KV", "Put", "INVALID_ARGUMENT"] == 1


@pytest.mark.parametrize("member", ["fast"], indirect=True)
async def test_plain_http_is_served_on_the_clients_port(member: Member) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{member.client_port}") as session:
        for path, text in (("/health", '"health":"true"'), ("/version", "etcdserver"), ("/metrics", "etcd_server")):
            async with session.get(path) as answer:
                assert answer.status == 200
                assert text in await answer.text()


LARGE = "@large"  # more than any request may have


@pytest.mark.parametrize("version", ["--http2-prior-knowledge", "--http1.1"])
@pytest.mark.parametrize("member", ["fast"], indirect=True)
async def test_plain_http_is_answered_alike_by_either_version(member: Member, version: str, tmp_path: Path) -> None:
    """curl speaks HTTP/2 by itself once TLS has negotiated it."""
    (tmp_path / "large").write_bytes(b" " * (8 << 20))

    async def curl(path: str, *options: str) -> tuple[str, str]:
        """Return content and status."""
        process = await asyncio.create_subprocess_exec(
            *("curl", "-gsS", "-m", "10", version, "-w", "\n%{http_version} %{http_code}", *options),
            f"http://127.0.0.1:{member.client_port}{path}",
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        output, _ = await process.communicate()
        content, _, told = output.decode().rpartition("\n")
        spoken, _, status = told.partition(" ")
        assert spoken == ("2" if "2" in version else "1.1")
        return content, status

    assert await curl("/health") == ('{"health":"true","reason":""}', "200")
    assert (await curl("/health?exclude=NOSPACE"))[1] == "200"
    assert (await curl("//[x"))[1] == "404"
    assert (await curl("/health", "-I"))[1] == "200"
    assert (await curl("/health", "-X", "PUT"))[1] == "405"
    assert await curl("/health", "-X", "OPTIONS") == ("", "200")
    assert "access-control-allow-origin: *" in (await curl("/health", "-i"))[0].lower()
    assert (await curl("/nothing", "-d", "{}")) == ("Not Found\n", "404")
    assert (await curl("/v3/kv/put"))[1] == "405"
    assert (await curl("/v3/kv/put", "-d", '{"key": "YQ==", "value": "MQ=="}'))[1] == "200"
    content, status = await curl("/v3/kv/range", "-d", '{"key": "YQ=="}')
    assert ('"value":"MQ=="' in content, status) == (True, "200")
    content, status = await curl("/v3/kv/range", "-d", "{}")
    assert ('"message":"etcdserver: key is not provided"' in content, status) == (True, "400")
    assert (await curl("/v3/kv/range", "--data-binary", LARGE, "-H", "Expect:"))[1] == "413"
    content, status = await curl("/v3/lease/grant", "-d", '{"TTL": 60, "ID": 7}')
    assert status == "200"
    content, status = await curl("/v3/lease/keepalive", "-d", '{"ID": 7}{"ID": 7}')
    assert (content.count('{"result":'), content.count('"TTL":"60"'), status) == (2, 2, "200")
    assert member.calls["etcdserverpb.KV", "Range", "OK"] == 1
    assert member.calls["etcdserverpb.KV", "Range", "INVALID_ARGUMENT"] == 1


async def test_a_watch_that_sends_garbage_is_told_so(channel: grpc.aio.Channel) -> None:
    """It would wait for an answer for ever."""
    watch = channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=lambda request: request,
        response_deserializer=pb.WatchResponse.FromString,
    )
    call = watch(timeout=10)
    await call.write(b"\xff")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
