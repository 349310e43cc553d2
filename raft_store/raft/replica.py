"""One member without its I/O: the core, the proposals made here, and the readers waiting here.

Real drivers and the simulation run exactly this; see ``core`` for the driver's duties.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from raft_store.engine import Change, ChangeKind, Entry, Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.core import Core, Role
from raft_store.raft.messages import NOBODY
from raft_store.raft.proposals import Arrivals, Batch, Origin, Proposal
from raft_store.raft.reads import Readers


class Work(msgspec.Struct, frozen=True):
    """What is to be done now, in this order; empty parts want nothing."""

    messages: Sequence[m.AnyMessage]  # send
    save: m.Save | None  # begin; call ``Replica.saved`` when it is synced
    restore: m.Snapshot | None  # replace the machine's state by this one
    committed: Sequence[Entry]  # apply; one a proposal, with the proposer's bytes; a batch's have the same index
    settled: Sequence[tuple[int, Proposal]]  # (place in ``committed``, whose results those from there on are)
    lost: Sequence[Proposal]  # nobody will ever know
    readers: Sequence[tuple[object, Index]]  # after that may read: (owner, the index it waited for)
    changes: Sequence[tuple[object, bool | None]] = ()  # (owner, whether the group was changed; None: nobody knows)


class _OpenChange(msgspec.Struct, frozen=True):
    """A change of the group that this member put into its log as the leader."""

    index: Index
    term: Term
    owner: object
    grows: bool  # by one member that may not run yet: nobody has to wait for it


class Replica:
    """Takes events, answers with ``Work``; ``session`` is random and new at every start."""

    def __init__(self, core: Core, *, session: int) -> None:
        self.core = core
        self.applied: Index = core.log.applied  # by the machine, once the work handed out is done
        self._session = session
        self._origin = Origin(session)
        self._arrivals = Arrivals()
        self._readers = Readers()
        self._outbox: list[m.AnyMessage] = []
        self._changes: list[_OpenChange] = []
        self.keeps_waiting = False  # the driver's: proposals wait, for others to share their entry

    def tick(self) -> None:
        """Let one unit of time pass."""
        self.core.tick()
        self._origin.tick()
        self._readers.tick()

    def pass_ticks(self, count: int) -> None:
        """Do what ``count`` times ``tick`` does, for less."""
        if self._origin.open or self._readers.open:
            for _ in range(count):
                self.tick()
        else:
            self.core.pass_ticks(count)  # nothing here waits, and could be repeated

    def excuse(self, ticks: int) -> None:
        """See ``Core.excuse``."""
        self.core.excuse(ticks)

    def ended(self, peer: MemberId) -> None:
        """See ``Core.ended``."""
        self.core.ended(peer)

    @property
    def quiet_ticks(self) -> int:
        """See ``Core.quiet_ticks``; 1 while anything waits here that a tick may repeat."""
        return 1 if self._origin.open or self._readers.open else self.core.quiet_ticks

    @property
    def sole_batch(self) -> Batch:
        """As the leader: the proposals that share the only entry that is not applied; none if there are others."""
        core = self.core
        log = core.log
        if core.role is not Role.LEADER or log.last_index != log.applied + 1:
            return ()
        return self._origin.sole_batch(core.term)

    def propose(self, data: bytes, owner: object) -> Proposal:
        """Take a proposal; it comes back in ``Work.settled`` or ``Work.lost``."""
        return self._origin.submit((data,), owner, len(data))

    def propose_together(self, items: Sequence[bytes], owner: object, size_bytes: int) -> Proposal:
        """Take proposals of one owner that share an entry, whatever its size, and come back as one.

        size_bytes: of all items.
        """
        return self._origin.submit(items, owner, size_bytes)

    def propose_change(
        self,
        changes: Sequence[Change],
        owner: object,
        *,
        joint: bool = False,
        started: AbstractSet[MemberId] | None = None,
    ) -> Index:
        """As the leader, begin to change the group; return the entry's index.

        The owner comes back in ``Work.changes`` when the change is over. See ``Changing.change``; raises ChangeRefused.
        """
        index = self.core.change(changes, joint=joint, started=started)
        grows = not joint and all(change.kind is ChangeKind.ADD for change in changes)
        self._changes.append(_OpenChange(index, self.core.term, owner, grows=grows))
        return index

    def read(self, owner: object) -> None:
        """Take a reader; it comes back in ``Work.readers``."""
        self._readers.add(owner)

    def forget_readers(self, gone: Callable[[object], bool]) -> None:
        """Let go of readers that wait no more."""
        self._readers.forget(gone)

    def step(self, message: m.AnyMessage) -> None:
        """Take a message from another member."""
        if type(message) is m.Forward:
            if self.core.observe(message):
                self._take_forward(message)
        elif type(message) is m.ForwardReply:
            if self.core.observe(message) and message.session == self._session:
                self._origin.confirmed(message.term, message.accepted)
        else:
            self.core.step(message)

    def saved(self, save: m.Save) -> None:
        """The disk has synced ``save``."""
        self.core.saved(save)

    def ready(self) -> Work | None:
        """Return what is to be done now; None: nothing until the next event."""
        # A leader's proposals are in its log, or wait; another member may have to repeat what it has sent.
        origin = self._origin
        if not self.keeps_waiting and (origin.waiting or (self.core.role is not Role.LEADER and origin.open)):
            self._make_proposals()
        if self._readers.waiting or self._readers.asked:
            self._ask()
        ready = self.core.ready()
        changes = self._end_changes() if self._changes else ()
        if ready is None:
            readers = self._release_readers() if self._readers.answers else ()
            if not (self._outbox or readers or changes):
                return None
            outbox, self._outbox = self._outbox, []
            return Work(outbox, None, None, (), (), (), readers, changes)
        outbox, self._outbox = self._outbox, []
        messages = [*outbox, *ready.messages] if outbox else ready.messages
        lost: Sequence[Proposal] = ()
        if ready.restore is not None:
            self.applied = ready.restore.mark.index
            lost = self._origin.restored(ready.restore.mark.term)
        committed, settled = self._unwrap(ready.committed) if ready.committed else ((), ())
        for answer in ready.reads:
            if answer.session == self._session:
                self._readers.answered(answer.number, answer.index)
        readers = self._release_readers() if self._readers.answers else ()
        return Work(messages, ready.save, ready.restore, committed, settled, lost, readers, changes)

    def _release_readers(self) -> Sequence[tuple[object, Index]]:
        # While the machine is being restored it has not got as far as ``applied`` yet.
        return () if self.core.holds_back else self._readers.release(self.applied)

    def _end_changes(self) -> Sequence[tuple[object, bool | None]]:
        """Return whose change is over, one way or the other: sealed, or replaced by another leader."""
        ended: list[tuple[object, bool | None]] = []
        still_open: list[_OpenChange] = []
        log = self.core.log
        for change in self._changes:
            term = log.term(change.index)
            if change.index > log.committed:
                still_open.append(change)
            elif term is None or term != change.term:
                ended.append((change.owner, None if term is None else False))
            elif change.grows or log.step.sealed:
                ended.append((change.owner, True))
            else:
                still_open.append(change)
        self._changes = still_open
        return ended

    def _unwrap(self, entries: Sequence[Entry]) -> tuple[list[Entry], list[tuple[int, Proposal]]]:
        """Return the entries as the machine sees them, and which of them settle proposals made here."""
        committed: list[Entry] = []
        settled: list[tuple[int, Proposal]] = []
        applied = self._origin.applied
        for entry in entries:
            proposed, ours = applied(entry)
            place = len(committed)
            for proposal in ours:
                settled.append((place, proposal))
                place += len(proposal.items)
            index, term = entry.index, entry.term
            committed.extend([Entry(index, term, data) for data in proposed])
        if committed:
            self.applied = committed[-1].index
        return committed, settled

    def _make_proposals(self) -> None:
        core = self.core
        if core.role is Role.LEADER:
            if core.may_append:
                core.append(self._origin.embark(core.term))
        elif core.leader not in (NOBODY, core.member):
            for first, entries in self._origin.forward(core.term):
                self._outbox.append(
                    m.Forward(
                        core.member, core.leader, core.term, session=self._session, first=first, proposals=entries
                    )
                )

    def _take_forward(self, forward: m.Forward) -> None:
        """Put another member's proposals into our log; without an answer it sends them again."""
        core = self.core
        if not core.may_append:
            return
        fresh, accepted = self._arrivals.accept(core.term, forward.session, forward.first, forward.proposals)
        if fresh:
            core.append(fresh)
            core.await_commit(forward.sender, core.log.last_index)  # it answers its callers when it hears of that
        self._outbox.append(
            m.ForwardReply(core.member, forward.sender, core.term, session=forward.session, accepted=accepted)
        )

    def _ask(self) -> None:
        core = self.core
        leader: MemberId = core.leader
        if leader == NOBODY or (number := self._readers.ask(core.term)) is None:
            return
        if leader == core.member:
            core.read(self._session, number)
        else:
            self._outbox.append(m.ReadRequest(core.member, leader, core.term, session=self._session, number=number))
