"""What every chapter of the core shares: a member's state, what it sends and promises, its role, its group."""

import logging
from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec

from raft_store.engine import Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.log import Log
from raft_store.raft.membership import Configuration
from raft_store.raft.messages import NOBODY
from raft_store.raft.patience import Patience


class Role(Enum):
    """What a member is in its term."""

    FOLLOWER = "follower"
    PRECANDIDATE = "precandidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Chance(Protocol):
    """Where a core's randomness comes from: ``random.Random`` does."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 up to, but not including, ``stop``."""


class CoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One member's fixed facts; ticks are the driver's, whatever they last. Who else is there, the log says."""

    member: MemberId
    heartbeat_ticks: int = 3
    election_ticks: int = 13
    election_stretch: int = 1  # the time-out adapts to delays, up to so many times itself (see ``patience``); 1: never
    max_append_bytes: int = 1 << 20  # of entries in one append; a larger entry travels alone
    max_uncommitted: int = 100_000  # entries; beyond, a leader takes no proposals until the group has caught up
    max_uncommitted_bytes: int = 128 << 20  # the same of what it has put into its log in its term
    max_apply_entries: int = 64  # handed to the machine at once ...
    max_apply_bytes: int = 128 << 10  # ... but each may hold many proposals: what is handed over must not take long
    snapshot_patience_ticks: int = 500  # a snapshot that did not arrive in this time is sent again
    lease_ms: float = 0  # reads rest on clocks for so long (see ``reads``); 0: they never do


class State:
    """A member between two events."""

    def __init__(
        self, config: CoreConfig, *, hard_state: m.HardState, log: Log, random: Chance, logger: logging.Logger
    ) -> None:
        assert 0 < config.heartbeat_ticks < config.election_ticks, config
        assert config.election_stretch >= 1, config
        self.config = config
        self.member = config.member
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.snapshot = log.base  # the newest one on our disk; never behind log.base
        self.agreed = log.step  # the group's members as far as we know them to be agreed on
        self._random = random
        self._logger = logger
        self._saved_state = hard_state
        self._saving: m.Save | None = None
        self._incoming: m.Snapshot | None = None  # from the leader, not given to the disk yet
        self._restore: m.Snapshot | None = None  # on disk, not given to the machine yet
        self._outbox: list[m.AnyMessage] = []
        self._held: list[m.AnyMessage] = []  # leave after the next save
        self._released: list[m.AnyMessage] = []  # leave after the save under way
        self.holds_back = False  # the driver's: the machine is being restored, and takes no entries meanwhile
        self._answers: list[m.ReadState] = []
        self._votes: dict[MemberId, bool] = {}
        # A lease may rest on what we promised in an earlier life.
        self._deaf_ticks = config.election_ticks if config.lease_ms and hard_state.term else 0
        self._since_leader = 0  # ticks since we heard from it; as the leader: since the last quorum check
        self.patience = Patience(
            heartbeat_ticks=config.heartbeat_ticks,
            floor_ticks=config.election_ticks,
            ceiling_ticks=config.election_ticks * config.election_stretch,
        )
        self._spread = self._new_spread()
        self._excuses = config.heartbeat_ticks  # ticks of a leader's silence that our own standing still may explain
        self._failed = 0  # campaigns that we lost, or that came to nothing, since there was a leader
        self._forced = False  # our campaign is our old leader's wish
        self._orphaned = False  # our leader's process has ended, as far as we can tell; or that is why we campaign

    # -- the group ---------------------------------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """The members as far as we know them to be agreed on: this is in effect."""
        return self.agreed.configuration

    @property
    def peers(self) -> Sequence[MemberId]:
        """The other members, learners among them, in the order of their ids."""
        return sorted(self.configuration.members - {self.member})

    @property
    def gone_for_good(self) -> frozenset[MemberId]:
        """Whoever was removed and is needed no more: their removal is sealed."""
        if self.agreed.sealed:
            return self.agreed.configuration.removed
        before = self.log.configuration_before
        return frozenset() if before is None else before.removed

    @property
    def removed(self) -> bool:
        """Whether the group goes on without us, for ever, and needs us no more."""
        return self.member in self.gone_for_good

    def _commit_to(self, index: Index) -> bool:
        """Raise the commit mark; return whether another configuration takes effect by it, or is sealed."""
        self.log.commit_to(index)
        step = self.log.step
        if step is self.agreed or step == self.agreed:
            return False
        before, self.agreed = self.agreed, step
        if (now := self.configuration) != before.configuration:
            self._logger.info(
                "group changed member=%d index=%d voters=%s outgoing=%s learners=%s",
                self.member,
                self.agreed.index,
                sorted(now.voters),
                sorted(now.outgoing),
                sorted(now.learners),
            )
        if self.removed:
            self._logger.info("was removed from the group member=%d index=%d", self.member, self.agreed.index)
        return True

    # -- sending -----------------------------------------------------------------------------------------------------

    def _send(self, message: m.AnyMessage) -> None:
        self._outbox.append(message)

    def _promise(self, message: m.AnyMessage) -> None:
        """Send a message that relies on what the disk may not have yet."""
        self._held.append(message)

    # -- roles -------------------------------------------------------------------------------------------------------

    def _hears_leader(self) -> bool:
        if self._deaf_ticks > 0:
            return True
        return self.leader != NOBODY and not self._orphaned and self._since_leader < self.patience.ticks

    @property
    def _campaign_ticks(self) -> int:
        """Return after how many ticks without a leader's word we campaign: one to two election time-outs (3.4).

        Votes may need longer than a campaign lasts, where all messages are slow: so those that fail become longer.
        """
        floor = self.config.election_ticks
        ticks = min(self.patience.ticks << max(0, self._failed - 1), floor * self.config.election_stretch)
        return ticks + self._spread * ticks // floor

    def _new_spread(self) -> int:
        """Return a part of an election time-out, in ticks of the shortest one, so that few campaign at once."""
        return self._random.randrange(self.config.election_ticks)

    def _become(self, role: Role, term: Term, leader: MemberId) -> None:
        if term != self.term:
            assert term > self.term, (term, self.term)
            self.term, self.vote = term, NOBODY
        if self.config.lease_ms and self.role is Role.FOLLOWER and self.leader not in (NOBODY, leader):
            # Its lease may rest on our silence, whatever term anybody else has come to.
            self._deaf_ticks = max(self._deaf_ticks, self.config.election_ticks - self._since_leader)
        if leader != NOBODY:
            self._failed = 0
        elif self.role is Role.CANDIDATE:
            self._failed += 1
        self.role, self.leader = role, leader
        self._since_leader = 0
        self._orphaned = False
        self._spread = self._new_spread()
        self._excuses = self.config.heartbeat_ticks
        self._votes = {}

    def _become_follower(self, term: Term, leader: MemberId) -> None:
        if self.role is Role.LEADER:
            self._logger.info("stepped down member=%d term=%d new_term=%d", self.member, self.term, term)
        if leader not in (NOBODY, self.leader):
            self._logger.info("follows member=%d leader=%d term=%d", self.member, leader, term)
        self._become(Role.FOLLOWER, term, leader)
