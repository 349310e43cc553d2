"""One running member: an engine, the machine it replicates, and the doors to both."""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from .config import Config, cluster_id, member_id, peer_address
from .engine import Engine, EngineError, MemberId, Term
from .engines.memory import MemoryEngine
from .engines.native import NativeConfig, NativeEngine
from .etcd_api.backend import Backend, MemberFacts
from .etcd_api.front import CallCounts, LeaderGuard, make_server, set_serving
from .etcd_api.gateway import Gateway
from .etcd_api.services import Method, Services, make_services
from .machine import Machine, encode
from .mvcc.lease import LeaseClock
from .mvcc.requests import Alarm, AlarmKind, LeaseExpire, Publish, SetAlarm
from .observe import Observer, serve
from .tls import TlsFiles

if TYPE_CHECKING:
    from .http_front import HttpFront

log = logging.getLogger(__name__)

PULSE_S = 0.1  # how often the member looks at its leases, its leader and its size
LEADERLESS_S = 1.0  # without a leader for so long, streams that asked for one are cut
MIN_LEASE_TTL_S = 1  # whole seconds; longer than an election takes
EXPIRE_BATCH = 500
IDLE_TRIM = 1_000  # compacted changes given back at each pulse
STOP_GRACE_S = 1.0


def make_engine(config: Config) -> Engine:
    """Return the engine that the configuration names, not started."""
    match config.engine:
        case "memory":
            return MemoryEngine(config.member)
        case "raftos":
            # Only who asks for it has the library installed.
            from .engines.raftos_engine import RaftosConfig, RaftosEngine  # noqa: PLC0415

            heartbeat = (config.raft.tick_ms or 0) * (config.raft.heartbeat_ticks or 1)
            return RaftosEngine(
                RaftosConfig(
                    member=config.member,
                    members=_members(config),
                    data_dir=config.data_dir,
                    cluster=config.cluster,
                    heartbeat_s=heartbeat / 1000 if heartbeat else None,
                )
            )
        case _:
            return NativeEngine(_native_config(config))


def _members(config: Config) -> dict[MemberId, str]:
    return {member_id(config.cluster, name): peer_address(url) for name, url in config.members.items()}


def _native_config(config: Config) -> NativeConfig:
    wished = {
        name: value
        for name in ("tick_ms", "heartbeat_ticks", "election_ticks", "snapshot_entries")
        if (value := getattr(config.raft, name)) is not None
    }
    return NativeConfig(
        member=config.member,
        members=_members(config),
        data_dir=config.data_dir,
        listen=config.peer_listen,
        cluster=config.cluster,
        tls=config.peer_tls,
        **wished,
    )


