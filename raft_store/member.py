"""One running member: an engine, the machine it replicates, and the doors to both."""

import asyncio
import contextlib
import functools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection

import msgspec

from fastgrpc.deadlines import until_beat_s

from .backups import BackupPlan, keep_backups
from .chores import Chores
from .config import Config, cluster_id, member_id, peer_address
from .engine import Engine, EngineError, MemberId
from .engines.memory import MemoryEngine
from .engines.native import NativeConfig, NativeEngine
from .etcd_api.backend import Backend
from .etcd_api.fast_front import FastFront
from .etcd_api.front import CallCounts, Front, LeaderGuard
from .etcd_api.learners import guard_learners
from .etcd_api.maintenance import saved_snapshot
from .etcd_api.services import Method, Services, make_services
from .http_door import HttpDoor
from .lease_keeper import LeaseKeeper
from .machine import Machine, encode
from .mvcc.lease import LeaseClock
from .mvcc.requests import Audit, Audited, LeaseExpire, Publish
from .mvcc.store import View, checksum
from .observe import Observer, serve
from .pacing import result_of
from .tool import snapshots

log = logging.getLogger(__name__)

PULSE_S = 0.5  # how often the member looks at its leases (as etcd), its leader, its size; in step with its keep-alive
LEADERLESS_S = 1.0  # without a leader for so long, streams that asked for one are cut ...
LEADERLESS_ELECTIONS = 3  # ... or for so many election time-outs, as in etcd, where members wait longer for theirs
IDLE_TRIM = 1_000  # compacted changes given back at each pulse
STOP_GRACE_S = 1.0


def make_engine(
    config: Config,
    *,
    on_fatal: Callable[[Exception], None],
    started: Callable[[], Collection[MemberId]],
    force_new_cluster: bool = False,
) -> Engine:
    """Return the engine that the configuration names, not started; on_fatal, started: see ``NativeEngine``.

    force_new_cluster: give up all other members for lost, for ever; raises ValueError for an engine that cannot.
    """
    if force_new_cluster and config.engine != "native":
        raise ValueError(f"engine {config.engine!r} cannot give up its other members")
    match config.engine:
        case "memory":
            return MemoryEngine(config.member, [config.members[config.name]])
        case "raftos":
            # Only who asks for it has the library installed.
            from .engines.raftos_engine import RaftosConfig, RaftosEngine  # noqa: PLC0415

            heartbeat = (config.raft.tick_ms or 0) * (config.raft.heartbeat_ticks or 1)
            return RaftosEngine(
                RaftosConfig(
                    member=config.member,
                    members={member: peer_address(url) for member, url in _members(config).items()},
                    data_dir=config.data_dir,
                    cluster=config.cluster,
                    heartbeat_s=heartbeat / 1000 if heartbeat else None,
                )
            )
        case _:
            return NativeEngine(
                _native_config(config, force_new_cluster=force_new_cluster), on_fatal=on_fatal, started=started
            )


def _members(config: Config) -> dict[MemberId, str]:
    return {member_id(config.cluster, name): url for name, url in config.members.items()}


def _native_config(config: Config, *, force_new_cluster: bool) -> NativeConfig:
    wished = {name: value for name, value in msgspec.structs.asdict(config.raft).items() if value is not None}
    return NativeConfig(
        member=config.member,
        members=_members(config),
        data_dir=config.data_dir,
        listen=config.peer_listen,
        cluster=config.cluster,
        name=config.name,
        joins=config.initial_cluster_state == "existing",
        force_new_cluster=force_new_cluster,
        tls=config.peer_tls,
        disk_orders=config.testing.disk_orders,
        **wished,
    )


