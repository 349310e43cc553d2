"""grpcio's server as the front of the services."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from raft_store.engine import MemberStatus

from .backend import MAX_REQUEST_BYTES
from .call import CallContext
from .errors import NO_LEADER, RpcError
from .services import Method, StreamMethod, UnaryMethod

log = logging.getLogger(__name__)

SERVER_OPTIONS = (
    # Clients ping idle connections every few seconds; grpc's own default would tell them to go away.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES + (512 << 10)),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 1 << 20),
    ("grpc.so_reuseport", 0),  # two members on one address must fail, not share it
)

_CODES = {code.value[0]: code for code in grpc.StatusCode}


CallCounts = Counter[tuple[str, str, str]]  # (service, method, code) -> calls that ended so


class LeaderGuard:
    """Ends the calls that asked for a leader (metadata ``hasleader``) while there is none."""

    def __init__(self, status: Callable[[], MemberStatus]) -> None:
        self._status = status
        self._streams: set[asyncio.Task[None]] = set()

    def check(self, call: CallContext) -> bool:
        """Return whether the call demands a leader. Raises RpcError if it does and there is none."""
        if not call.wants_leader:
            return False
        if not self._status().leader:
            raise RpcError(*NO_LEADER)
        return True

    async def run(self, call: Awaitable[None]) -> None:
        """Run a stream's handler until it ends or the leader is lost, which raises RpcError."""
        task = asyncio.ensure_future(call)
        self._streams.add(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise RpcError(*NO_LEADER) from None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self._streams.discard(task)

    def leader_lost(self) -> None:
        """End every guarded stream."""
        for task in self._streams:
            task.cancel()


def make_server(
    methods: Sequence[Method], guard: LeaderGuard, calls: CallCounts
) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """Return a server with the services, health and reflection registered; no port is bound yet."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method in methods:
        by_service.setdefault(f"{method.package}.{method.service}", {})[method.method] = _handler(method, guard, calls)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, rpcs) for service, rpcs in by_service.items()]
    )
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*by_service, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    return server, servicer


async def set_serving(servicer: health.aio.HealthServicer, *, serving: bool) -> None:
    """Tell health checks whether this member can do something for clients."""
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    await servicer.set("", status)


def _handler(method: Method, guard: LeaderGuard, calls: CallCounts) -> "grpc.RpcMethodHandler[Any, Any]":
    match method:
        case UnaryMethod():
            return grpc.unary_unary_rpc_method_handler(
                _unary(method, guard, calls),
                request_deserializer=method.request.FromString,
                response_serializer=_serialize,
            )
        case StreamMethod():
            make = (
                grpc.stream_stream_rpc_method_handler if method.many_requests else grpc.unary_stream_rpc_method_handler
            )
            return make(
                _stream(method, guard, calls),
                request_deserializer=method.request.FromString,
                response_serializer=_serialize,
            )


def _unary(method: UnaryMethod, guard: LeaderGuard, calls: CallCounts) -> Callable[..., Awaitable[Message]]:
    handler = method.handler
    ended_well = (f"{method.package}.{method.service}", method.method, "OK")

    async def call(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        try:
            about = _about(context)
            guard.check(about)
            response = await handler(request, about)
        except RpcError as exc:
            await _abort(context, method, exc, calls)
        calls[ended_well] += 1
        return response

    return call


def _stream(method: StreamMethod, guard: LeaderGuard, calls: CallCounts) -> Callable[..., Awaitable[None]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        requests = request if method.many_requests else _once(request)
        try:
            about = _about(context)
            guarded = guard.check(about)
            running = method.handler(requests, context.write, about)
            await (guard.run(running) if guarded else running)
        except RpcError as exc:
            await _abort(context, method, exc, calls)
        calls[f"{method.package}.{method.service}", method.method, "OK"] += 1

    return call


def _about(context: grpc.aio.ServicerContext[Any, Any]) -> CallContext:
    metadata: dict[str, str] = {}
    for key, value in context.invocation_metadata() or ():
        metadata.setdefault(key, value if isinstance(value, str) else value.decode("latin-1"))
    name = next(iter(context.auth_context().get("x509_common_name", ())), b"")
    return CallContext(metadata, name.decode("utf-8", "replace"))


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], method: Method, exc: RpcError, calls: CallCounts
) -> NoReturn:
    code = _CODES[exc.code]
    calls[f"{method.package}.{method.service}", method.method, code.name] += 1
    await context.abort(code, exc.text)


async def _once(request: Message) -> AsyncIterator[Message]:
    yield request


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
