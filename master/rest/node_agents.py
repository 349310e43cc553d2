"""The way from a master to the agent of a node: one gRPC channel for each node, dialled when it is first needed."""

from collections import OrderedDict
from typing import TypeAlias

import grpc

from api.errors import ApiError, BadRequest, InternalError, NotFound
from api.kinds.core import Node
from trireme_pb.node import node_pb2_grpc

# The asyncio face of the generated stub, which only the type checker knows.
Stub: TypeAlias = "node_pb2_grpc.NodeAgentAsyncStub"

# What grpcio says instead of the agent's own words when a write crosses the end of the call.
_WRITE_FAILED = "Internal error from Core"

DEFAULT_PORT = 10250
MAX_CHANNELS = 256
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),  # a node that came back is reached at once
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


class NodeAgents:
    """Dials node agents.

    credentials: the master's side of mutual TLS; None dials in plain text, which only tests do.
    """

    def __init__(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._credentials = credentials
        self._channels: OrderedDict[str, grpc.aio.Channel] = OrderedDict()

    async def stub(self, node: Node) -> Stub:
        """Return the calls of a node's agent; raises BadRequest for a node that has told no address yet."""
        address = address_of(node)
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._dial(address)
            if len(self._channels) > MAX_CHANNELS:
                _, oldest = self._channels.popitem(last=False)
                await oldest.close()
        self._channels.move_to_end(address)
        return node_pb2_grpc.NodeAgentStub(channel)

    def _dial(self, address: str) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, options=_OPTIONS)

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


def refusal(error: grpc.aio.AioRpcError, node: str) -> ApiError:
    """Return what a client is told when a node agent refuses a call or cannot be reached."""
    text = error.details() or error.code().name
    if text == _WRITE_FAILED:
        return InternalError(f"the agent of node {node} ended the call while data was sent to it")
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(text)
        case grpc.StatusCode.FAILED_PRECONDITION | grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.OUT_OF_RANGE:
            return BadRequest(text)
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return InternalError(f"error dialing the agent of node {node}: {text}")
    return InternalError(f"the agent of node {node} failed: {text}")
