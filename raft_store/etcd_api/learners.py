"""A learner answers little: what it knows may be old, and it must not slow down the members that vote."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from google.protobuf.message import DecodeError, Message

from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .call import Asked, Batch, CallContext
from .errors import Code, RpcError
from .services import Method, UnaryMethod

_REFUSED = (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner")


def guard_learners(methods: Sequence[Method], learns: Callable[[], bool]) -> list[Method]:
    """Return ``methods`` refusing, while the member ``learns``, what etcd's learners refuse."""
    return [_guarded(method, learns) for method in methods]


def _guarded(method: Method, learns: Callable[[], bool]) -> Method:
    if method.method == "Snapshot":
        return method
    guard = _guard_unary if isinstance(method, UnaryMethod) else _guard_stream
    encoded = None if method.encoded is None else guard(method.encoded, learns)
    guarded = msgspec.structs.replace(method, handler=guard(method.handler, learns), encoded=encoded)
    if isinstance(guarded, UnaryMethod) and guarded.batch is not None:
        return msgspec.structs.replace(guarded, batch=_guard_batch(guarded.batch, guarded.request, learns))
    return guarded


_Handler = Callable[..., Awaitable[Any]]


def _guard_unary(handler: _Handler, learns: Callable[[], bool]) -> _Handler:
    def unary(request: Message, *context: Any) -> Awaitable[Any]:
        if learns() and not _answers(request):
            raise RpcError(*_REFUSED)
        return handler(request, *context)

    return unary


def _guard_batch(batch: Batch, request: type[Message], learns: Callable[[], bool]) -> Batch:
    def take(asks: Sequence[Asked], call: CallContext) -> None:
        if learns():
            answered = []
            for ask in asks:
                try:
                    answers = _answers(request.FromString(ask.message))
                except DecodeError:
                    answers = True  # that it is no request is what it will be told
                if answers:
                    answered.append(ask)
                else:
                    ask.fail(*_REFUSED)
            asks = answered
        if asks:
            batch(asks, call)

    return take


def _guard_stream(handler: _Handler, learns: Callable[[], bool]) -> _Handler:
    def stream(*arguments: Any) -> Awaitable[Any]:
        if learns():
            raise RpcError(*_REFUSED)
        return handler(*arguments)

    return stream


def _answers(request: Message) -> bool:
    match request:
        case pb.RangeRequest():
            return request.serializable
        case pb.StatusRequest():
            return True
        case _:
            return False
