"""The seam between replication and what is replicated.

An engine takes opaque proposals (bytes), agrees with its peers on their order, and hands each one, once and in that
order, to this member's state machine. The native engine does so by Raft with a synced log; the raftos engine by the
library of that name, which keeps fewer promises (``docs/raftos.md``). Nothing above this seam knows which one runs.
"""

from collections.abc import Iterator, Sequence
from typing import NewType, Protocol

import msgspec

MemberId = NewType("MemberId", int)  # 64-bit, never 0: 0 means "no member", as on etcd's wire
Term = NewType("Term", int)
Index = NewType("Index", int)


class EngineError(Exception):
    """The world failed; the caller may try again elsewhere or later."""


class NoLeader(EngineError):
    """No leader was known within the time allowed; the proposal was not made."""


class ProposalTimedOut(EngineError):
    """Nobody knows whether the proposal took effect, now or later."""


class Stopped(EngineError):
    """The member is shutting down."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One committed entry, as the state machine receives it."""

    index: Index
    term: Term
    data: bytes  # empty: a leader's first entry of its term, or a membership change


class StateMachine(Protocol):
    """What an engine replicates. Called from one task only; deterministic: no clock, no randomness, no I/O."""

    def apply(self, entries: Sequence[Entry]) -> Sequence[object]:
        """Apply ``entries`` in order; return one result an entry (handed to whoever proposed it here)."""

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


class Engine(Protocol):
    """Replicates proposals; every method may be called from any task of the member's event loop."""

    async def start(self, machine: StateMachine) -> None:
        """Recover from disk, replay into ``machine`` and join the group; returns once proposals may be made."""

    async def stop(self) -> None:
        """Stop every task; what was acknowledged is on disk already."""

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """Return ``machine.apply``'s result for ``data`` once it is committed and applied on this member.

        Any member may be asked; a follower forwards to the leader. Waits for a leader within ``timeout_s``.
        Raises NoLeader (surely not made), ProposalTimedOut (unknown), Stopped.
        """

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """Return once this member has applied all that was committed anywhere when the call was made.

        A read of the machine afterwards is linearizable. Raises NoLeader, ProposalTimedOut, Stopped.
        """

    def status(self) -> MemberStatus:
        """Return this member's view; never waits."""

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """Make ``to`` the leader. Raises NoLeader, ProposalTimedOut; EngineError if we do not lead."""
