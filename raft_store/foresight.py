"""What a leader's proposal will come to, known before a majority has it: then only the telling is left.

While the followers' disks work on an entry, its leader has nothing to do; when their word comes, somebody waits for
every microsecond of what is done then. What most writes come to is certain long before that: the next revision. So it
is worked out while nobody waits, and told as soon as the group has agreed, ahead of being applied in the same turn.
"""

from collections.abc import Sequence

import msgspec

from raft_store.engine import Index, StateMachine, Term
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Replica

MOST = 0.75  # of those who wait: if so many share an entry, there is little else to do until the group agrees


class Foreseen(msgspec.Struct, frozen=True):
    """What the entry at ``index`` will come to, if it is what ``term``'s leader, which we are, proposed there."""

    index: Index
    term: Term
    results: Sequence[object]  # of all
    shares: Sequence[tuple[Proposal, Sequence[object]]]  # of each proposal in it


class Foresight:
    """Looks ahead for one replica and its machine; whoever drives them asks what came true before it asks for work."""

    def __init__(self, replica: Replica, machine: StateMachine) -> None:
        self._replica = replica
        self._machine = machine
        self._looked_at = Index(0)
        self._seen: Foreseen | None = None
        self._told: Foreseen | None = None  # and not applied yet

    @property
    def owes(self) -> bool:
        """Whether something was told that is not applied yet: nobody may read the machine before."""
        return self._told is not None

    def look(self, waiting: int) -> Foreseen | None:
        """All is done that can be for now: return what may be made ready, if there is anything new.

        waiting: how many proposals are not answered yet. Where many of them are in no entry, nothing is foreseen: that
        would be work in the way of theirs.
        """
        log = self._replica.core.log
        last = log.last_index
        if last in (log.applied, self._looked_at) or not (batch := self._replica.sole_batch):
            return None
        self._looked_at = last
        items = batch[0].items if len(batch) == 1 else [data for proposal in batch for data in proposal.items]
        if len(items) < waiting * MOST:
            return None
        results = self._machine.foresee(items)
        if not results:
            return None
        self._seen = Foreseen(last, self._replica.core.term, results, _share(batch, results))
        return self._seen

    def come_true(self) -> Foreseen | None:
        """Return what was foreseen, once: the group has agreed to it, and it is the next thing to be applied."""
        seen = self._seen
        if seen is None:
            return None
        core = self._replica.core
        log = core.log
        if core.term == seen.term and (log.committed < seen.index or log.saved < seen.index):
            return None
        self._seen = None
        # In another term the entry may be another one. That it is applied already cannot be: it is told first.
        if core.term != seen.term or log.applied != seen.index - 1:
            return None
        self._told = seen
        return seen

    def check(self, results: Sequence[object]) -> None:
        """What was told is applied: assert that this is what it came to."""
        told, self._told = self._told, None
        if told is not None:
            assert results[: len(told.results)] == told.results, f"entry {told.index} was foretold otherwise"


def _share(batch: Sequence[Proposal], results: Sequence[object]) -> Sequence[tuple[Proposal, Sequence[object]]]:
    if len(batch) == 1:
        return ((batch[0], results),)
    shares, end = [], 0
    for proposal in batch:
        begin, end = end, end + len(proposal.items)
        shares.append((proposal, results[begin:end]))
    return shares
