"""The seam between replication and what is replicated.

An engine takes opaque proposals (bytes), agrees with its peers on their order, and hands each one, once and in that
order, to this member's state machine. The native engine does so by Raft with a synced log; the raftos engine by the
library of that name, which keeps fewer promises (``docs/raftos.md``). Nothing above this seam knows which one runs.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum, IntEnum
from typing import ClassVar, Literal, NewType, Protocol

import msgspec

MemberId = NewType("MemberId", int)  # 64-bit, never 0: 0 means "no member", as on etcd's wire
Term = NewType("Term", int)
Index = NewType("Index", int)


class EngineError(Exception):
    """The world failed; the caller may try again elsewhere or later."""


class NoLeader(EngineError):
    """No leader was known within the time allowed; the proposal was not made."""


class Overloaded(EngineError):
    """More proposals wait at this member than it keeps; this one was not made."""


class ProposalTimedOut(EngineError):
    """Nobody knows whether the proposal took effect, now or later."""


class Stopped(EngineError):
    """The member is shutting down."""


class Refusal(Enum):
    """Why a group will not be changed as somebody wished."""

    MEMBER_EXISTS = "the member belongs to the group already"
    MEMBER_UNKNOWN = "the member does not belong to the group"
    MEMBER_REMOVED = "the member was removed; its id never comes back"
    URL_TAKEN = "another member has that address"
    NOT_A_LEARNER = "only a learner can be promoted"
    NOT_A_VOTER = "only a voter can be demoted"
    LEARNER_BEHIND = "the learner has not caught up with the leader"
    TOO_MANY_LEARNERS = "the group has as many learners as it may have"
    LAST_VOTER = "nobody would be left to vote"
    TOO_FEW_STARTED = "too few members have started for the group to stay able to agree"
    UNHEALTHY = "too few members answer for the group to stay able to agree"
    CHANGE_UNDER_WAY = "the group has not finished its last change; ask again"
    NOT_LEADER = "only a leader can change the group; ask again"
    FIXED = "this engine cannot change its group"


class ChangeRefused(EngineError):
    """The group stays as it is: the change was surely not made."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Removed(EngineError):
    """The group has removed this member, which has to end."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One committed entry, as the state machine receives it."""

    index: Index
    term: Term
    data: bytes  # for a machine empty: a leader's first entry of its term, or a membership change
    reconfigures: bool = False  # in a log: ``data`` is the group's next configuration


class ChangeKind(IntEnum):
    """What happens to a member."""

    ADD = 1  # as a voter
    ADD_LEARNER = 2
    PROMOTE = 3  # a learner becomes a voter
    DEMOTE = 4  # a voter becomes a learner
    REMOVE = 5  # for ever: an id is used once
    MOVE = 6  # other addresses


class Change(msgspec.Struct, frozen=True):
    """One wish; ``peer_urls``: where the others reach the member, for ADD, ADD_LEARNER and MOVE."""

    kind: ChangeKind
    member: MemberId
    peer_urls: tuple[str, ...] = ()


class MemberRecord(msgspec.Struct, frozen=True):
    """One member of the group as it is now."""

    member: MemberId
    peer_urls: tuple[str, ...]
    learner: bool


class StateMachine(Protocol):
    """What an engine replicates. Called from one task only; deterministic: no clock, no randomness, no I/O."""

    def apply(self, entries: Sequence[Entry], *, wanted: bool = True) -> Sequence[object]:
        """Apply ``entries`` in order; return one result an entry (handed to whoever proposed it here).

        wanted: False if nobody here proposed any of them, as nearly always on a follower: nobody looks at results then.
        """

    def foresee(self, items: Sequence[bytes]) -> Sequence[object]:
        """Return what ``apply`` would answer if these were applied next, changing nothing; none if that is not known.

        They are told to their proposers on the strength of this: whatever it returns has to be what ``apply`` will.
        """

    def snapshot(self) -> Iterator[bytes]:
        """Return the whole state after the last applied entry, in chunks.

        The state is that of the call, however much is applied before the last chunk is drawn. Drawing one takes a
        millisecond or so; an empty one carries nothing, and is an occasion to do something else.
        """

    def begin_restore(self) -> "Restoration":
        """Begin to replace the whole state by a snapshot's."""


