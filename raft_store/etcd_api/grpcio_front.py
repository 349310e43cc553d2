"""grpcio's server as the front of the services."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from raft_store.tls import TlsFiles

from .backend import MAX_REQUEST_BYTES
from .call import CallContext, context_of
from .errors import RpcError
from .front import CallCounts, LeaderGuard
from .services import Method, StreamMethod, UnaryMethod

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


class GrpcioFront:
    """A ``Front``."""

    def __init__(self, methods: Sequence[Method], guard: LeaderGuard, calls: CallCounts) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for method in methods:
            service = by_service.setdefault(f"{method.package}.{method.service}", {})
            service[method.method] = _handler(method, guard, calls)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, rpcs) for service, rpcs in by_service.items()]
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*by_service, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)

    async def start(self, listen: str, tls: TlsFiles | None) -> int:
        """See ``Front.start``."""
        port = _bind(self._server, listen, tls)
        await self._server.start()
        return port

    async def set_serving(self, *, serving: bool) -> None:
        """See ``Front.set_serving``."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set("", status)

    async def stop(self, grace_s: float) -> None:
        """See ``Front.stop``."""
        await self._server.stop(grace_s)


def _bind(server: grpc.aio.Server, listen: str, tls: TlsFiles | None) -> int:
    try:
        if tls is None:
            port = server.add_insecure_port(listen)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.key.read_bytes(), tls.cert.read_bytes())],
                root_certificates=tls.ca.read_bytes(),
                require_client_auth=True,
            )
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as exc:
        raise OSError(f"client_listen {listen}: {exc}") from exc
    if port == 0:
        raise OSError(f"client_listen {listen}: the address is taken or not ours")
    return port


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
    return context_of(metadata, name.decode("utf-8", "replace"))


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
