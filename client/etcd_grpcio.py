"""Calls over grpcio, whose client is the one that etcd's own are closest to."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio

from client.etcd_rpc import WITH_LEADER, Dial, Method, NotSent
from client.etcd_types import TlsFiles
from fastgrpc.calls import CallFailed, Status

OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 500),
    # As in etcd_rpc.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a stuck connection is ours alone
)
_NEVER_SENT = "failed to connect to all addresses"


class GrpcioTransport:
    """One member behind a channel of grpcio."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._callables: dict[str, Any] = {}

    @property
    def connected(self) -> bool:
        """Return whether a connection stands, as far as is known."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    async def connect(self) -> None:
        """Be connected; raises CallFailed when an attempt fails."""
        while (state := self._channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise NotSent(Status.UNAVAILABLE, "no connection")
            await self._channel.wait_for_state_change(state)

    def unary(self, method: Method, request: Any, *, timeout_s: float) -> "GrpcioUnary":
        """Begin a call."""
        begin = self._callable(method, self._channel.unary_unary)
        return GrpcioUnary(begin(request, timeout=timeout_s, metadata=WITH_LEADER))

    def stream(self, method: Method, *, timeout_s: float | None = None) -> "GrpcioStream":
        """Begin a call."""
        begin = self._callable(method, self._channel.stream_stream)
        return GrpcioStream(begin(timeout=timeout_s, metadata=WITH_LEADER))

    def _callable(self, method: Method, make: Any) -> Any:
        if method.path not in self._callables:
            self._callables[method.path] = make(
                method.path,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=method.response.FromString,
            )
        return self._callables[method.path]

    async def close(self) -> None:
        """Hang up; calls under way fail."""
        await self._channel.close()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell of failures as ``fastgrpc`` does; cancelling a call is one, cancelling the task that waits is not."""
    try:
        yield
    except grpc.aio.AioRpcError as exc:
        number = exc.code().value[0]
        text = exc.details() or exc.code().name
        kind = NotSent if text.startswith(_NEVER_SENT) else CallFailed
        raise kind(Status(number), text) from exc
    except asyncio.InvalidStateError as exc:
        raise CallFailed(Status.UNAVAILABLE, f"the call has ended: {exc}") from exc
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallFailed(Status.CANCELLED, "cancelled by the caller") from None


class GrpcioUnary:
    """A call of one message each way."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def result(self) -> Any:
        """Return the answer; to be asked for once. Raises CallFailed."""
        with _told():
            return await self._call

    def cancel(self) -> None:
        """Give it up: whoever waits for it gets CallFailed (CANCELLED)."""
        self._call.cancel()


class GrpcioStream:
    """A call of many messages each way."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def write(self, message: Any) -> None:
        """Send; raises CallFailed."""
        with _told():
            await self._call.write(message)

    async def read(self) -> Any:
        """Return the next answer, or None at the end; raises CallFailed."""
        with _told():
            answer = await self._call.read()
        return None if answer is grpc.aio.EOF else answer

    def cancel(self) -> None:
        """Give it up: whoever waits for it gets CallFailed (CANCELLED)."""
        self._call.cancel()


def grpcio_dial(tls: TlsFiles | None) -> Dial:
    """Return what dials members; raises OSError for files that cannot be read."""
    credentials = None if tls is None else _credentials(tls)

    def dial(address: str) -> GrpcioTransport:
        if credentials is None:
            return GrpcioTransport(grpc.aio.insecure_channel(address, options=OPTIONS))
        return GrpcioTransport(grpc.aio.secure_channel(address, credentials, options=OPTIONS))

    return dial


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes(),
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.cert.read_bytes(),
    )
