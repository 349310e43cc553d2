"""How a gRPC call comes in and how it ends: through the gate that requests over REST pass, and told as these are.

Metadata are what header fields are over REST: ``authorization``, ``impersonate-user``, ``impersonate-group``,
``impersonate-uid``, ``impersonate-extra-...``, ``audit-id``. Refusals travel as a gRPC status with the Kubernetes
Status object in the trailing metadata.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message
from msgspec.structs import replace
from multidict import CIMultiDict, MultiMapping

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
from fastgrpc.calls import CallFailed, Metadata, Status
from fastgrpc.server import Call, StreamMethod, UnaryMethod
from fastgrpc.standard import serialize
from master.access.flows import classify
from master.access.gate import GONE, NOBODY, Certificate, Gate, Passage
from master.access.rules import Request as Asked
from master.access.user import User
from trireme_pb.cluster import cluster_pb2 as pb

log = logging.getLogger(__name__)

# A client counts from when it asks, we from when we hear of it: one that gives up so shortly before its deadline by our
# clock has waited for as long as it said.
ON_ITS_WAY_S = 0.1
STATUS_KEY = "trireme-status-bin"
CODES: Mapping[type[ApiError], Status] = {
    BadRequest: Status.INVALID_ARGUMENT,
    Unauthorized: Status.UNAUTHENTICATED,
    Forbidden: Status.PERMISSION_DENIED,
    NotFound: Status.NOT_FOUND,
    MethodNotAllowed: Status.UNIMPLEMENTED,
    AlreadyExists: Status.ALREADY_EXISTS,
    Conflict: Status.ABORTED,
    Expired: Status.OUT_OF_RANGE,
    RequestTooLarge: Status.RESOURCE_EXHAUSTED,
    Invalid: Status.INVALID_ARGUMENT,
    TooManyRequests: Status.RESOURCE_EXHAUSTED,
    InternalError: Status.INTERNAL,
    Unavailable: Status.UNAVAILABLE,
    Timeout: Status.DEADLINE_EXCEEDED,
}
_OUR_FAULT = "an error on the server has prevented the request from succeeding"


def refusal(error: ApiError) -> CallFailed:
    """Return how a call ends that was refused."""
    packed = pb.Error(status_json=msgspec.json.encode(error.status())).SerializeToString()
    code = next((code for kind, code in CODES.items() if isinstance(error, kind)), Status.INTERNAL)
    return CallFailed(code, error.message, metadata=((STATUS_KEY, packed),))


class GrpcPassage(Passage):
    """A call, as the gate and its audit log see it."""

    def __init__(self, call: Call, asked: Asked, *, version: str = "", body: bytes = b"") -> None:
        self._fields = read_fields(call.metadata)
        address = call.peer.address.rpartition(":")[0]
        super().__init__(asked=asked, audit_id=self._fields.get("Audit-Id", ""), source=address)
        self._call = call
        self._version = version
        self._body = body
        self.answer: Callable[[], bytes] = bytes  # makes the object that goes back, as REST would answer it

    @property
    def fields(self) -> MultiMapping[str]:
        """See ``Passage``."""
        return self._fields

    @property
    def memo(self) -> dict[str, Any]:
        """See ``Passage``."""
        peer = self._call.peer
        if peer.memo is None:
            peer.memo = {}
        memo: dict[str, Any] = peer.memo
        return memo

    @property
    def certificate(self) -> Certificate | None:
        """See ``Passage``."""
        described = self._call.peer.certificate
        return Certificate(described, self._call.peer.encoded_certificate) if described else None

    @property
    def uri(self) -> str:
        """See ``Passage``."""
        return self._call.head.path

    @property
    def version(self) -> str:
        """See ``Passage``."""
        return self._version

    @property
    def body(self) -> bytes:
        """See ``Passage``."""
        return self._body

    @property
    def user(self) -> User:
        """Return whom the call acts as, once it has passed."""
        assert self.asked is not None, self
        return self.asked.user

    @property
    def verb(self) -> str:
        """Return what is asked."""
        assert self.asked is not None, self
        return self.asked.verb

    @property
    def given_up(self) -> int:
        """Return what the audit log is told of a call that nobody waits for any more."""
        if self.lasting:
            return 200  # its client has had enough of it
        left_s = self._call.time_left_s
        return Timeout.code if left_s is not None and left_s <= ON_ITS_WAY_S else GONE


def read_fields(metadata: Metadata) -> MultiMapping[str]:
    """Return a call's metadata as the header fields that they stand for; what is binary stands for none."""
    fields: CIMultiDict[str] = CIMultiDict()
    for name, value in metadata:
        if isinstance(value, str):
            # By HTTP's rules any byte; names of users that are no ASCII come as UTF-8, over REST too.
            fields.add(name, value if value.isascii() else value.encode("latin-1").decode("utf-8", "surrogateescape"))
    return fields


