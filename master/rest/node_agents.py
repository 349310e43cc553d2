"""The way from a master to the agent of a node: one gRPC channel for each node, dialled when it is first needed.

What dials, grpcio, is loaded with the first call, in a thread: a master is ready sooner without it, and its other
clients need not wait for it.
"""

import asyncio
import importlib
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from api.errors import ApiError, BadRequest
from api.kinds.core import Node
from client.etcd import TlsFiles
from trireme_pb.node import node_pb2

if TYPE_CHECKING:
    import grpc

    from trireme_pb.node import node_pb2_grpc

# The asyncio face of the generated stub, which only the type checker knows.
Stub: TypeAlias = "node_pb2_grpc.NodeAgentAsyncStub"

DEFAULT_PORT = 10250
MAX_CHANNELS = 256
_STUBS = "trireme_pb.node.node_pb2_grpc"
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # a node that came back is reached at once
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


async def _load() -> None:
    if _STUBS not in sys.modules:
        await asyncio.to_thread(importlib.import_module, _STUBS)


class NodeAgents:
    """Dials node agents.

    tls: the master's side of mutual TLS; None dials in plain text, which only tests do. Raises OSError.
    """

    def __init__(self, tls: TlsFiles | None) -> None:
        self._tls = None if tls is None else tuple(each.read_bytes() for each in (tls.ca, tls.key, tls.cert))
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()

    async def stub(self, node: Node) -> Stub:
        """Return the calls of a node's agent; raises BadRequest for a node that has told no address yet."""
        address = address_of(node)
        await _load()
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._dial(address)
            if len(self._channels) > MAX_CHANNELS:
                _, oldest = self._channels.popitem(last=False)
                await oldest.close()
        self._channels.move_to_end(address)
        from trireme_pb.node import node_pb2_grpc  # noqa: PLC0415 - see above

        return node_pb2_grpc.NodeAgentStub(channel)

    async def stats(self, node: Node, *, timeout_s: float) -> node_pb2.StatsResponse | None:
        """Return what a node and its pods use; None: its agent is away."""
        await _load()
        import grpc  # noqa: PLC0415 - see above

        try:
            stub = await self.stub(node)
            return await stub.Stats(node_pb2.StatsRequest(), timeout=timeout_s)
        except (ApiError, grpc.aio.AioRpcError):
            return None

    def _dial(self, address: str) -> "grpc.aio.Channel":
        import grpc  # noqa: PLC0415 - see above

        if self._tls is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*self._tls), options=_OPTIONS)

    async def close(self) -> None:
        """Hang up everywhere."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()


def address_of(node: Node) -> str:
    """Return ``ip:port`` under which a node's agent is dialled; raises BadRequest if the node has told none."""
    ip = next((each.address for each in node.status.addresses if each.type == "InternalIP"), "")
    if not ip:
        raise BadRequest(f"node {node.metadata.name} has no InternalIP yet")
    endpoints = node.status.daemon_endpoints
    port = endpoints.kubelet_endpoint.port if endpoints and endpoints.kubelet_endpoint else 0
    host = f"[{ip}]" if ":" in ip else ip
    return f"{host}:{port or DEFAULT_PORT}"
