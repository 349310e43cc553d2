"""A learner answers little: what it knows may be old, and it must not slow down the members that vote."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from google.protobuf.message import Message

from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .errors import Code, RpcError
from .services import Method, UnaryMethod

_REFUSED = (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner")


def guard_learners(methods: Sequence[Method], learns: Callable[[], bool]) -> list[Method]:
    """Return ``methods`` refusing, while the member ``learns``, what etcd's learners refuse."""
    return [_guarded(method, learns) for method in methods]


def _guarded(method: Method, learns: Callable[[], bool]) -> Method:
    handler: Callable[..., Awaitable[Any]] = method.handler
    if isinstance(method, UnaryMethod):

        def unary(request: Message, *context: Any) -> Awaitable[Any]:
            if learns() and not _answers(request):
                raise RpcError(*_REFUSED)
            return handler(request, *context)

        return msgspec.structs.replace(method, handler=unary)
    if method.method == "Snapshot":
        return method

    def stream(*arguments: Any) -> Awaitable[Any]:
        if learns():
            raise RpcError(*_REFUSED)
        return handler(*arguments)

    return msgspec.structs.replace(method, handler=stream)


def _answers(request: Message) -> bool:
    match request:
        case pb.RangeRequest():
            return request.serializable
        case pb.StatusRequest():
            return True
        case _:
            return False
