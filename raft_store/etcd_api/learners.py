"""A learner answers little: what it knows may be old, and it must not slow down the members that vote."""

from collections.abc import Callable, Sequence
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
    if method.method == "Snapshot":
        return method
    guard = _guard_unary if isinstance(method, UnaryMethod) else _guard_stream
    forms = ("handler", "encoded", "submit") if isinstance(method, UnaryMethod) else ("handler", "encoded")
    guarded = {form: guard(getattr(method, form), learns) for form in forms if getattr(method, form) is not None}
    return msgspec.structs.replace(method, **guarded)


_Handler = Callable[..., Any]  # in any of its forms


def _guard_unary(handler: _Handler, learns: Callable[[], bool]) -> _Handler:
    def unary(request: Message, *context: Any) -> Any:
        if learns() and not _answers(request):
            raise RpcError(*_REFUSED)
        return handler(request, *context)

    return unary


def _guard_stream(handler: _Handler, learns: Callable[[], bool]) -> _Handler:
    def stream(*arguments: Any) -> Any:
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
