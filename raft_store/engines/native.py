"""The native engine: Raft with a synced log, peers over gRPC."""

import asyncio
import logging
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path

import msgspec

from raft_store.disk.directory import OsDirectory
from raft_store.disk.identity import Identity, Urls, save_identity
from raft_store.disk.storage import Past, Storage
from raft_store.driver import Driver, DriverConfig
from raft_store.engine import (
    Change,
    Done,
    EngineError,
    Foresee,
    Index,
    MemberId,
    MemberRecord,
    MemberStatus,
    Removed,
    StateMachine,
    Stopped,
    Term,
    TracePage,
)
from raft_store.handing_over import HandOver
from raft_store.joining import founder, joiner
from raft_store.peers import Peers
from raft_store.raft.core import Core, CoreConfig, Role
from raft_store.raft.membership import Step, founded
from raft_store.raft.messages import AnyMessage
from raft_store.raft.proposals import Proposal
from raft_store.raft.reads import lease_ms
from raft_store.raft.replica import Replica
from raft_store.recovery import give_up_others, open_directory, restore
from raft_store.regrouping import Regrouping
from raft_store.tls import TlsFiles
from raft_store.trace import Trace

log = logging.getLogger(__name__)

CLOCK_DRIFT = 0.1  # lease reads are safe while no two members' clocks run apart faster than this
LINGER_S = 0.5  # a removed member stays for so long: what it has sent, a hand-over say, has to arrive


class NativeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What one member needs to know before it starts."""

    member: MemberId  # of a founder; whoever joins is told its id by the group
    members: Mapping[MemberId, str]  # ourselves and others -> URL, or "host:port", of the peer listener
    data_dir: Path
    listen: str  # "0.0.0.0:2380"
    cluster: str = "lab"  # members of different clusters refuse each other
    name: str = ""  # told apart by it, if it has one, when it comes back; its id otherwise
    joins: bool = False  # ``members`` is whom to ask for the group; False: ``members`` found a new one
    force_new_cluster: bool = False  # give up all other members for lost, for ever; our data is the group's
    tls: TlsFiles | None = None  # None: plain text
    disk_orders: Path | None = None  # for tests: a file that tells the disk to be slow or to fail (``disk.faults``)
    tick_ms: int = 30
    heartbeat_ticks: int = 3  # every heartbeat wakes idle members
    election_ticks: int = 9  # a follower waits this long, and up to twice as long, before it campaigns
    election_stretch: int = 10  # where messages come late it waits longer, up to so many times as long; 1: never longer
    snapshot_entries: int = 20_000  # applied entries between two snapshots
    lease_reads: bool = False  # answer reads by the clock, without asking the others: see ``raft.reads`` for the danger


def _lease_ms(config: NativeConfig) -> float:
    if not config.lease_reads:
        return 0
    return lease_ms(election_ticks=config.election_ticks, tick_ms=config.tick_ms, drift=CLOCK_DRIFT)


def end_process(exc: Exception) -> None:
    """Ask this process to end as if by SIGTERM: its disk or its state cannot be trusted any more."""
    del exc  # logged where it was found
    os.kill(os.getpid(), signal.SIGTERM)


class NativeEngine:
    """An ``Engine``; one instance is one life of one member.

    on_fatal: called once, in the event loop, if this member must not go on (a failed sync, a broken invariant). All
    waiting calls have been refused with Stopped by then.
    """

    def __init__(
        self,
        config: NativeConfig,
        *,
        on_fatal: Callable[[Exception], None] = end_process,
        started: Callable[[], Collection[MemberId]] = tuple,
    ) -> None:
        """started: gives the members that ever took part, as the machine knows.

        Raises ValueError for a configuration that cannot work.
        """
        if config.member not in config.members:
            raise ValueError(f"member {config.member} is not among the members {sorted(config.members)}")
        if not 0 < config.heartbeat_ticks < config.election_ticks:
            raise ValueError(
                f"heartbeat_ticks={config.heartbeat_ticks} must be positive and less than "
                f"election_ticks={config.election_ticks}"
            )
        if config.tick_ms <= 0 or config.snapshot_entries <= 0 or config.election_stretch <= 0:
            raise ValueError("tick_ms, snapshot_entries and election_stretch must be positive")
        self._config = config
        self._on_fatal = on_fatal
        self._started = started
        self._directory: OsDirectory | None = None
        self._storage: Storage | None = None
        self._replica: Replica | None = None
        self._driver: Driver | None = None
        self._hand_over: HandOver | None = None
        self._peers: Peers | None = None
        self._regrouping: Regrouping | None = None
        self._identity: Identity | None = None
        self._removal: asyncio.Task[None] | None = None
        self._trace: Trace | None = None

    async def start(self, machine: StateMachine) -> None:
        """Recover and join; raises DiskError (DirectoryInUse, CorruptLog), ListenFailed."""
        try:
            past = await self._recover(machine)
            core = self._make_core(past)
            self._make_driver(core, machine)
            await self._join(core)
        except BaseException:
            await self._close()
            raise
        log.info(
            "member started member=%d term=%d last=%d snapshot=%d",
            core.member,
            core.term,
            core.log.last_index,
            core.log.base.index,
        )

    async def _recover(self, machine: StateMachine) -> Past:
        """Find out who we are and what we promised, and let the machine know what our disk remembers."""
        config = self._config
        directory = self._directory = await asyncio.to_thread(open_directory, config.data_dir, config.disk_orders)
        storage = self._storage = Storage(directory)
        identity = self._identity = await self._identify(directory)
        past = await asyncio.to_thread(storage.recover, founded(self._founders(identity)))
        if config.force_new_cluster:
            past = await asyncio.to_thread(give_up_others, storage, past, identity.member)
        if past.snapshot is not None:
            await restore(machine, storage, past.snapshot)
        return past

    def _make_core(self, past: Past) -> Core:
        config = self._config
        assert self._identity is not None
        return Core(
            CoreConfig(
                member=self._identity.member,
                heartbeat_ticks=config.heartbeat_ticks,
                election_ticks=config.election_ticks,
                election_stretch=config.election_stretch,
                lease_ms=_lease_ms(config),
            ),
            hard_state=past.hard_state,
            log=past.log,
            random=random.Random(),  # noqa: S311 - spreads time-outs, guards nothing
            logger=logging.getLogger("raft_store.raft"),
        )

    def _make_driver(self, core: Core, machine: StateMachine) -> None:
        config = self._config
        assert self._storage is not None
        self._replica = Replica(core, session=secrets.randbits(64))
        self._trace = Trace(core.member, now=time.monotonic, stand=lambda: (core.role, core.term, core.leader))
        self._driver = Driver(
            DriverConfig(
                tick_s=config.tick_ms / 1000,
                snapshot_entries=config.snapshot_entries,
                keep_entries=config.snapshot_entries // 4,
                tells_time=config.lease_reads,
            ),
            replica=self._replica,
            storage=self._storage,
            machine=machine,
            on_fatal=self._on_fatal,
        )
        self._hand_over = HandOver(core, self._driver, tick_s=config.tick_ms / 1000)

    async def _join(self, core: Core) -> None:
        """Listen to the others, dial them, and take part."""
        config, driver = self._config, self._driver
        assert driver is not None
        assert self._identity is not None
        self._regrouping = Regrouping(core, driver, started=self._started, on_removed=self._be_removed)
        self._peers = Peers(
            member=core.member,
            cluster=config.cluster,
            members=core.configuration.urls or self._identity.contacts,
            tls=config.tls,
            group=self._regrouping,
            receive=self._receive,
            ended=driver.ended,
            send_snapshot=driver.snapshots.send,
            receive_snapshot=driver.snapshots.receive,
            snapshot_failed=driver.snapshots.not_sent,
            patience_s=lambda: (core.patience.ticks - config.election_ticks) * config.tick_ms / 1000,
        )
        self._regrouping.use(self._peers)
        await self._peers.start(config.listen)
        driver.start(self._send, self._follow)

    async def stop(self) -> None:
        """Hand leadership over if we have it, then stop."""
        await self.step_aside()
        await self._close()

    async def step_aside(self) -> None:
        """See ``Engine.step_aside``."""
        if self._driver is not None:
            assert self._hand_over is not None
            await self._hand_over.step_aside()

    def propose(self, data: bytes, *, timeout_s: float) -> Coroutine[None, None, object]:
        """See ``Engine.propose``; raises EngineError too if too many proposals are waiting (surely not made)."""
        return self._running().propose(data, timeout_s=timeout_s)

    def submit(
        self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None
    ) -> Proposal:
        """See ``Engine.submit``."""
        return self._running().submit(items, done, timeout_s=timeout_s, foresee=foresee)

    def join(self, submitted: object, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """See ``Engine.join``."""
        assert isinstance(submitted, Proposal)
        return self._running().join(submitted, items, timeout_s=timeout_s)

    def read_barrier(self, *, timeout_s: float) -> Coroutine[None, None, Index]:
        """See ``Engine.read_barrier``."""
        return self._running().read_barrier(timeout_s=timeout_s)

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """See ``Engine.when_readable``."""
        self._running().when_readable(tell, timeout_s=timeout_s)

    def members(self) -> Sequence[MemberRecord]:
        """See ``Engine.members``."""
        if self._replica is None:
            raise Stopped("this member is not running")
        return self._replica.core.configuration.records()

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool = False, started: Collection[MemberId] | None
    ) -> None:
        """See ``Engine.change_members``."""
        self._running()
        assert self._regrouping is not None
        await self._regrouping.change_anywhere(changes, timeout_s=timeout_s, joint=joint, started=started)

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """See ``Engine.transfer_leadership``."""
        self._running()
        assert self._hand_over is not None
        await self._hand_over.give_to(to, timeout_s=timeout_s)

    @property
    def term(self) -> Term:
        """See ``Engine.term``."""
        return self._replica.core.term if self._replica is not None else Term(0)

    def status(self) -> MemberStatus:
        """See ``Engine.status``."""
        if self._replica is None or self._storage is None or self._driver is None:
            raise Stopped("this member is not running")
        core = self._replica.core
        # Also one that has just joined, and cannot know yet whether it may vote.
        learns = core.role is Role.FOLLOWER and core.member not in core.configuration.electorate and not core.removed
        return MemberStatus(
            member=core.member,
            leader=core.leader,
            role="learner" if learns else core.role.value,
            term=core.term,
            commit_index=core.log.committed,
            applied_index=self._driver.applied,
            log_bytes=self._storage.log_bytes,
            election_timeout_s=core.patience.ticks * self._config.tick_ms / 1000,
            tick_s=self._config.tick_ms / 1000,
            silences=tuple(core.patience.counts),
        )

    def trace(self, after: int) -> TracePage | None:
        """See ``Engine.trace``."""
        return None if self._trace is None else self._trace.look(after, applied=self.status().applied_index)

    def _send(self, messages: Sequence[AnyMessage]) -> None:
        assert self._peers is not None
        if self._trace is not None and self._trace.on and messages:
            self._trace.sent(messages)
        self._peers.send(messages)

    def _receive(self, messages: Sequence[AnyMessage]) -> None:
        if self._trace is not None and self._trace.on:
            self._trace.received(messages)
        if self._driver is not None:
            self._driver.receive(messages)

    def _running(self) -> Driver:
        if self._driver is None:
            raise Stopped("this member is not running")
        return self._driver

    async def _identify(self, directory: OsDirectory) -> Identity:
        config = self._config
        if not config.joins:
            return await founder(
                directory,
                cluster=config.cluster,
                member=config.member,
                name=config.name,
                members=config.members,
                tls=config.tls,
            )
        others = [url for member, url in config.members.items() if member != config.member]
        return await joiner(
            directory,
            cluster=config.cluster,
            own_url=config.members[config.member],
            name=config.name,
            others=others,
            tls=config.tls,
        )

    def _founders(self, identity: Identity) -> Urls:
        if identity.founders is not None:
            return identity.founders
        return {member: (url,) for member, url in self._config.members.items()}

    def _follow(self, agreed: Step) -> None:
        """The group has changed."""
        assert self._peers is not None
        assert self._replica is not None
        self._peers.follow(agreed.configuration)
        if self._replica.core.removed:
            self._be_removed("the log says so")

    def _be_removed(self, told: str) -> None:
        if self._removal is None:
            self._removal = asyncio.create_task(self._end_removed(told))

    async def _end_removed(self, told: str) -> None:
        assert self._driver is not None
        assert self._directory is not None
        assert self._identity is not None
        log.warning("this member was removed from its group member=%x reason=%s", self._identity.member, told)
        gone = msgspec.structs.replace(self._identity, removed=True)
        try:
            await asyncio.to_thread(save_identity, self._directory, gone)
        except Exception as exc:  # noqa: BLE001 - the disk's fault or ours: either way this member has to end
            self._driver.fail(exc)
            return
        await asyncio.sleep(LINGER_S)
        self._driver.fail(Removed(f"member {self._identity.member:x} was removed from its group"))

    async def _close(self) -> None:
        if self._removal is not None:
            self._removal.cancel()
            await asyncio.gather(self._removal, return_exceptions=True)
        if self._driver is not None:
            self._driver.halt()
        if self._peers is not None:
            await self._peers.stop()
            self._peers = None
        if self._driver is not None:
            await self._driver.stop()
            self._driver = None
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        if self._directory is not None:
            self._directory.close()
            self._directory = None
