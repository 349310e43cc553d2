"""Our own server (``fastgrpc``) as the front of the services, much cheaper than grpcio's."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from fastgrpc import server as fast
from fastgrpc.calls import CallFailed, Metadata, Status
from fastgrpc.events import Limits
from fastgrpc.standard import HEALTH, REFLECTION, Health, Reflection, serialize
from raft_store.tls import TlsFiles, admission

from .backend import MAX_REQUEST_BYTES
from .call import Batch, CallContext, context_of
from .errors import RpcError
from .front import SPARE_FILES, CallCounts, LeaderGuard
from .services import Method, StreamMethod, UnaryMethod

CONFIG = fast.ServerConfig(
    limits=Limits(streams=100_000),
    max_message_bytes=MAX_REQUEST_BYTES + (512 << 10),
    keepalive_s=10.0,
    spare_files=SPARE_FILES,
)
# Called so often that a task each would cost more than the call; their handlers wait for the engine and nothing else.
HOT = frozenset({"LeaseGrant", "LeaseRevoke", "LeaseTimeToLive"})
MAX_REMEMBERED = 256


class FastFront:
    """A ``Front``.

    other_protocol: answers HTTP/1.1 on the same port; web: what comes by HTTP/2 and is no call.
    inline: whether the engine can be waited for without a task.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        guard: LeaderGuard,
        calls: CallCounts,
        *,
        other_protocol: Callable[[], asyncio.Protocol],
        web: fast.Web,
        inline: bool,
    ) -> None:
        self._guard = guard
        self._calls = calls
        self._inline = inline
        self._contexts: dict[tuple[Metadata, str], CallContext] = {}
        self._health = Health()
        names = dict.fromkeys(f"{method.package}.{method.service}" for method in methods)
        rows = [self._row(method) for method in methods]
        self._counted = {  # made once: a count at the end of each call must cost little
            (row.path, status): (f"{method.package}.{method.service}", method.method, status.name)
            for row, method in zip(rows, methods, strict=True)
            for status in Status
        }
        rows += [*self._health.methods(), *Reflection([*names, HEALTH, REFLECTION]).methods()]
        self._server = fast.Server(rows, config=CONFIG, on_end=self._count, other_protocol=other_protocol, web=web)

    async def start(self, listen: str, tls: TlsFiles | None) -> int:
        """See ``Front.start``."""
        host, _, port = listen.rpartition(":")
        try:
            context = None if tls is None else fast.server_tls(str(tls.cert), str(tls.key), str(tls.ca))
            admits = admission(tls, listener="client_tls")
            return await self._server.listen(host.strip("[]"), int(port), tls=context, admits=admits)
        except OSError as exc:
            raise OSError(f"client_listen {listen}: {exc}") from exc

    async def set_serving(self, *, serving: bool) -> None:
        """See ``Front.set_serving``."""
        self._health.set(serving=serving)

    async def stop(self, grace_s: float) -> None:
        """See ``Front.stop``."""
        await self._server.stop(grace_s)

    def _row(self, method: Method) -> fast.Method:
        path = f"/{method.package}.{method.service}/{method.method}"
        decode = method.request.FromString
        match method:
            case UnaryMethod(batch=batch) if batch is not None:
                return fast.BatchMethod(path, self._batch(batch))
            case UnaryMethod():
                inline = self._inline and method.method in HOT
                return fast.UnaryMethod(path, self._unary(method), decode, serialize, inline=inline)
            case StreamMethod():
                return fast.StreamMethod(path, self._stream(method), decode, serialize)

    def _unary(self, method: UnaryMethod) -> Callable[[Any, fast.Call], Coroutine[Any, Any, Message | bytes]]:
        handler, guard, about = method.encoded or method.handler, self._guard, self._about

        async def handle(request: Any, call: fast.Call) -> Message | bytes:
            try:
                context = about(call)
                if context.wants_leader:
                    guard.check(context)
                return await handler(request, context)
            except RpcError as exc:
                raise CallFailed(Status(exc.code), exc.text) from exc

        return handle

    def _batch(self, batch: Batch) -> Callable[[Sequence[fast.Ask]], None]:
        guard = self._guard

        def take(asks: Sequence[fast.Ask], context: CallContext) -> None:
            try:
                if context.wants_leader:
                    guard.check(context)
                batch(asks, context)
            except RpcError as exc:
                for ask in asks:
                    ask.fail(exc.code, exc.text)

        def handle(lot: Sequence[fast.Ask]) -> None:
            head = lot[0].head
            # Nearly always: a client says the same all the time.
            if len(lot) == 1 or not [ask for ask in lot if ask.head is not head]:
                take(lot, self._about(lot[0]))
                return
            for _, asks in itertools.groupby(lot, key=lambda ask: ask.head):
                same = list(asks)
                take(same, self._about(same[0]))

        return handle

    def _stream(self, method: StreamMethod) -> Callable[[fast.Call], Coroutine[Any, Any, None]]:
        handler, encoded = method.handler, method.encoded

        async def handle(call: fast.Call) -> None:
            try:
                context = self._about(call)
                guarded = self._guard.check(context)
                running: Awaitable[None]
                if encoded is not None:
                    running = encoded(call.requests(), call, context)
                else:
                    running = handler(call.requests(), call.send, context)
                await (self._guard.run(running) if guarded else running)
            except RpcError as exc:
                raise CallFailed(Status(exc.code), exc.text) from exc

        return handle

    def _about(self, call: fast.Call | fast.Ask) -> CallContext:
        """Return what the services know of a call; the same for all calls of a client that says the same."""
        peer = call.peer
        if peer.memo is None:
            peer.memo = common_name(peer.certificate)
        key = (call.head.metadata, peer.memo)
        found = self._contexts.get(key)
        if found is None:
            metadata: dict[str, str] = {}
            for name, value in call.metadata:
                metadata.setdefault(name, value if isinstance(value, str) else value.decode("latin-1"))
            if len(self._contexts) >= MAX_REMEMBERED:
                self._contexts.clear()
            found = self._contexts[key] = context_of(metadata, peer.memo)
        return found

    def _count(self, path: str, status: Status, calls: int) -> None:
        key = self._counted.get((path, status))
        if key is not None:
            self._calls[key] += calls


def common_name(certificate: Mapping[str, Any]) -> str:
    """Return the name in a certificate as ``ssl`` describes it; empty if there is none."""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return ""
