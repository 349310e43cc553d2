"""Which member to ask: the first of the list that is alive and knows a leader.

A member that is cut off or paused does not refuse calls, it just never answers, and a slow answer may as well be an
election that is being waited for. So while calls or watches are open, each endpoint in use is asked for its status,
which a living member answers at once. Silence moves new calls, reads and watches elsewhere soon, and gives up on writes
a little later: giving up a write leaves its outcome unknown, which costs the caller more than waiting.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from client.etcd_rpc import STATUS, Cancellable, Dial, Method, NotSent, Stream, Transport
from client.etcd_types import Unavailable
from fastgrpc.calls import CallFailed, Status
from trireme_pb.etcdserverpb import rpc_pb2 as pb

log = logging.getLogger(__name__)

PROBE_EVERY_S = 0.25
SILENT_S = 0.5  # a probe unanswered for so long: look elsewhere
LOST_S = 1.0  # nothing heard for so long: give up writes that are under way
PAUSE_S = 0.05  # between tries while no member is known to be of use


class EndpointLost(Exception):
    """An endpoint could not carry out a call that another one may."""

    def __init__(self, reason: str, *, maybe_applied: bool) -> None:
        super().__init__(reason)
        self.maybe_applied = maybe_applied


class _InFlight:
    """A call that can be given up; ``patience_s`` of silence is when."""

    __slots__ = ("call", "dropped", "patience_s", "started")

    def __init__(self, call: Cancellable, patience_s: float) -> None:
        self.call = call
        self.patience_s = patience_s
        self.started = time.monotonic()
        self.dropped = False


class Endpoint:
    """One member, its connection, and what we believe of it."""

    def __init__(self, address: str, transport: Transport) -> None:
        self.address = address
        self.healthy = True  # until it fails us
        self._transport = transport
        self._in_flight: set[_InFlight] = set()
        self._heard = time.monotonic()
        self._monitor: asyncio.Task[None] | None = None
        self._healed = asyncio.Event()
        self._closed = False

    async def connect(self, timeout_s: float) -> None:
        """Return when a connection stands. Raises EndpointLost: nothing was sent then."""
        if self._transport.connected:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._transport.connect()
        except (TimeoutError, CallFailed) as exc:
            self.distrust("no connection")
            raise EndpointLost(f"{self.address}: no connection", maybe_applied=False) from exc

    async def call(self, method: Method, request: Any, *, timeout_s: float, patience_s: float) -> Any:
        """Return the answer. Raises EndpointLost, or CallFailed for what the store itself decided."""
        started = self._transport.unary(method, request, timeout_s=timeout_s)
        try:
            with self.watched(started, patience_s):
                return await started.result()
        except CallFailed as exc:
            if exc.status in _LOST:
                self.distrust(exc.message or exc.status.name)
                raise EndpointLost(f"{self.address}: {exc.message}", maybe_applied=not surely_not_applied(exc)) from exc
            raise

    def stream(self, method: Method, *, timeout_s: float | None = None) -> Stream:
        """Begin a call of many messages; see ``watched``."""
        return self._transport.stream(method, timeout_s=timeout_s)

    async def status(self, timeout_s: float) -> pb.StatusResponse:
        """Return how the member sees itself. Raises CallFailed."""
        answer = await self._transport.unary(STATUS, pb.StatusRequest(), timeout_s=timeout_s).result()
        assert isinstance(answer, pb.StatusResponse), answer
        return answer

    @contextlib.contextmanager
    def watched(self, call: Cancellable, patience_s: float) -> Iterator[None]:
        """Give ``call`` up when the member has been silent for ``patience_s``: EndpointLost is raised then."""
        entry = _InFlight(call, patience_s)
        self._in_flight.add(entry)
        self._ensure_monitor()
        try:
            yield
        except CallFailed as exc:
            if not entry.dropped:
                raise
            raise EndpointLost(f"{self.address}: silent", maybe_applied=not surely_not_applied(exc)) from exc
        else:
            self.heard()
        finally:
            self._in_flight.discard(entry)
            call.cancel()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard = time.monotonic()

    def distrust(self, reason: str) -> None:
        """Prefer the others until this one answers again and knows a leader."""
        if self.healthy:
            log.info("leaving endpoint address=%s reason=%s", self.address, reason)
        self.healthy = False
        self._healed.clear()
        self._ensure_monitor()

    async def wait_healthy(self) -> None:
        """Return once the endpoint is of use again."""
        if not self.healthy:
            await self._healed.wait()

    async def close(self) -> None:
        """Give up every call and close the connection."""
        self._closed = True
        if self._monitor is not None:
            self._monitor.cancel()
            await asyncio.gather(self._monitor, return_exceptions=True)
        await self._transport.close()

    def _ensure_monitor(self) -> None:
        if not self._closed and (self._monitor is None or self._monitor.done()):
            self._heard = time.monotonic()
            self._monitor = asyncio.create_task(self._watch_over())

    async def _watch_over(self) -> None:
        """Probe while a call is open or the endpoint is distrusted."""
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            if self.healthy and not self._in_flight:
                return
            now = time.monotonic()
            if self.healthy and all(now - entry.started < PROBE_EVERY_S for entry in self._in_flight):
                self._heard = now  # calls come and go: it lives
                continue
            await self._probe()
            self._drop_impatient()

    async def _probe(self) -> None:
        try:
            status = await self.status(SILENT_S)
        except CallFailed as exc:
            self.distrust(exc.message or exc.status.name)
            return
        self.heard()
        if not status.leader:
            self.distrust("it knows no leader")
        elif not self.healthy:
            log.info("endpoint is back address=%s", self.address)
            self.healthy = True
            self._healed.set()

    def _drop_impatient(self) -> None:
        silent_s = time.monotonic() - self._heard
        for entry in self._in_flight:
            if silent_s >= entry.patience_s and not entry.dropped:
                entry.dropped = True
                entry.call.cancel()


class Endpoints:
    """Every member, the preferred one first."""

    def __init__(self, addresses: Sequence[str], dial: Dial) -> None:
        if not addresses:
            raise ValueError("an etcd client needs at least one endpoint")
        self.all = [Endpoint(address, dial(address)) for address in addresses]
        self._turn = 0

    async def pick(self, deadline: float) -> Endpoint:
        """Return the first healthy endpoint; while there is none, each in turn. Raises Unavailable."""
        for endpoint in self.all:
            if endpoint.healthy:
                return endpoint
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise Unavailable(f"none of {', '.join(e.address for e in self.all)} can do it now")
        await self._any_healthy(min(PAUSE_S, remaining_s))
        for endpoint in self.all:
            if endpoint.healthy:
                return endpoint
        self._turn = (self._turn + 1) % len(self.all)
        return self.all[self._turn]

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(endpoint.close() for endpoint in self.all))

    async def _any_healthy(self, timeout_s: float) -> None:
        waits = [asyncio.ensure_future(endpoint.wait_healthy()) for endpoint in self.all]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


# The connection's troubles, and a member's that is leaving or alone; a store's decisions have other codes.
_LOST = (Status.UNAVAILABLE, Status.CANCELLED, Status.INTERNAL)

_NEVER_PROPOSED = "etcdserver: no leader"


def surely_not_applied(exc: CallFailed) -> bool:
    """Return whether a write that failed so cannot take effect any more."""
    return isinstance(exc, NotSent) or exc.message == _NEVER_PROPOSED
