"""The simulation has teeth: break one rule, and some seed shows it.

Each mutation is a mistake that somebody could make. A rule that could be broken without any seed noticing would be a
rule that nothing guards. Every mutation names the world that has to notice, within ``SEEDS`` seeds of it. Two that chance
does not hit often enough have a history of their own: commitment of an old term's entry by counting, and a joint
configuration that a snapshot ends.
"""

from collections import deque
from collections.abc import Callable

import msgspec
import pytest

from raft_store.disk import snapshot as snapshots
from raft_store.disk import storage, wal
from raft_store.engine import Index
from raft_store.foresight import Foresight
from raft_store.lease_keeper import LeaseKeeper
from raft_store.machine import Machine
from raft_store.mvcc import watch
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.notices import NO_WATCH, Progress
from raft_store.mvcc.requests import Done, LeaseExpire
from raft_store.mvcc.store import Change, Event, Store
from raft_store.mvcc.watch import Watcher, WatchHub, WatchStream
from raft_store.raft import messages as m
from raft_store.raft.core import Core, Role
from raft_store.raft.elections import Elections
from raft_store.raft.leading import Leading
from raft_store.raft.log import Log
from raft_store.raft.membership import Configuration, History, Step
from raft_store.raft.patience import Patience
from raft_store.raft.proposals import Arrivals, Origin
from raft_store.raft.quorum import joint_commit_index
from raft_store.raft.reads import Lease
from raft_store.raft.replica import Replica
from raft_store.raft.state import State
from raft_store.simulation.disk import SimulatedFile
from raft_store.simulation.host import Host
from raft_store.simulation.runs import KINDS, breach_of

SEEDS = 300

pytestmark = pytest.mark.timeout(900)  # of a machine that has other things to do

Patch = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, tuple[str, Patch]] = {}


def mutation(world):
    def note(break_rule):
        MUTATIONS[break_rule.__name__] = (world, break_rule)
        return break_rule

    return note


@mutation("raft")
def sync_does_nothing(patch):
    """The disk says "synced" and keeps nothing."""
    patch.setattr(SimulatedFile, "sync", lambda self: None)


@mutation("raft")
def promises_leave_before_the_disk_is_done(patch):
    """Votes and confirmations overtake the sync that they rely on (thesis 3.8)."""
    send = Core._send

    def promise(self, message):
        # To ourselves still through the disk: a core does not step itself.
        self._held.append(message) if message.to == self.member else send(self, message)

    patch.setattr(Core, "_promise", promise)


@mutation("raft")
def leader_counts_itself_before_its_sync(patch):
    def advance(self):
        matched = {peer: progress.matched for peer, progress in self._progress.items()}
        matched[self.member] = self.log.last_index
        index = Index(joint_commit_index(matched, self.configuration.halves))
        if index > self.log.committed and self.log.term(index) == self.term:
            self.log.commit_to(index)

    patch.setattr(Core, "_advance_commit", advance)


@mutation("raft")
def votes_twice_in_a_term(patch):
    original = Core._on_vote_request

    def forgetful(self, request):
        if not request.pre and self.role is Role.FOLLOWER:
            self.vote = m.NOBODY
        original(self, request)

    patch.setattr(Core, "_on_vote_request", forgetful)


@mutation("raft")
def votes_for_candidates_that_lack_entries(patch):
    """The election restriction (thesis 3.6.1) is gone."""
    patch.setattr(Log, "up_to_date", lambda self, **_: True)


@mutation("raft")
def cuts_the_log_although_it_agrees(patch):
    """A follower takes every append as the end of the log: an old one, late, removes what came after it."""

    def merge(self, entries):
        if entries and entries[0].index > self.base.index:
            if self.term(entries[0].index) is not None and entries[0].index > self.committed:
                self._cut(entries[0].index)
            if entries[0].index == self.last_index + 1:
                self.append(entries)

    patch.setattr(Log, "merge", merge)


@mutation("raft")
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


@mutation("raft")
def reads_without_a_quorum(patch):
    """A leader answers reads at once: it may have been deposed without knowing (thesis 6.4)."""

    def answer(self):
        for question, index in self._reads.confirm(self._reads.newest):
            if question.asker == self.member:
                self._answers.append(m.ReadState(question.session, question.number, index))

    patch.setattr(Core, "_answer_reads", answer)