R = TypeVar("R", bound=Message)  # a request


class Entrance:
    """Makes the rows that a gRPC server serves: each call passes the gate, and ends as a request over REST would."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def unary(
        self,
        path: str,
        request: type[R],
        handler: Callable[[R, GrpcPassage], Awaitable[Message]],
        begin: Callable[[Call, R], GrpcPassage],
    ) -> UnaryMethod:
        """Return the row of a method; ``begin`` says what a call asks. The handler may raise ApiError."""

        async def handle(asked: R, call: Call) -> Message:
            async with self._passing(passage := begin(call, asked)):
                return await handler(asked, passage)

        return UnaryMethod(path, handle, request.FromString, serialize)

    def stream(
        self,
        path: str,
        request: type[R],
        handler: Callable[[R, GrpcPassage], AsyncGenerator[Message | None, None]],
        begin: Callable[[Call, R], GrpcPassage],
    ) -> StreamMethod:
        """Do the same for a method that yields; its first None says that the stream is open, which is told at once."""

        async def handle(call: Call) -> None:
            async for asked in call.requests():
                passage = begin(call, asked)
                passage.lasting = True
                async with self._passing(passage), aclosing(handler(asked, passage)) as responses:
                    async for response in responses:
                        if response is not None:
                            await call.send(response)
                        elif not call.head_sent:
                            await call.send_initial_metadata(())
                return
            raise CallFailed(Status.UNIMPLEMENTED, "0 requests; this method takes one")

        return StreamMethod(path, handle, request.FromString, serialize, many_requests=False)

    def guarded(self, row: UnaryMethod | StreamMethod, path: str) -> UnaryMethod | StreamMethod:
        """Return the row of a service that knows no gate, for those who may get ``path`` over REST."""
        asked = Asked(NOBODY, "get", path=path)

        async def unary(request: Any, call: Call) -> Any:
            async with self._passing(GrpcPassage(call, asked)):
                return await inner(request, call)

        async def stream(call: Call) -> None:
            passage = GrpcPassage(call, asked)
            passage.lasting = True
            async with self._passing(passage):
                await inner(call)

        inner: Callable[..., Any] = row.handler
        return replace(row, handler=unary if isinstance(row, UnaryMethod) else stream)

    @asynccontextmanager
    async def _passing(self, passage: GrpcPassage) -> AsyncIterator[None]:
        """Let a call through the gate, and tell what came of it; raises CallFailed, as is said to its client."""
        code = 200
        try:
            await self._gate.identify(passage)
            assert passage.asked is not None, passage
            async with self._gate.seat(classify(passage.asked), lasting=passage.lasting):
                await self._gate.check(passage)
                yield
        except ApiError as error:
            code = error.code
            raise refusal(error) from None
        except CallFailed as error:
            code = next((kind.code for kind, status in CODES.items() if status is error.status), InternalError.code)
            raise
        except asyncio.CancelledError:
            code = passage.given_up
            raise
        except Exception:
            log.exception("gRPC call failed path=%s audit=%s", passage.uri, passage.audit_id)
            code = InternalError.code
            raise refusal(InternalError(_OUR_FAULT)) from None
        finally:
            self._gate.finish(passage, code, passage.answer)


def asked_by(verb: str, request: Any) -> Asked:
    """Return what a call asks, by nobody yet, in the words of authorization: as REST would be asked by its path."""
    target = request.target
    # No path of a list or of a new object ends with a name. One that stands here all the same must open nothing, to
    # whoever may read or make that object alone.
    nameless = verb in ("list", "watch") or (verb == "create" and not target.subresource)
    name = "" if nameless else target.name
    # A namespace lies in itself: whom a binding in it makes its administrator may read it.
    namespace = name if (target.group, target.resource) == ("", "namespaces") else target.namespace
    if verb in ("list", "watch"):
        name = _name_selected(request.field_selector)
    return Asked(NOBODY, verb, target.group, target.resource, target.subresource, namespace, name)


def _name_selected(selector: str) -> str:
    """Return the one name that a list or watch is narrowed to."""
    try:
        return parse_fields(selector).exact("metadata.name") or ""
    except BadRequest:
        return ""  # said of the request itself, once it may be made at all
