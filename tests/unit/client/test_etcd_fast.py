"""Calls to a member that takes no more of them for now: they wait, and can be given up like those under way."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from client import etcd_endpoints
from client.etcd_endpoints import Endpoint, EndpointLost
from client.etcd_fast import FastTransport
from client.etcd_rpc import RANGE, STATUS, WATCH, NotSent
from fastgrpc.calls import CallFailed, Status
from fastgrpc.channel import Channel
from fastgrpc.events import Limits
from fastgrpc.server import Call, Server, ServerConfig, StreamMethod, UnaryMethod
from trireme_pb.etcdserverpb import rpc_pb2 as pb


async def watch(call: Call) -> None:
    async for request in call.requests():
        await call.send(request)


async def read(request: bytes, call: Call) -> bytes:
    return pb.RangeResponse(count=7).SerializeToString()


@pytest.fixture
async def transport() -> AsyncIterator[FastTransport]:
    """The way to a member that takes one call at a time."""
    methods = [StreamMethod(WATCH.path, watch), UnaryMethod(RANGE.path, read), UnaryMethod(STATUS.path, read)]
    server = Server(methods, config=ServerConfig(limits=Limits(streams=1)))
    made = FastTransport(Channel(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}"))
    async with asyncio.timeout(20):
        yield made
    await made.close()
    await server.stop(0)


async def test_a_call_waits_while_the_member_takes_no_more(transport: FastTransport) -> None:
    watching = transport.stream(WATCH)
    await watching.write(pb.WatchRequest())
    await watching.read()
    waiting = asyncio.ensure_future(transport.unary(RANGE, pb.RangeRequest(), timeout_s=60).result())
    await asyncio.sleep(0)
    watching.cancel()
    assert (await waiting).count == 7


async def test_a_call_that_has_waited_for_its_whole_time_was_not_sent(transport: FastTransport) -> None:
    await transport.stream(WATCH).write(pb.WatchRequest())
    with pytest.raises(NotSent) as caught:
        await transport.unary(RANGE, pb.RangeRequest(), timeout_s=0.01).result()
    assert caught.value.status is Status.DEADLINE_EXCEEDED


async def test_a_call_that_waits_can_be_given_up(transport: FastTransport) -> None:
    await transport.stream(WATCH).write(pb.WatchRequest())
    given_up = transport.unary(RANGE, pb.RangeRequest(), timeout_s=60)
    waiting = asyncio.ensure_future(given_up.result())
    await asyncio.sleep(0)
    given_up.cancel()
    given_up.cancel()  # once more does no harm
    with pytest.raises(NotSent) as caught:
        await waiting
    assert caught.value.status is Status.CANCELLED
    given_up.cancel()


async def test_a_write_that_waited_at_a_silent_member_is_surely_not_done(
    transport: FastTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_endpoints, "PROBE_EVERY_S", 0.01)
    monkeypatch.setattr(etcd_endpoints, "SILENT_S", 0.01)
    await transport.stream(WATCH).write(pb.WatchRequest())
    endpoint = Endpoint("here", transport)
    with pytest.raises(EndpointLost, match="silent") as lost:
        # The probes wait like any other call, so the member is as good as silent.
        await endpoint.call(RANGE, pb.RangeRequest(), timeout_s=60, patience_s=0.01)
    assert not lost.value.maybe_applied
    assert isinstance(lost.value.__cause__, CallFailed)
    await endpoint.close()