@mutation("raft")
def reads_before_an_entry_of_its_term_is_committed(patch):
    """A new leader's commit mark may be behind (thesis 6.4, step 1)."""

    def begin(self):
        if self._reads.waiting:
            self._reads.begin(self.log.committed)
            self._send_heartbeats()
            self._answer_reads()

    patch.setattr(Core, "_begin_read_round", begin)


@mutation("raft")
def readers_do_not_wait_for_the_machine(patch):
    from raft_store.raft.reads import Readers

    original = Readers.release
    patch.setattr(Readers, "release", lambda self, applied: original(self, Index(1 << 60)))


@mutation("raft")
def leader_takes_a_repeated_forward_twice(patch):
    def accept(self, term, session, first, entries):
        del term, session
        return entries, first + len(entries) - 1

    patch.setattr(Arrivals, "accept", accept)


@mutation("raft")
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


@mutation("raft")
def origin_proposes_again_without_proof(patch):
    """A change of term is taken for the death of what is in flight."""
    original = Origin._flight

    def flight(self, term):
        self._bury_before(term)
        return original(self, term)

    patch.setattr(Origin, "_flight", flight)


@mutation("raft")
def restarted_origin_counts_anew_under_its_old_name(patch):
    from raft_store.raft.replica import Replica

    original = Replica.__init__
    patch.setattr(Replica, "__init__", lambda self, core, *, session: original(self, core, session=core.member))


@mutation("raft")
def snapshot_is_trusted_to_be_on_disk_at_once(patch):
    """A member answers for a snapshot before the disk has it, and forgets to put it there."""
    from raft_store.disk.storage import Storage

    patch.setattr(Storage, "write", lambda self, save: self._wal.write(save))


@mutation("raft")
def snapshot_takes_its_place_before_it_is_synced(patch):
    from raft_store.disk.snapshot import GrowingSnapshot

    patch.setattr(GrowingSnapshot, "finish", lambda self, name: self._directory.rename(self._name, name))


