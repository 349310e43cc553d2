"""Endpoints of the store's client, at their end."""

import asyncio
from typing import Any

import pytest

from client.etcd import EtcdClient
from client.etcd_endpoints import Endpoint, EndpointLost
from client.etcd_rpc import RANGE
from client.etcd_types import PutOp, Unavailable
from fastgrpc.calls import CallFailed, Status


class Transport:
    """A connection on which a call waits until it is closed, and fails then."""

    connected = True

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def unary(self, method: object, request: object, *, timeout_s: float) -> "Transport":
        return self

    async def result(self) -> object:
        await self.closed.wait()
        raise CallFailed(Status.UNAVAILABLE, "closed")

    def cancel(self) -> None:
        pass

    async def close(self) -> None:
        self.closed.set()


async def test_nobody_asks_after_a_member_whose_connection_was_closed_amid_a_call() -> None:
    """Goal: a closed client leaves no task behind that probes a closed connection for ever."""
    transport: Any = Transport()
    endpoint = Endpoint("here", transport)
    calling = asyncio.create_task(endpoint.call(RANGE, None, timeout_s=5, patience_s=5))
    await asyncio.sleep(0)
    await endpoint.close()
    async with asyncio.timeout(5):
        with pytest.raises(EndpointLost, match="closed"):
            await calling
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_write_that_no_member_takes_ends_when_its_patience_for_that_does() -> None:
    """Goal: surely nothing happened, so there is no reason to wait for the write's own time."""
    async with EtcdClient(["127.0.0.1:1", "127.0.0.1:2"]) as client, asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await client.txn([], [PutOp(b"key", b"value")], timeout_s=60, unsent_s=0.05)