class Restoration(Protocol):
    """A snapshot on its way into a machine. Each chunk takes a millisecond or so."""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk that a ``StateMachine.snapshot`` gave, in the same order."""

    def finish(self) -> None:
        """All chunks were fed: replace the state."""


class MemberStatus(msgspec.Struct, frozen=True):
    """What this member knows of the group right now."""

    member: MemberId
    leader: MemberId  # 0: none known
    role: str  # "leader", "follower", "precandidate", "candidate", "learner"
    term: Term
    commit_index: Index
    applied_index: Index
    log_bytes: int
    election_timeout_s: float = 0.0  # for so long a leader may be silent now; 0: this engine does not say
    tick_s: float = 0.0
    silences: Sequence[int] = ()  # until a leader, or those it needs, spoke: how many lasted less than 1, 2, ... ticks


Done = Callable[[Sequence[object], EngineError | None], None]  # (what proposals came to, or why that is not known)
Foresee = Callable[[Sequence[object]], None]  # (what they will come to, if they take effect)


class TraceEvent(msgspec.Struct, frozen=True):
    """Something that a core said, heard or became."""

    LEADER: ClassVar[str] = "{leader}"  # stands in a text for the name of ``peer``, which a member does not know

    at_s: float  # by the clock of ``TracePage.now_s``
    kind: Literal["sent", "received", "became"]
    peer: str  # to or from whom, or whom it follows, in hexadecimal; empty: nobody
    text: str
    beat: bool = False


class TracePage(msgspec.Struct, frozen=True):
    """What happened since the last look."""

    member: str  # in hexadecimal
    now_s: float  # this member's monotonic clock
    next: int  # look from there the next time
    missed: int  # events that were forgotten since the last look
    applied: int  # index
    events: list[TraceEvent]


class Engine(Protocol):
    """Replicates proposals; every method may be called from any task of the member's event loop."""

    async def start(self, machine: StateMachine) -> None:
        """Recover from disk, replay into ``machine`` and join the group; returns once proposals may be made."""

    async def stop(self) -> None:
        """Stop every task; what was acknowledged is on disk already."""

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """Return ``machine.apply``'s result for ``data`` once it is committed and applied on this member.

        Any member may be asked; a follower forwards to the leader. Waits for a leader within ``timeout_s``.
        Raises NoLeader or Overloaded (surely not made), ProposalTimedOut (unknown), Stopped.
        """

    def submit(self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None) -> object:
        """Propose one thing or several, in their order and with one fate: all of them take effect, or none does.

        ``done`` is called with a result for each, or with what ``propose`` raises; maybe before this returns. It must
        not wait. Raises EngineError if nothing was proposed; then ``done`` is not called. What comes in one turn of the
        event loop travels together. Returns what ``join`` takes.

        ``foresee`` may be called before ``done``, so that what is to be said can be made ready; it must not be said
        before ``done`` is called, with the same results (the same object) if this is what they have come to.
        """

    def join(self, submitted: object, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """Propose more behind what ``submit`` returned, with the same fate, if that has not left yet.

        Its ``done`` hears of all of them, in one go. What was submitted in between comes after them. Returns False if
        it has left, or cannot take more: nothing was proposed then. Costs less than another ``submit``. Raises Stopped.
        """

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """Return once this member has applied all that was committed anywhere when the call was made.

        A read of the machine afterwards is linearizable. Raises NoLeader, ProposalTimedOut, Stopped.
        """

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """Call ``tell`` once, now or later, as soon as ``read_barrier`` would return (None) or raise.

        All who ask in the same turn of the loop share one barrier. Raises Stopped; ``tell`` is not called then.
        """

    @property
    def term(self) -> Term:
        """Return ``status().term``, at the price of a look: every answer carries it."""

    async def step_aside(self) -> None:
        """Hand leadership over if we have it, so that nobody misses us when we stop; gives up quickly, never raises."""

    def status(self) -> MemberStatus:
        """Return this member's view; never waits."""

    def trace(self, after: int) -> TracePage | None:
        """Return what this member said and heard from event ``after`` on (0: from now on); None: it cannot tell."""

    def members(self) -> Sequence[MemberRecord]:
        """Return the group as this member knows it, in the order of the ids; never waits."""

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool = False, started: Collection[MemberId] | None
    ) -> None:
        """Change the group; return once that is agreed on and this member knows it.

        joint: by joint consensus even if one step would do; several voters at once always are. started: the members
        that ever took part, to refuse what would leave too few of them; None: only what is impossible is refused.
        Raises ChangeRefused, NoLeader (surely not made), ProposalTimedOut (unknown), Stopped.
        """

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """Make ``to`` the leader. Raises NoLeader, ProposalTimedOut; EngineError if we do not lead."""