@mutation("raft")
def learners_count(patch):
    """A learner's disk is as good as a voter's (thesis 4.2.1)."""

    def advance(self):
        matched = {peer: progress.matched for peer, progress in self._progress.items()}
        matched[self.member] = self.log.saved
        best = sorted((matched.get(member, 0) for member in self.configuration.members), reverse=True)
        index = Index(best[len(self.configuration.voters) // 2])
        if index > self.log.committed and self.log.term(index) == self.term and self._commit_to(index):
            self._regroup()

    patch.setattr(Core, "_advance_commit", advance)


@mutation("raft")
def only_the_new_voters_decide_in_a_joint_configuration(patch):
    """The old ones have to agree as well, until the step is over (thesis 4.3)."""
    patch.setattr(Configuration, "halves", property(lambda self: (self.voters,)))


@mutation("raft")
def a_change_is_made_before_the_last_one_is_over(patch):
    from raft_store.raft.changing import Changing

    patch.setattr(Changing, "_may_change", property(lambda self: self.transferee == m.NOBODY))


@mutation("raft")
def many_voters_change_in_one_step(patch):
    """Without joint consensus majorities need not overlap (thesis 4.1)."""
    from raft_store.raft import membership

    original = membership._enter
    patch.setattr(membership, "_enter", lambda before, after: membership.left(original(before, after)))


@mutation("raft")
def a_snapshot_forgets_the_group(patch):
    from raft_store.disk.snapshot import Framer
    from raft_store.raft.membership import NO_MEMBERS

    original = Framer.head
    patch.setattr(
        Framer,
        "head",
        lambda self, mark, **about: original(self, msgspec.structs.replace(mark, configuration=NO_MEMBERS), **about),
    )


@mutation("raft")
def vote_is_forgotten_on_restart(patch):
    original = storage.Storage.recover

    def recover(self, *founders):
        past = original(self, *founders)
        return msgspec.structs.replace(past, hard_state=m.HardState(past.hard_state.term, m.NOBODY))

    patch.setattr(storage.Storage, "recover", recover)


@mutation("raft")
def applies_before_commit(patch):
    """What is saved here is applied, whether the group has it or not."""

    def take(self, *, max_entries, max_bytes):
        end = Index(min(self.saved, self.applied + max_entries))
        if end <= self.applied:
            return []
        entries = self.slice(Index(self.applied + 1), max_bytes=max_bytes, last=end)
        self.applied = entries[-1].index
        return entries

    patch.setattr(Log, "take_committed", take)


@mutation("raft")
def tells_what_it_foresees_before_the_group_agrees(patch):
    def come_true(self):
        seen, self._seen = self._seen, None
        return seen

    patch.setattr(Foresight, "come_true", come_true)


@mutation("raft")
def tells_what_it_foresaw_in_another_term(patch):
    """The entry at that place may be another leader's."""

    def come_true(self):
        seen, log = self._seen, self._replica.core.log
        if seen is None or log.committed < seen.index:
            return None
        self._seen = None
        return seen

    patch.setattr(Foresight, "come_true", come_true)


@mutation("store")
def foresees_what_stands_behind_another_entry(patch):
    """What an entry comes to depends on all before it."""

    def sole_batch(self, term):
        flight = self._flights[-1] if self._flights else None
        return flight.batches[-1] if flight is not None and flight.term == term and flight.batches else ()

    patch.setattr(Origin, "sole_batch", sole_batch)
    patch.setattr(Replica, "sole_batch", property(lambda self: self._origin.sole_batch(self.core.term)))


@mutation("raft")
def torn_tail_is_taken_for_whole(patch):
    """A record counts although its checksum is wrong."""
    original = wal._read_record

    def read(content, offset, number):
        header = wal._read_header(content, offset)
        if header is None or (number is not None and header.number != number):
            return original(content, offset, number)
        begin = offset + wal._HEADER.size
        end = begin + header.length + len(wal._END)
        return wal._Record(header.number, content[begin : begin + header.length], end) if end <= len(content) else None

    patch.setattr(wal, "_read_record", read)


@mutation("raft")
def damage_in_the_middle_of_the_log_is_taken_for_its_end(patch):
    patch.setattr(wal, "_later_record", lambda content, offset, number: False)
    patch.setattr(wal, "_is_torn", lambda content, offset, sector_bytes: True)


@mutation("raft")
def damaged_snapshot_is_served(patch):
    class Trusting:
        def __getattr__(self, name):
            return getattr(snapshots_crc, name)

        @staticmethod
        def extend(crc, data):
            return 0

    snapshots_crc = snapshots.google_crc32c
    patch.setattr(snapshots, "google_crc32c", Trusting())


@mutation("raft")
def entries_are_applied_before_the_snapshot_that_they_follow(patch):
    """A restore takes time; what comes meanwhile is applied to the old state."""
    original = Host._do

    def do(self, work):
        original(self, work)
        self.replica.core.holds_back = False
        if work.committed and work.restore is None and self._behind:
            self._apply(work)

    patch.setattr(Host, "_do", do)


@mutation("clock")
def a_leader_answers_reads_after_its_lease(patch):
    patch.setattr(Lease, "holds", lambda self, now_ms: self._until_ms > 0 and not self._given_up)


@mutation("clock")
def a_lease_counts_from_the_answer(patch):
    """The voters' silence began when they heard the heartbeat, which may be long ago."""
    original = Leading._answer_reads

    def answer_reads(self):
        self._lease._sent = deque((round_, self.now_ms) for round_, _ in self._lease._sent)
        original(self)

    patch.setattr(Leading, "_answer_reads", answer_reads)


@mutation("clock")
def a_voter_forgets_the_lease_that_rests_on_it(patch):
    """A candidate of a term that it knows of already gets its vote at once."""
    patch.setattr(State, "_hears_leader", lambda self: False)
    original = Elections._on_vote_request

    def on_vote_request(self, request):
        self._deaf_ticks = 0
        original(self, request)

    patch.setattr(Elections, "_on_vote_request", on_vote_request)


@mutation("clock")
def a_voter_that_restarts_forgets_the_lease_that_rests_on_it(patch):
    original = State.__init__

    def init(self, *args, **options):
        original(self, *args, **options)
        self._deaf_ticks = 0

    patch.setattr(State, "__init__", init)


@mutation("clock")
def a_voter_whose_leader_seems_to_have_ended_forgets_the_lease_that_rests_on_it(patch):
    """A connection that is refused proves nothing: a wall may have done that, and the leader goes on by its clock."""

    def ended(self, peer):
        if peer == self.leader and self.role is Role.FOLLOWER:
            self._orphaned = True
            self._deaf_ticks = 0
            self._since_leader = self._campaign_ticks

    patch.setattr(Elections, "ended", ended)


@mutation("clock")
def a_leader_that_hands_over_keeps_its_lease(patch):
    patch.setattr(Lease, "give_up", lambda self: None)


@mutation("clock")
def a_time_out_adapts_below_what_leases_rest_on(patch):
    """Where heartbeats come in time, a member waits for the next one and no longer."""

    def remember(self, late):
        self._late, self._late_since = late, self._clock
        self.ticks = self._usual - 2 + late

    patch.setattr(Patience, "_remember", remember)


@mutation("clock")
def a_lease_grows_with_its_holders_patience(patch):
    """What the leader would wait for is not what its voters promised."""
    original = Leading._answer_reads

    def answer_reads(self):
        self._lease._duration_ms = self.config.lease_ms * self.patience.ticks / self.config.election_ticks
        original(self)

    patch.setattr(Leading, "_answer_reads", answer_reads)


@mutation("store")
def a_read_is_answered_without_a_quorum(patch):
    reads_without_a_quorum(patch)


@mutation("store")
def a_follower_reads_what_it_has(patch):
    """Linearizable reads are served from the member's own state."""

    def read(self, owner):
        self._readers.answers.append((self.applied, [owner]))

    patch.setattr(Replica, "read", read)


@mutation("store")
def falling_behind_loses_what_was_not_sent(patch):
    def fall_behind(self, watcher):
        watcher.next_revision = self._published + 1
        self.unsync(watcher)

    patch.setattr(WatchHub, "fall_behind", fall_behind)


@mutation("store")
def a_watch_goes_on_from_a_snapshot_as_if_nothing_had_happened(patch):
    def replace(self, store):
        self._store = store
        self._published = store.revision

    patch.setattr(WatchHub, "replace", replace)


@mutation("store")
def a_watch_skips_what_is_compacted(patch):
    """It should end; instead it goes on after the gap."""
    original = WatchHub.read_history

    def read_history(self, watcher):
        watcher.next_revision = max(watcher.next_revision, self.store.compact_revision)
        return original(self, watcher)

    patch.setattr(WatchHub, "read_history", read_history)


@mutation("store")
def a_watch_hears_of_revisions_before_its_start(patch):
    def wants(self, event):
        return self.spec.deletes if event.is_delete else self.spec.puts

    patch.setattr(Watcher, "wants", wants)


@mutation("store")
def a_watch_filter_is_forgotten(patch):
    patch.setattr(Watcher, "wants", lambda self, event: event.kv.mod_revision >= self.next_revision)


@mutation("store")
def a_response_ends_in_the_middle_of_a_revision(patch):
    patch.setattr(watch, "_split", lambda events, batch_bytes: (events[:1], events[1:]))


@mutation("store")
def progress_overtakes_the_events(patch):
    original = WatchStream.next

    def next_notice(self):
        if self._progress_wanted and not self._notices:
            self._progress_wanted = False
            return Progress(NO_WATCH, self._hub.store.revision)
        return original(self)

    patch.setattr(WatchStream, "next", next_notice)


@mutation("store")
def what_is_handed_over_overtakes_what_waits(patch):
    def hand_over(self, watcher, events):
        return self._take is not None and self._take(watcher.watch_id, self._hub.store.revision, events)

    patch.setattr(WatchStream, "hand_over", hand_over)


@mutation("store")
def what_was_handed_over_is_told_again(patch):
    original = WatchStream.hand_over

    def hand_over(self, watcher, events):
        original(self, watcher, events)
        return False

    patch.setattr(WatchStream, "hand_over", hand_over)


@mutation("store")
def an_event_knows_no_previous_version(patch):
    original = Change.commit

    def commit(self):
        self.events = [Event(event.kv, None) for event in self.events]
        original(self)

    patch.setattr(Change, "commit", commit)


@mutation("store")
def the_batch_is_compacted_before_it_is_told(patch):
    """What the simulation found on its first day (docs/bugs.md, 1)."""

    def compact(self, command):
        self.store.compact(command.revision)
        return Done(self.store.revision)

    patch.setattr(Machine, "_compact", compact)


@mutation("store")
def compaction_takes_what_is_still_read(patch):
    original = Store.compact

    def compact(self, revision):
        original(self, revision)
        self._untrimmed = [(revision + 1, key) for _, key in self._untrimmed]

    patch.setattr(Store, "compact", compact)


@mutation("store")
def leases_end_by_a_followers_clock(patch):
    def look(self, *, leads, term):
        self._led_term = term

    patch.setattr(LeaseKeeper, "look", look)


@mutation("store")
def a_new_leader_goes_on_with_the_time_that_was_left(patch):
    patch.setattr(LeaseClock, "restart", lambda self, leases: None)


@mutation("store")
def an_expiry_of_an_old_term_counts(patch):
    original = Machine._lease_expire

    def expire(self, command, term):
        return original(self, LeaseExpire(term, command.expired), term)

    patch.setattr(Machine, "_lease_expire", expire)


@mutation("store")
def a_renewal_does_not_save_a_lease_that_is_being_ended(patch):
    def expire(self, command, term):
        if command.term == term:
            for expiry in command.expired:
                if self.leases.get(expiry.lease) is not None:
                    self._end_lease(expiry.lease)
        return Done(self.store.revision)

    patch.setattr(Machine, "_lease_expire", expire)


@mutation("store")
def leases_end_at_half_their_time(patch):
    """Caught by true time alone: every member does the same."""

    def start(self, lease, ttl_s):
        self._ends[lease] = self.now() + ttl_s / 2

    patch.setattr(LeaseClock, "start", start)


@mutation("store")
def leases_never_end(patch):
    patch.setattr(LeaseKeeper, "due", lambda self: None)


@mutation("store")
def a_snapshot_forgets_renewals(patch):
    original = Machine._replace

    def replace(self, store, leases, state):
        for lease in leases.all():
            lease.renewals = 0
        original(self, store, leases, state)

    patch.setattr(Machine, "_replace", replace)


def first_seed_that_notices(world: str, limit: int) -> int | None:
    kind = KINDS[world]
    return next((seed for seed in range(1, limit + 1) if breach_of(kind, kind.draw(seed)) is not None), None)


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(name, monkeypatch, record_property):
    world, break_rule = MUTATIONS[name]
    break_rule(monkeypatch)
    seed = first_seed_that_notices(world, SEEDS)
    assert seed is not None
    record_property("seed", seed)


def test_what_is_not_broken_is_not_noticed():
    """Goal: the list above proves something. Method: the same search without a mutation."""
    assert first_seed_that_notices("raft", 5) is None
    assert first_seed_that_notices("store", 3) is None
    assert first_seed_that_notices("clock", 5) is None


def test_an_old_entry_committed_by_counting_is_noticed_by_its_own_history(monkeypatch):
    """Figure 3.7 of the thesis takes four crashes in one order: chance alone needs more seeds than a test has time for."""
    from tests.unit.raft_store.raft.test_figure_3_7 import test_an_old_entry_on_a_majority_may_still_be_replaced

    def advance(self):
        while self.role is Role.LEADER:
            matched = {peer: progress.matched for peer, progress in self._progress.items()}
            matched[self.member] = self.log.saved
            index = Index(joint_commit_index(matched, self.configuration.halves))
            if index <= self.log.committed or not self._commit_to(index):
                return
            self._regroup()

    test_an_old_entry_on_a_majority_may_still_be_replaced()
    monkeypatch.setattr(Core, "_advance_commit", advance)
    with pytest.raises(AssertionError):
        test_an_old_entry_on_a_majority_may_still_be_replaced()


def test_a_joint_configuration_in_a_snapshot_that_counts_as_left_is_noticed_by_its_own_history(monkeypatch):
    """What the simulation found once (docs/bugs.md, 2), and once in thousands of seeds."""
    from tests.unit.raft_store.raft.test_membership import (
        test_a_joint_configuration_in_a_snapshot_is_left_by_whoever_leads_from_it as history,
    )

    def seal(history):
        base = history._steps[0]
        history._steps[0] = Step(base.index, base.configuration, sealed=True)

    compact, begin = History.compact, History.__init__

    def compact_and_seal(self, to):
        compact(self, to)
        seal(self)

    def begin_and_seal(self, *arguments, **options):
        begin(self, *arguments, **options)
        seal(self)

    history()
    monkeypatch.setattr(History, "compact", compact_and_seal)
    monkeypatch.setattr(History, "__init__", begin_and_seal)
    with pytest.raises(AssertionError):
        history()
