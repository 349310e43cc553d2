"""What every gRPC method shares: who calls, how a refusal travels, and what the audit log is told.

The caller is whom its client certificate names. Refusals travel as a gRPC status with the Kubernetes Status object in
the trailing metadata.
"""

import functools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgspec

from api.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    Timeout,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from api.selectors import parse_fields
from master.access.audit import AuditLog
from master.access.authentication import with_authenticated
from master.access.rules import Request as Asked
from master.access.user import ANONYMOUS, User
from master.config import ServerTls
from master.grpc_audit import Call
from trireme_pb.cluster import cluster_pb2 as pb

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")

STATUS_KEY = "trireme-status-bin"
CODES: Mapping[type[ApiError], grpc.StatusCode] = {
    BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    MethodNotAllowed: grpc.StatusCode.UNIMPLEMENTED,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Conflict: grpc.StatusCode.ABORTED,
    Expired: grpc.StatusCode.OUT_OF_RANGE,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    TooManyRequests: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InternalError: grpc.StatusCode.INTERNAL,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Timeout: grpc.StatusCode.DEADLINE_EXCEEDED,
}
SERVER_OPTIONS = (
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return what the server listens with: clients must show a certificate of ours. Raises OSError."""
    return grpc.ssl_server_credentials(
        [(Path(tls.key).read_bytes(), Path(tls.cert).read_bytes())],
        root_certificates=Path(tls.client_ca).read_bytes(),
        require_client_auth=True,
    )


_NAME_PART = re.compile(r"(?:^|[,+])\s*([A-Za-z0-9.]+)=((?:\\.|[^,+\\])*)")
_ESCAPED = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)


def _unescaped(text: str) -> str:
    """Return an attribute's value without RFC 2253's escapes: a character, or a byte of UTF-8 in hexadecimal."""

    def plain(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if len(match[1]) == 2 else match[1]

    return _ESCAPED.sub(plain, text.encode()).decode(errors="replace")


# A node agent calls some times a second, and is always the same.
@functools.lru_cache(maxsize=4096)
def user_of_subject(subject: str) -> User | None:
    """Return the user that a certificate's subject (as RFC 2253 writes it, last part first) names, or None."""
    names, groups = [], []
    for key, escaped in _NAME_PART.findall(subject):
        value = _unescaped(escaped)
        if key == "CN":
            names.append(value)
        elif key == "O":
            groups.append(value)
    return with_authenticated(User(names[0], tuple(groups))) if names else None


def caller(context: Context) -> User:
    """Return the user behind a call; raises Unauthorized."""
    subject = next(iter(context.auth_context().get("x509_subject", ())), b"")
    user = user_of_subject(subject.decode(errors="replace"))
    if user is None:
        raise Unauthorized("Unauthorized: show a client certificate with a common name")
    return user


def _user_or_nobody(context: Context) -> User:
    try:
        return caller(context)
    except Unauthorized:
        return ANONYMOUS


async def refuse(context: Context, error: ApiError) -> None:
    """End the call with ``error``."""
    packed = pb.Error(status_json=msgspec.json.encode(error.status())).SerializeToString()
    code = CODES.get(type(error), grpc.StatusCode.INTERNAL)
    for kind, each in CODES.items():
        if isinstance(error, kind):
            code = each
            break
    await context.abort(code, error.message, trailing_metadata=((STATUS_KEY, packed),))


def asked_by(method: str, request: Any, user: User) -> Asked:
    """Return what a call asks, in the words of authorization: the same as REST would be asked by its path."""
    target, verb = request.target, method.lower()
    name = target.name
    if not name and verb in ("list", "watch"):
        name = _name_selected(request.field_selector)
    # A namespace lies in itself: whom a binding in it makes its administrator may read it.
    own = (target.group, target.resource) == ("", "namespaces")
    namespace = target.name if own else target.namespace
    return Asked(user, verb, target.group, target.resource, target.subresource, namespace, name)


def _name_selected(selector: str) -> str:
    """Return the one name that a list or watch is narrowed to."""
    try:
        return parse_fields(selector).exact("metadata.name") or ""
    except BadRequest:
        return ""  # said of the request itself, once it may be made at all


Method = Callable[[Any, Request, Context], Awaitable[Response]]
Stream = Callable[[Any, Request, Context], AsyncIterator[Response | None]]


def refusing(method: Method[Request, Response]) -> Method[Request, Response]:
    """Let a method raise ApiError; anything else that it raises is our own fault, and said so without details."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> Response:
        told = _Told(self, method.__name__, request, context)
        try:
            response = await method(self, request, context)
        except ApiError as error:
            told.end(error.code)
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("gRPC call failed method=%s", method.__name__)
            told.end(InternalError.code)
            await refuse(context, InternalError(_OUR_FAULT))
        else:
            told.end(200)
            return response
        raise AssertionError("refuse raises")

    return wrapped


def refusing_stream(
    method: Stream[Request, Response],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """Do the same for a method that yields; its first None says that the stream is open, which is told at once."""

    @functools.wraps(method)
    async def wrapped(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        told, code = _Told(self, method.__name__, request, context), 200
        try:
            async for response in method(self, request, context):
                if response is None:
                    told.start()
                    await context.send_initial_metadata(())
                else:
                    yield response
        except ApiError as error:
            code = error.code
            await refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("gRPC call failed method=%s", method.__name__)
            code = InternalError.code
            await refuse(context, InternalError(_OUR_FAULT))
        finally:
            told.end(code)  # also when its client has gone

    return wrapped


_OUR_FAULT = "an error on the server has prevented the request from succeeding"


class _Told:
    """What the audit log is told of one call, if the service has one and the call is about an object.

    Who calls is asked at once: a stream whose client has gone may end long after its call, and the library crashes the
    whole process when the context of a call that is over is asked anything.
    """

    def __init__(self, service: Any, method: str, request: Any, context: Context) -> None:
        self._audit: AuditLog | None = getattr(service, "audit", None)
        if getattr(request, "target", None) is None:
            self._audit = None
        self._call = Call(method) if self._audit is not None else None
        self._method = method
        self._request = request
        if self._audit is not None:
            self._user, self._peer = _user_or_nobody(context), context.peer()

    def start(self) -> None:
        """Tell that an answer begins which may last."""
        self._tell(200, "ResponseStarted")

    def end(self, code: int) -> None:
        """Tell what came of it."""
        self._tell(code, "ResponseComplete")

    def _tell(self, code: int, stage: str) -> None:
        if self._audit is None or self._call is None:
            return
        self._call.tell(
            self._audit,
            asked_by(self._method, self._request, self._user),
            version=self._request.target.version,
            peer=self._peer,
            code=code,
            stage=stage,
            body=getattr(self._request, "json", b""),
        )
