"""The simulation has teeth: break one rule of the algorithm, and some seed shows it.

Each mutation is a mistake that a reader of the paper could make. A rule that could be broken without any seed noticing
would be a rule that nothing guards. The one rule that chance does not hit often enough, commitment by the leader's own
term (figure 3.7 of the thesis), has a directed history in tests/unit/raft_store/raft/test_figure_3_7.py.
"""

from collections.abc import Callable

import pytest

from raft_store.disk.directory import DiskError
from raft_store.engine import Index
from raft_store.raft import messages as m
from raft_store.raft.core import Core, Role
from raft_store.raft.log import Log
from raft_store.raft.proposals import Arrivals, Origin
from raft_store.raft.quorum import joint_commit_index
from raft_store.simulation.disk import SimulatedFile
from raft_store.simulation.world import World

MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}


def mutation(break_rule):
    MUTATIONS[break_rule.__name__] = break_rule
    return break_rule


@mutation
def sync_does_nothing(patch):
    """The disk says "synced" and keeps nothing."""
    patch.setattr(SimulatedFile, "sync", lambda self: None)


@mutation
def promises_leave_before_the_disk_is_done(patch):
    """Votes and confirmations overtake the sync that they rely on (thesis 3.8)."""
    send = Core._send

    def promise(self, message):
        # To ourselves still through the disk: a core does not step itself.
        self._held.append(message) if message.to == self.member else send(self, message)

    patch.setattr(Core, "_promise", promise)


@mutation
def leader_counts_itself_before_its_sync(patch):
    def advance(self):
        matched = {peer: progress.matched for peer, progress in self._progress.items()}
        matched[self.member] = self.log.last_index
        index = Index(joint_commit_index(matched, self.configuration.halves))
        if index > self.log.committed and self.log.term(index) == self.term:
            self.log.commit_to(index)

    patch.setattr(Core, "_advance_commit", advance)


@mutation
def votes_twice_in_a_term(patch):
    original = Core._on_vote_request

    def forgetful(self, request):
        if not request.pre and self.role is Role.FOLLOWER:
            self.vote = m.NOBODY
        original(self, request)

    patch.setattr(Core, "_on_vote_request", forgetful)


@mutation
def votes_for_candidates_that_lack_entries(patch):
    """The election restriction (thesis 3.6.1) is gone."""
    patch.setattr(Log, "up_to_date", lambda self, **_: True)


@mutation
def cuts_the_log_although_it_agrees(patch):
    """A follower takes every append as the end of the log: an old one, late, removes what came after it."""

    def merge(self, entries):
        if entries and entries[0].index > self.base.index:
            if self.term(entries[0].index) is not None and entries[0].index > self.committed:
                self._cut(entries[0].index)
            if entries[0].index == self.last_index + 1:
                self.append(entries)

    patch.setattr(Log, "merge", merge)


@mutation
def accepts_appends_without_checking_what_is_before(patch):
    """The consistency check (thesis 3.5) compares nothing."""
    original = Core._on_append

    def trusting(self, append):
        if self.log.base.index <= append.prev_index <= self.log.last_index:
            here = self.log.term(append.prev_index)
            append = m.Append(
                append.sender,
                append.to,
                append.term,
                prev_index=append.prev_index,
                prev_term=here,
                entries=append.entries,
                commit=append.commit,
            )
        original(self, append)

    patch.setattr(Core, "_on_append", trusting)


@mutation
def reads_without_a_quorum(patch):
    """A leader answers reads at once: it may have been deposed without knowing (thesis 6.4)."""

    def answer(self):
        for question, index in self._reads.confirm(self._reads.newest):
            if question.asker == self.member:
                self._answers.append(m.ReadState(question.session, question.number, index))

    patch.setattr(Core, "_answer_reads", answer)


@mutation
def reads_before_an_entry_of_its_term_is_committed(patch):
    """A new leader's commit mark may be behind (thesis 6.4, step 1)."""

    def begin(self):
        if self._reads.waiting:
            self._reads.begin(self.log.committed)
            self._send_heartbeats()
            self._answer_reads()

    patch.setattr(Core, "_begin_read_round", begin)


@mutation
def readers_do_not_wait_for_the_machine(patch):
    from raft_store.raft.reads import Readers

    original = Readers.release
    patch.setattr(Readers, "release", lambda self, applied: original(self, Index(1 << 60)))


@mutation
def leader_takes_a_repeated_forward_twice(patch):
    def accept(self, term, session, first, entries):
        del term, session
        return entries, first + len(entries) - 1

    patch.setattr(Arrivals, "accept", accept)


@mutation
def leader_takes_forwards_of_other_terms(patch):
    """A forward that straggled into another leader's term is appended there, and proposed again too."""
    from raft_store.raft.replica import Replica

    original = Replica.step

    def step(self, message):
        if isinstance(message, m.Forward) and self.core.may_append and message.term < self.core.term:
            self.core.append(message.proposals)
            return
        original(self, message)

    patch.setattr(Replica, "step", step)


@mutation
def origin_proposes_again_without_proof(patch):
    """A change of term is taken for the death of what is in flight."""
    original = Origin._flight

    def flight(self, term):
        self._bury_before(term)
        return original(self, term)

    patch.setattr(Origin, "_flight", flight)


@mutation
def restarted_origin_counts_anew_under_its_old_name(patch):
    from raft_store.raft.replica import Replica

    original = Replica.__init__
    patch.setattr(Replica, "__init__", lambda self, core, *, session: original(self, core, session=core.member))


@mutation
def snapshot_is_trusted_to_be_on_disk_at_once(patch):
    """A member answers for a snapshot before the disk has it, and forgets to put it there."""
    from raft_store.disk.storage import Storage

    patch.setattr(Storage, "write", lambda self, save: self._wal.write(save))


@mutation
def snapshot_takes_its_place_before_it_is_synced(patch):
    from raft_store.disk.snapshot import GrowingSnapshot

    patch.setattr(GrowingSnapshot, "finish", lambda self, name: self._directory.rename(self._name, name))


def first_seed_that_notices(limit: int) -> int | None:
    for seed in range(1, limit):
        try:
            world = World(seed, members=5 if seed % 4 == 0 else 3)
            world.run(duration_ms=6000, proposals=150, reads=60)
            world.heal_and_settle()
        except (AssertionError, DiskError):  # a broken promise, an invariant of the core, an unreadable log
            return seed
    return None


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(name, monkeypatch):
    MUTATIONS[name](monkeypatch)
    assert first_seed_that_notices(400) is not None
