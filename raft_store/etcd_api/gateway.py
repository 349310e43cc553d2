"""The same services as JSON over HTTP, for clients that do not speak gRPC (Patroni, ``curl``): what to answer, not how.

As with etcd's gateway each method has a path; a request is its message in protobuf's JSON form (bytes in base64, 64-bit
numbers as text, names as in the contract), a response likewise. Streams answer one object a line, ``{"result": ...}``.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from . import json_form
from .call import CallContext
from .errors import Code, RpcError
from .services import Method, StreamMethod, UnaryMethod

PREFIXES = ("/v3", "/v3beta")

PATHS: Mapping[str, tuple[str, str]] = {
    "/kv/range": ("KV", "Range"),
    "/kv/put": ("KV", "Put"),
    "/kv/deleterange": ("KV", "DeleteRange"),
    "/kv/txn": ("KV", "Txn"),
    "/kv/compaction": ("KV", "Compact"),
    "/watch": ("Watch", "Watch"),
    "/lease/grant": ("Lease", "LeaseGrant"),
    "/lease/revoke": ("Lease", "LeaseRevoke"),
    "/kv/lease/revoke": ("Lease", "LeaseRevoke"),
    "/lease/keepalive": ("Lease", "LeaseKeepAlive"),
    "/lease/timetolive": ("Lease", "LeaseTimeToLive"),
    "/kv/lease/timetolive": ("Lease", "LeaseTimeToLive"),
    "/lease/leases": ("Lease", "LeaseLeases"),
    "/kv/lease/leases": ("Lease", "LeaseLeases"),
    "/cluster/member/add": ("Cluster", "MemberAdd"),
    "/cluster/member/remove": ("Cluster", "MemberRemove"),
    "/cluster/member/update": ("Cluster", "MemberUpdate"),
    "/cluster/member/list": ("Cluster", "MemberList"),
    "/cluster/member/promote": ("Cluster", "MemberPromote"),
    "/maintenance/alarm": ("Maintenance", "Alarm"),
    "/maintenance/status": ("Maintenance", "Status"),
    "/maintenance/defragment": ("Maintenance", "Defragment"),
    "/maintenance/hash": ("Maintenance", "Hash"),
    "/maintenance/hashkv": ("Maintenance", "HashKV"),
    "/maintenance/snapshot": ("Maintenance", "Snapshot"),
    "/maintenance/transfer-leadership": ("Maintenance", "MoveLeader"),
    "/maintenance/downgrade": ("Maintenance", "Downgrade"),
    "/auth/enable": ("Auth", "AuthEnable"),
    "/auth/disable": ("Auth", "AuthDisable"),
    "/auth/status": ("Auth", "AuthStatus"),
    "/auth/authenticate": ("Auth", "Authenticate"),
    "/auth/user/add": ("Auth", "UserAdd"),
    "/auth/user/get": ("Auth", "UserGet"),
    "/auth/user/list": ("Auth", "UserList"),
    "/auth/user/delete": ("Auth", "UserDelete"),
    "/auth/user/changepw": ("Auth", "UserChangePassword"),
    "/auth/user/grant": ("Auth", "UserGrantRole"),
    "/auth/user/revoke": ("Auth", "UserRevokeRole"),
    "/auth/role/add": ("Auth", "RoleAdd"),
    "/auth/role/get": ("Auth", "RoleGet"),
    "/auth/role/list": ("Auth", "RoleList"),
    "/auth/role/delete": ("Auth", "RoleDelete"),
    "/auth/role/grant": ("Auth", "RoleGrantPermission"),
    "/auth/role/revoke": ("Auth", "RoleRevokePermission"),
    "/lock/lock": ("Lock", "Lock"),
    "/lock/unlock": ("Lock", "Unlock"),
    "/election/campaign": ("Election", "Campaign"),
    "/election/proclaim": ("Election", "Proclaim"),
    "/election/leader": ("Election", "Leader"),
    "/election/observe": ("Election", "Observe"),
    "/election/resign": ("Election", "Resign"),
}

HTTP_STATUS: Mapping[Code, int] = {
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.NOT_FOUND: 404,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 412,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


Write = Callable[[bytes], Awaitable[None]]


class Gateway:
    """Translates for one member's methods."""

    def __init__(self, methods: Sequence[Method]) -> None:
        by_name = {(method.service, method.method): method for method in methods}
        self._methods = {
            prefix + path: by_name[name] for prefix in PREFIXES for path, name in PATHS.items() if name in by_name
        }

    def method(self, path: str) -> Method | None:
        """Return whose path this is."""
        return self._methods.get(path)

    async def answer(self, method: UnaryMethod, body: bytes, call: CallContext) -> bytes:
        """Answer one message by one. Raises RpcError."""
        return _json(await method.handler(_message(method, body), call))

    async def requests(self, method: StreamMethod, bodies: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        """Return the requests of a stream once the first is there. Raises RpcError if it is none.

        What takes one request alone gets an empty one if there is none, and what follows it is ignored, as with etcd.
        """
        body = await anext(bodies, None if method.many_requests else b"")
        first = [] if body is None else [_message(method, body)]

        async def messages() -> AsyncIterator[Message]:
            for message in first:
                yield message
            if method.many_requests:
                async for body in bodies:
                    yield _message(method, body)

        return messages()

    async def stream(
        self, method: StreamMethod, requests: AsyncIterator[Message], write: Write, call: CallContext
    ) -> None:
        """Write a line for each response. Raises RpcError."""

        async def send(response: Message) -> None:
            await write(b'{"result":%s}\n' % _json(response))

        await method.handler(requests, send, call)


def refusal(exc: RpcError) -> tuple[int, bytes]:
    """Return the HTTP status and the body that tell a client that its request was refused."""
    body = {"error": exc.text, "message": exc.text, "code": int(exc.code)}
    return HTTP_STATUS[exc.code], msgspec.json.encode(body)


def stream_refusal(exc: RpcError) -> tuple[int, bytes]:
    """Return the line that ends a stream, and the HTTP status for it if it is the first one."""
    status = HTTP_STATUS[exc.code]
    error = {
        "grpc_code": int(exc.code),
        "http_code": status,
        "message": exc.text,
        "http_status": HTTPStatus(status).phrase,
    }
    return status, msgspec.json.encode({"error": error}) + b"\n"


def _message(method: Method, body: bytes) -> Message:
    message = method.request()
    try:
        json_form.read(body, message)
    except ValueError as exc:
        # Of what is no request of a stream of them, etcd's gateway knows no code.
        many = isinstance(method, StreamMethod) and method.many_requests
        raise RpcError(Code.UNKNOWN if many else Code.INVALID_ARGUMENT, str(exc)) from exc
    return message


def _json(message: Message) -> bytes:
    return msgspec.json.encode(json_format.MessageToDict(message, preserving_proto_field_name=True))