class Member:
    """Wires one member and keeps its house: lease expiry, leader watching, its entry in the member list.

    Once ``failed`` is set the member can do nothing any more but be stopped; ``failure`` says why.
    """

    def __init__(self, config: Config, engine: Engine | None = None, *, force_new_cluster: bool = False) -> None:
        self.config = config
        self.failed = asyncio.Event()
        self.failure: Exception | None = None
        self.engine = engine or make_engine(
            config, on_fatal=self._fail, started=self._started, force_new_cluster=force_new_cluster
        )
        self.machine = Machine(LeaseClock(time.monotonic))
        self.machine.tokens.ttl_s = config.auth_token_ttl_s
        self.backend = Backend(
            engine=self.engine,
            machine=self.machine,
            cluster_id=cluster_id(config.cluster),
            member=config.member,
            request_timeout_s=config.request_timeout_s,
            quota_bytes=config.quota_bytes,
        )
        self.guard = LeaderGuard(self.engine.status)
        self.calls: CallCounts = Counter()
        self.leader_changes = 0
        self.client_port = 0  # known once started; the configuration may leave the choice to the system
        self._leader = MemberId(0)
        self._leases = LeaseKeeper(self.machine)
        self._learns = False
        self._leader_seen = time.monotonic()
        self._audit_called = time.monotonic()
        self._chores = Chores(self._fail)
        self._front: Front | None = None
        self._metrics: asyncio.Server | None = None
        self._http: HttpDoor | None = None
        self._observer = Observer(
            self.backend,
            self.calls,
            name=config.name,
            engine=config.engine,
            quota_bytes=config.quota_bytes,
            leader_changes=lambda: self.leader_changes,
        )

    async def start(self) -> None:
        """Recover, join the group, then let clients in. Raises OSError if an address is taken."""
        await asyncio.to_thread(self._begin_with_snapshot)
        await self.engine.start(self.machine)
        status = self.engine.status()
        self.backend.member = status.member  # one that joins is told its id
        self._learns = status.role == "learner"
        try:
            self._http = HttpDoor(self._methods(), self._observer.client_routes(), self.guard, self.calls)
            self._front = self._make_front(self._http)
            self.client_port = await self._front.start(self.config.client_listen, self.config.client_tls)
            await self._observe(self._http)
        except BaseException:
            if self._http is not None:
                await self._http.stop()
            if self._front is not None:
                await self._front.stop(0)
            await self.engine.stop()
            raise
        for chore in (self._pulse, self._publish):
            self._chores.begin(chore.__name__.lstrip("_"), chore)
        if self.config.backup is not None:
            self._chores.begin("keep_backups", functools.partial(self._keep_backups, self.config.backup))
        log.info(
            "serving clients name=%s member=%x listen=%s engine=%s revision=%d",
            self.config.name,
            self.backend.member,
            self.config.client_listen,
            self.config.engine,
            self.machine.store.revision,
        )

    def _methods(self) -> list[Method]:
        return guard_learners(self._services().methods(), self._still_learns)

    def _make_front(self, http: HttpDoor) -> Front:
        if self.config.front == "grpcio":
            # Only who asks for it pays for loading it.
            from .etcd_api.grpcio_front import GrpcioFront  # noqa: PLC0415

            return GrpcioFront(http.methods, self.guard, self.calls)
        # The raftos engine's waiting needs tasks.
        inline = self.config.engine != "raftos"
        return FastFront(
            http.methods,
            self.guard,
            self.calls,
            other_protocol=http.protocol,
            web=http.web.visit,
            inline=inline,
        )

    def _started(self) -> list[MemberId]:
        """Return the members that ever took part: each has told everyone where clients reach it."""
        return [MemberId(member) for member in self.machine.members]

    def _still_learns(self) -> bool:
        # The pulse has an answer that costs nothing; whoever was just promoted serves at once.
        return self._learns and self.engine.status().role == "learner"

    def _begin_with_snapshot(self) -> None:
        """Let a new cluster begin with the state that its configuration names; a member that has data has begun."""
        config = self.config
        if config.initial_snapshot is None or (config.data_dir.exists() and any(config.data_dir.iterdir())):
            return
        facts = snapshots.restore(
            config.initial_snapshot, config.data_dir, name=config.name, members=config.members, cluster=config.cluster
        )
        log.info("begins with a snapshot file=%s revision=%d", config.initial_snapshot, facts.revision)

    def _fail(self, exc: Exception) -> None:
        self.failure = self.failure or exc
        self.failed.set()

    async def _observe(self, http: HttpDoor) -> None:
        if self.config.metrics_listen is not None:
            self._metrics = await serve(self._observer.routes(), self.config.metrics_listen)
        if self.config.http_listen is not None:
            await http.listen(self.config.http_listen, self.config.client_tls)

    async def stop(self) -> None:
        """Let another member lead, let clients go, then stop taking part."""
        await self.engine.step_aside()
        await self._chores.stop()
        if self._metrics is not None:
            self._metrics.close()
        if self._http is not None:
            await self._http.stop()
        if self._front is not None:
            await self._front.set_serving(serving=False)
            await self._front.stop(STOP_GRACE_S)
        await self.engine.stop()
        log.info("stopped name=%s", self.config.name)

    def _services(self) -> Services:
        return make_services(
            self.backend,
            ids=random.SystemRandom(),
            watch_progress_s=self.config.watch_progress_s,
            strict_reconfig_check=self.config.strict_reconfig_check,
        )

    async def _pulse(self) -> None:
        """Look after everything that has no event of its own, in one turn of the loop: an idle member is woken once."""
        serving, front = None, self._front
        assert front is not None
        housekeeping: asyncio.Task[None] | None = None
        auditing: asyncio.Task[None] | None = None
        try:
            while True:
                self._look_at_leader()
                if (now_serving := bool(self._leader)) != serving:
                    serving = now_serving
                    await front.set_serving(serving=serving)
                self.machine.store.trim(IDLE_TRIM)
                # In tasks, because proposals may wait for an election.
                audits = not _is_over(auditing)
                if not audits and (view := self.machine.to_audit) is not None:
                    auditing, audits = asyncio.create_task(self._take_audit(view)), True
                if _is_over(housekeeping) and (command := self._chore(audits=audits)) is not None:
                    housekeeping = asyncio.create_task(self._keep_house(command))
                await asyncio.sleep(until_beat_s(asyncio.get_running_loop().time(), PULSE_S))
        finally:
            left = [task for task in (housekeeping, auditing) if task is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _chore(self, *, audits: bool) -> LeaseExpire | Audit | None:
        """Return what time and size demand to be proposed; audits: our answer to the last audit is under way."""
        if (expiry := self._leases.due()) is not None:
            return expiry
        leads, every_s = self._leader == self.backend.member, self.config.corrupt_check_s
        if not leads or not every_s or time.monotonic() - self._audit_called < every_s:
            return None
        if audits:
            return None  # another one would take the place of that, before it has an end
        self._audit_called = time.monotonic()
        return Audit()

    async def _keep_house(self, command: LeaseExpire | Audit) -> None:
        try:
            await self.engine.propose(encode(command), timeout_s=self.config.request_timeout_s)
        except EngineError as exc:
            log.warning("housekeeping waits for the group reason=%s", exc)

    def _look_at_leader(self) -> None:
        status, now = self.engine.status(), time.monotonic()
        self._learns = status.role == "learner"
        if status.leader:
            self._leader_seen = now
        elif now - self._leader_seen > max(LEADERLESS_S, LEADERLESS_ELECTIONS * status.election_timeout_s):
            self.guard.leader_lost()
        if status.leader != self._leader:
            self._leader = status.leader
            if status.leader:
                self.leader_changes += 1
                log.info("following leader leader=%x term=%d", status.leader, status.term)
        self._leases.look(leads=status.leader == self.backend.member, term=status.term)

    async def _take_audit(self, view: View) -> None:
        """Take a checksum of a moment that all members pass, and tell the others."""
        index = self.machine.audit.index
        found = await result_of(checksum(view, view.revision))
        if self.machine.to_audit is view:  # no newer one meanwhile
            self.machine.drop_audit()
            await self._tell(Audited(index, self.backend.member, found))

    async def _tell(self, found: Audited) -> None:
        try:
            await self.engine.propose(encode(found), timeout_s=self.config.request_timeout_s)
        except EngineError as exc:
            log.warning("the others do not hear of our state reason=%s", exc)  # the next audit asks again

    async def _keep_backups(self, plan: BackupPlan) -> None:
        names = sorted(self.config.members)
        await keep_backups(
            plan,
            state=lambda: saved_snapshot(self.backend),
            revision=lambda: self.machine.store.revision,
            share=(names.index(self.config.name) + 1) / (len(names) + 1),
        )

    async def _publish(self) -> None:
        """Tell everyone where clients reach us, as soon as the group can agree on anything."""
        entry = Publish(self.backend.member, self.config.name, [self.config.client_url])
        while self.machine.members.get(self.backend.member) != entry:
            try:
                await self.engine.propose(encode(entry), timeout_s=self.config.request_timeout_s)
            except EngineError as exc:
                log.debug("not in the member list yet reason=%s", exc)
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running(
    config: Config, engine: Engine | None = None, *, force_new_cluster: bool = False
) -> AsyncIterator[Member]:
    """Run a member for the length of a block."""
    member = Member(config, engine, force_new_cluster=force_new_cluster)
    await member.start()
    try:
        yield member
    finally:
        await member.stop()


def _is_over(task: "asyncio.Task[None] | None") -> bool:
    """Return whether there is no such task, or no more; raises what it failed of."""
    if task is None or not task.done():
        return task is None
    task.result()
    return True