class Member:
    """Wires one member and keeps its house: lease expiry, leader watching, its entry in the member list."""

    def __init__(self, config: Config, engine: Engine | None = None) -> None:
        self.config = config
        self.engine = engine or make_engine(config)
        self.machine = Machine(LeaseClock(time.monotonic))
        self.machine.tokens.ttl_s = config.auth_token_ttl_s
        self.backend = Backend(
            engine=self.engine,
            machine=self.machine,
            cluster_id=cluster_id(config.cluster),
            member=config.member,
            members=[MemberFacts(member_id(config.cluster, name), name, [url]) for name, url in config.members.items()],
            request_timeout_s=config.request_timeout_s,
            min_lease_ttl_s=MIN_LEASE_TTL_S,
        )
        self.guard = LeaderGuard(self.engine.status)
        self.calls: CallCounts = Counter()
        self.leader_changes = 0
        self.client_port = 0  # known once started; the configuration may leave the choice to the system
        self._leader = MemberId(0)
        self._led_term: Term | None = None  # the term whose leases we have given more time, if we lead
        self._leader_seen = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: grpc.aio.Server | None = None
        self._http: asyncio.Server | None = None
        self._front: HttpFront | None = None

    async def start(self) -> None:
        """Recover, join the group, then let clients in. Raises OSError if an address is taken."""
        await self.engine.start(self.machine)
        try:
            methods = self._services().methods()
            self._server, self._health = make_server(methods, self.guard, self.calls)
            self.client_port = _bind(self._server, self.config.client_listen, self.config.client_tls)
            await self._server.start()
            await self._serve_http(methods)
        except BaseException:
            if self._front is not None:
                await self._front.stop()
            if self._server is not None:
                await self._server.stop(None)
            await self.engine.stop()
            raise
        chores = (self._pulse(), self._keep_house(), self._publish())
        self._tasks = [asyncio.create_task(chore) for chore in chores]
        log.info(
            "serving clients name=%s member=%x listen=%s engine=%s revision=%d",
            self.config.name,
            self.config.member,
            self.config.client_listen,
            self.config.engine,
            self.machine.store.revision,
        )

    async def _serve_http(self, methods: Sequence[Method]) -> None:
        observer = Observer(
            self.backend,
            self.calls,
            name=self.config.name,
            engine=self.config.engine,
            leader_changes=lambda: self.leader_changes,
        )
        if self.config.metrics_listen is not None:
            self._http = await serve(observer.routes(), self.config.metrics_listen)
        if self.config.http_listen is not None:
            # Its library takes 13 MB: only who asks for it pays.
            from .http_front import HttpFront  # noqa: PLC0415

            self._front = HttpFront(Gateway(methods), observer.routes(), self.guard, self.calls)
            await self._front.start(self.config.http_listen, self.config.client_tls)

    async def stop(self) -> None:
        """Let clients go, then leave the group."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            self._http.close()
        if self._front is not None:
            await self._front.stop()
        if self._server is not None:
            await set_serving(self._health, serving=False)
            await self._server.stop(STOP_GRACE_S)
        await self.engine.stop()
        log.info("stopped name=%s", self.config.name)

    def _services(self) -> Services:
        return make_services(self.backend, ids=random.SystemRandom(), watch_progress_s=self.config.watch_progress_s)

    async def _pulse(self) -> None:
        serving = None
        while True:
            self._look_at_leader()
            if (now_serving := bool(self._leader)) != serving:
                serving = now_serving
                await set_serving(self._health, serving=serving)
            self.machine.store.trim(IDLE_TRIM)
            await asyncio.sleep(PULSE_S)

    async def _keep_house(self) -> None:
        """Propose what time and size demand; apart from the pulse, because proposals may wait for an election."""
        while True:
            try:
                await self._expire_leases()
                await self._watch_quota()
            except EngineError as exc:
                log.warning("housekeeping waits for the group reason=%s", exc)
            await asyncio.sleep(PULSE_S)

    def _look_at_leader(self) -> None:
        status, now = self.engine.status(), time.monotonic()
        if status.leader:
            self._leader_seen = now
        elif now - self._leader_seen > LEADERLESS_S:
            self.guard.leader_lost()
        if status.leader != self._leader:
            self._leader = status.leader
            if status.leader:
                self.leader_changes += 1
                log.info("following leader leader=%x term=%d", status.leader, status.term)
        if status.leader != self.config.member:
            self._led_term = None
        elif self._led_term != status.term:
            self._led_term = status.term
            self.machine.lease_clock.restart(self.machine.leases.all())

    async def _expire_leases(self) -> None:
        if self._led_term is None:
            return
        expired = self.machine.lease_clock.expired(self.machine.leases, EXPIRE_BATCH)
        if expired:
            command = LeaseExpire(self._led_term, expired)
            await self.engine.propose(encode(command), timeout_s=self.config.request_timeout_s)

    async def _watch_quota(self) -> None:
        alarm = Alarm(self.config.member, AlarmKind.NOSPACE)
        over = 0 < self.config.quota_bytes < self.machine.store.held_bytes
        if over and (alarm.member, alarm.kind) not in self.machine.alarms:
            log.warning("quota exceeded bytes=%d quota=%d", self.machine.store.held_bytes, self.config.quota_bytes)
            command = SetAlarm(alarm, active=True)
            await self.engine.propose(encode(command), timeout_s=self.config.request_timeout_s)

    async def _publish(self) -> None:
        """Tell everyone where clients reach us, as soon as the group can agree on anything."""
        entry = Publish(self.config.member, self.config.name, [self.config.client_url])
        while self.machine.members.get(self.config.member) != entry:
            try:
                await self.engine.propose(encode(entry), timeout_s=self.config.request_timeout_s)
            except EngineError as exc:
                log.debug("not in the member list yet reason=%s", exc)
                await asyncio.sleep(0.2)


def _bind(server: grpc.aio.Server, listen: str, tls: TlsFiles | None) -> int:
    """Bind the clients' door; return its port. Raises OSError naming the address."""
    try:
        if tls is None:
            port = server.add_insecure_port(listen)
        else:
            credentials = grpc.ssl_server_credentials(
                [(_read(tls.key), _read(tls.cert))],
                root_certificates=_read(tls.ca),
                require_client_auth=True,
            )
            port = server.add_secure_port(listen, credentials)
    except RuntimeError as exc:
        raise OSError(f"client_listen {listen}: {exc}") from exc
    if port == 0:
        raise OSError(f"client_listen {listen}: the address is taken or not ours")
    return port


def _read(path: Path) -> bytes:
    return path.read_bytes()


@contextlib.asynccontextmanager
async def running(config: Config, engine: Engine | None = None) -> AsyncIterator[Member]:
    """Run a member for the length of a block."""
    member = Member(config, engine)
    await member.start()
    try:
        yield member
    finally:
        await member.stop()
