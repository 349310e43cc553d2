"""Replication, commitment, reads, re-proposal: thesis 3.5, 3.6, 6.4, 10.2.1."""

import pytest

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.leading import CATCHING_UP
from raft_store.raft.log import Log
from raft_store.raft.progress import MAX_IN_FLIGHT
from raft_store.raft.proposals import MAX_BATCH, MAX_FORWARD_BYTES, RESEND_TICKS, Origin, pack, unpack
from raft_store.raft.quorum import Verdict, commit_index, tally

from .group import Group


@pytest.mark.parametrize(
    ("matched", "voters", "expected"),
    [
        pytest.param({1: 5}, {1}, 5, id="one"),
        pytest.param({1: 5, 2: 3}, {1, 2}, 3, id="two need both"),
        pytest.param({1: 5, 2: 3, 3: 4}, {1, 2, 3}, 4, id="three"),
        pytest.param({1: 5}, {1, 2, 3}, 0, id="absent voters count as 0"),
        pytest.param({1: 5, 2: 5, 9: 5}, {1, 2, 3, 4, 5}, 0, id="strangers do not count"),
        pytest.param({1: 9, 2: 7, 3: 5, 4: 3, 5: 1}, {1, 2, 3, 4, 5}, 5, id="five"),
    ],
)
def test_commit_index(matched, voters, expected):
    """3.5: an entry is committed once a majority has it."""
    assert commit_index(matched, frozenset(voters)) == expected


def test_a_quorum_of_nobody_is_refused():
    with pytest.raises(ValueError, match="at least one voter"):
        commit_index({}, frozenset())


@pytest.mark.parametrize(
    ("votes", "size", "expected"),
    [
        ({1: True}, 1, Verdict.WON),
        ({1: True}, 3, Verdict.OPEN),
        ({1: True, 2: True}, 3, Verdict.WON),
        ({1: True, 2: False, 3: False}, 3, Verdict.LOST),
        ({1: True, 2: False}, 2, Verdict.LOST),
        ({1: True, 2: True, 3: False, 4: False}, 5, Verdict.OPEN),
    ],
)
def test_tally(votes, size, expected):
    assert tally(votes, frozenset(range(1, size + 1))) is expected


def test_a_proposal_reaches_every_machine():
    group = Group(3)
    group.elect(1)
    group.propose(1, b"a")
    group.propose(2, b"b")
    group.deliver()
    assert [desk.values for desk in group.desks.values()] == [[b"a", b"b"]] * 3
    assert (group[1].settled, group[2].settled) == ([b"a"], [b"b"])


def test_a_leader_counts_itself_only_once_synced():
    """10.2.1: appends leave beside its own sync, but commitment waits for a majority of disks."""
    group = Group(3)
    group.elect(1)
    group[1].slow = group[2].slow = True
    group.propose(1, b"a")
    group.deliver()
    assert group[3].disk.entries[-1].index == 2
    assert group[1].settled == []
    group.sync(2)
    group.deliver()
    assert group[2].values == [b"a"]  # two followers are a majority without the leader's disk
    assert group[1].settled == []  # which applies nothing that it could lose
    group.sync(1)
    assert group[1].settled == [b"a"]


def test_whatever_comes_during_a_sync_is_the_next_save():
    group = Group(3)
    group.elect(1)
    group[1].slow = True
    for i in range(10):
        group.propose(1, b"%d" % i)
    assert len(group[1].saving.entries) == 1
    group.sync(1)
    assert len(group[1].saving.entries) == 9


def test_an_append_follows_before_the_one_ahead_is_answered_and_the_third_carries_the_rest():
    """A follower's disk never waits for a message, nor do messages for its disk."""
    group = Group(3)
    group.elect(1)
    for i in range(10):
        group.propose(1, b"%d" % i)
    appends = [message for message in group.under_way if isinstance(message, m.Append) and message.to == 2]
    assert [len(append.entries) for append in appends] == [1, 1]
    sent = []
    group.deliver(lambda message: sent.append(message) or True)
    appends = [message for message in sent if isinstance(message, m.Append) and message.to == 2]
    assert [len(append.entries) for append in appends] == [1, 1, 8]


def test_the_commit_mark_travels_with_appends_while_there_are_any():
    group = Group(3)
    group.elect(1)
    for i in range(3):
        group.propose(1, b"%d" % i)
    sent = []
    group.deliver(lambda message: sent.append(message) or True)
    told = [type(message) for message in sent if message.to == 2]
    assert told == [m.Append, m.Append, m.Append, m.Commit]
    assert group[2].values == [b"0", b"1", b"2"]


def test_commit_marks_can_wait_for_the_next_append():
    group = Group(2)
    group.elect(1)
    core = group[1].core
    core.delays = True
    group.propose(1, b"a")
    sent = []
    group.deliver(lambda message: sent.append(message) or True)
    assert [type(message) for message in sent if message.to == 2] == [m.Append]
    assert (group[1].settled, group[2].values) == ([b"a"], [])
    assert core.owes
    group.propose(1, b"b")
    assert not core.owes
    group.deliver()
    assert group[2].values == [b"a"]
    assert core.owes
    core.delays = False
    group.serve(1)
    group.deliver()
    assert (group[2].values, core.owes) == ([b"a", b"b"], False)


def test_commit_marks_that_an_origin_waits_for_do_not_wait():
    group = Group(2)
    group.elect(1)
    group[1].core.delays = True
    group.propose(2, b"a")
    group.deliver()
    assert group[2].settled == [b"a"]
    group.propose(1, b"b")
    group.deliver()
    assert (group[1].settled, group[2].values) == ([b"b"], [b"a"])


def test_proposals_that_come_together_share_an_entry():
    group = Group(3)
    group.elect(1)
    group.propose(1, *(b"%d" % i for i in range(MAX_BATCH + 1)))
    (append,) = [message for message in group.under_way if isinstance(message, m.Append) and message.to == 2]
    assert [len(unpack(entry.data)[2]) for entry in append.entries] == [MAX_BATCH, 1]
    group.deliver()
    assert group[1].settled == group[3].values == [b"%d" % i for i in range(MAX_BATCH + 1)]


@pytest.mark.parametrize("origin", [1, 3], ids=["the leader", "a follower"])
def test_what_is_proposed_together_is_settled_together_at_its_place(origin):
    group = Group(3)
    group.elect(1)
    replica = group[origin].replica
    replica.propose(b"a", "first")
    replica.propose_together([b"b", b"c"], "both", 2)
    replica.propose(b"d", "last")
    settled = []
    work = group._do

    def note(desk, work_):
        settled.extend(
            (proposal.owner, [entry.data for entry in work_.committed[place : place + len(proposal.items)]])
            for place, proposal in work_.settled
        )
        work(desk, work_)

    group._do = note
    group.serve(origin)
    group.deliver()
    group.heartbeat(1)
    assert settled == [("first", [b"a"]), ("both", [b"b", b"c"]), ("last", [b"d"])]
    assert [desk.values for desk in group.desks.values()] == [[b"a", b"b", b"c", b"d"]] * 3


def test_who_joins_what_a_dead_flight_gave_back_is_proposed_with_it(monkeypatch):
    """What an old leader put into its own log alone never took effect; it waits again, as if it had never left."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    replica = group[1].replica
    first = replica.propose(b"a", b"a")
    group.serve(1)
    assert not first.join([b"too early"], 9)  # it may take effect yet
    group.elect(2)
    joined = []
    bury = Origin._bury_before

    def bury_and_join(origin, term):
        bury(origin, term)
        if not joined and not first.in_flight:
            joined.append(first.join([b"b", b"c"], 2))

    monkeypatch.setattr(Origin, "_bury_before", bury_and_join)
    group.heal()
    for _ in range(3):
        group.heartbeat(2)
    assert joined == [True]
    assert [desk.values for desk in group.desks.values()] == [[b"a", b"b", b"c"]] * 3


@pytest.mark.parametrize("items", [[b"a"], [b"a", b"b"]], ids=["one", "several"])
def test_an_entry_that_is_not_what_was_proposed_is_not_applied(items):
    """Nobody else would apply what we remember."""
    origin = Origin(1)
    origin.submit(items, None, len(items))
    (data,) = origin.embark(Term(1))
    changed = Entry(Index(1), Term(1), data[:-1] + b"x")
    with pytest.raises(AssertionError, match="number 1 of 1 is not what was proposed"):
        origin.applied(changed)


def test_what_is_proposed_together_shares_an_entry_whatever_its_size():
    group = Group(3)
    group.elect(1)
    replica = group[1].replica
    replica.propose(b"a", "a")
    many = [b"%d" % i for i in range(MAX_BATCH + 1)]
    replica.propose_together(many, "many", sum(map(len, many)))
    replica.propose(b"z", "z")
    group.serve(1)
    (append,) = [message for message in group.under_way if isinstance(message, m.Append) and message.to == 2]
    assert [len(unpack(entry.data)[2]) for entry in append.entries] == [1, MAX_BATCH + 1, 1]
    group.deliver()
    assert group[1].settled == ["a", "many", "z"]


def test_a_dead_batch_is_proposed_again_but_for_what_was_given_up():
    """Whoever waits no more is not proposed anew; the others board another entry, with whoever came meanwhile."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    replica = group[1].replica
    given_up = replica.propose(b"given up", b"given up")
    group.propose(1, b"a", b"b")
    given_up.abandoned = True
    group.elect(2)
    group.propose(1, b"c")
    group.heal()
    for _ in range(3):
        group.heartbeat(2)
    assert group[1].settled == [b"a", b"b", b"c"]
    assert [desk.values for desk in group.desks.values()] == [[b"a", b"b", b"c"]] * 3


@pytest.mark.parametrize(
    "proposed", [[b"one"], [b"", b""], [b"a", bytes(1000), b"b"]], ids=["alone", "empty ones", "a batch"]
)
def test_an_entry_gives_back_what_was_packed(proposed):
    data = pack((1 << 64) - 1, 7, proposed)
    assert unpack(data) == ((1 << 64) - 1, 7, tuple(proposed) if len(proposed) == 1 else proposed)
    for cut in range(len(data)):
        if len(proposed) > 1 or cut < len(data) - len(proposed[0]):
            with pytest.raises(ValueError, match="proposal"):
                unpack(data[:cut])


def test_a_silent_follower_gets_no_endless_stream():
    group = Group(3)
    group.elect(1)
    group.cut(3)
    for i in range(3 * MAX_IN_FLIGHT):
        group.propose(1, b"%d" % i)
    appends = [message for message in group.under_way if isinstance(message, m.Append) and message.to == 3]
    assert len(appends) == MAX_IN_FLIGHT


def test_a_slow_follower_holds_up_nobody():
    """What is sent ahead is bounded in bytes, too; what one cannot take now is no burden on the others."""
    group = Group(3, max_append_bytes=1 << 20)
    group.elect(1)
    group.cut(3)
    for i in range(20):
        group.propose(1, b"%02d" % i + bytes(1 << 20))
    under_way = sum(len(e.data) for m_ in group.under_way if m_.to == 3 for e in m_.entries)
    assert MAX_IN_FLIGHT << 20 <= under_way <= (MAX_IN_FLIGHT << 20) + 100
    group.deliver()
    assert len(group[2].values) == 20
    group.heal()
    for _ in range(20):
        group.heartbeat(1)
    assert group[3].values == group[2].values


def test_a_leader_takes_no_more_than_it_can_hold():
    group = Group(3, max_uncommitted_bytes=3000)
    group.elect(1)
    group.cut(1)
    group.forget_leader(1)
    for i in range(10):
        group.propose(1, b"%d" % i + bytes(1000))
    assert not group[1].core.may_append
    assert group[1].core.log.last_index == 4
    group.heal()
    group.deliver()
    group.heartbeat(1)
    group.heartbeat(1)
    assert group[1].core.may_append
    assert len(group[2].values) == 10


def test_a_follower_that_missed_much_catches_up():
    group = Group(3, max_append_bytes=100)
    group.elect(1)
    group.cut(3)
    for i in range(100):
        group.propose(1, b"%d" % i)
        group.deliver()
    group.heal()
    group.heartbeat(1)
    group.heartbeat(1)
    assert group[3].values == group[1].values
    assert len(group[3].values) == 100


def test_uncommitted_entries_of_an_old_leader_are_replaced():
    """3.5: followers' logs are brought to the leader's."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    group.propose(1, b"x", b"y", b"z")
    group.deliver()
    group.elect(2)
    group.propose(2, b"a")
    group.deliver()
    group.heal()
    group.heartbeat(2)
    group.heartbeat(2)
    assert group.log_of(1)[:3] == group.log_of(2)[:3]
    assert [entry.data[16:] for entry in group[1].disk.entries if entry.data][:1] == [b"a"]


def test_finding_where_logs_agree_skips_whole_terms():
    """3.5, end: one refusal a term, not one an entry."""
    group = Group(3, max_append_bytes=1)
    group.elect(1)
    group.cut(1)
    group.propose(1, *(b"%d" % i for i in range(60)))
    group.deliver()
    group.elect(2)
    group.propose(2, *(b"%d" % i for i in range(60)))
    group.deliver()
    group.heal()
    refusals = []
    group.tick(2, 3)
    group.deliver(lambda message: refusals.append(message) or True if isinstance(message, m.AppendReply) else True)
    assert sum(reply.rejected for reply in refusals) <= 3
    assert group.log_of(1)[-1] == 2


def test_what_leaves_the_old_leader_undecided_is_proposed_again_exactly_once():
    """A proposal in flight when its leader fails waits for no clock: the new leader's first entry decides."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    group.propose(1, b"dead")
    group.deliver()
    group.elect(2)
    group.heal()
    group.heartbeat(2)
    group.heartbeat(2)
    assert group[1].settled == [b"dead"]
    assert [desk.values for desk in group.desks.values()] == [[b"dead"]] * 3


def test_what_survived_the_old_leader_is_not_proposed_again():
    group = Group(3)
    group.elect(1)
    group.propose(3, b"alive")
    # The entry reaches both followers, their confirmations do not reach the leader.
    group.deliver(lambda message: not isinstance(message, m.AppendReply))
    group.cut(1)
    group.elect(2)
    group.heartbeat(2)
    assert group[3].settled == [b"alive"]
    assert group[2].values == [b"alive"]


@pytest.mark.parametrize("kind", [m.Forward, m.ForwardReply])
def test_a_lost_forward_is_repeated_and_counts_once(kind):
    group = Group(3)
    group.elect(1)
    group.propose(2, b"a", b"b")
    group.deliver(lambda message: not isinstance(message, kind))
    for _ in range(4):
        group.tick(2, 3)
        group.heartbeat(1)
    group.propose(2, b"c")
    group.deliver()
    assert group[1].values == [b"a", b"b", b"c"]
    assert group[2].settled == [b"a", b"b", b"c"]


def test_a_forward_for_another_term_is_not_taken():
    group = Group(3)
    group.elect(1)
    group.propose(3, b"a")
    (forward,) = [message for message in group.under_way if isinstance(message, m.Forward)]
    group.under_way.clear()
    group.elect(2)
    group[2].replica.step(m.Forward(3, 2, forward.term, session=forward.session, first=1, proposals=forward.proposals))
    group.serve(2)
    group.deliver()
    assert group[2].values.count(b"a") <= 1
    assert group[3].settled == [b"a"]


def test_a_read_takes_a_majority():
    """6.4: a leader that was deposed without knowing must not answer."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    group.read(1, "stale")
    group.deliver()
    assert group[1].readers == []
    group.elect(2)
    group.propose(2, b"new")
    group.deliver()
    group.heal()
    group.heartbeat(2)
    group.tick(1, 3)
    group.deliver()
    ((owner, barrier),) = group[1].readers
    assert (owner, group[1].values) == ("stale", [b"new"])
    assert barrier >= group[2].core.log.committed


def test_reads_share_a_round():
    group = Group(3)
    group.elect(1)
    group.under_way.clear()
    for i in range(5):
        group[1].replica.read(i)
    group.serve(1)
    assert [type(message) for message in group.under_way] == [m.Heartbeat, m.Heartbeat]
    group.deliver()
    assert [owner for owner, _ in group[1].readers] == [0, 1, 2, 3, 4]


def test_a_follower_reads_through_its_leader():
    group = Group(3)
    group.elect(1)
    group.propose(1, b"a")
    group.deliver()
    group.read(2, "reader")
    group.deliver()
    group.heartbeat(1)
    assert [owner for owner, _ in group[2].readers] == ["reader"]
    assert group[2].values == [b"a"]


def test_a_new_leader_reads_only_after_an_entry_of_its_own_term():
    """6.4, step 1: until then its commit mark may be behind."""
    group = Group(3)
    group.elect(1)
    group.propose(1, b"a")
    group.deliver()
    group.crash(1)
    group[3].slow = True
    group.forget_leader(3)
    group.lose_patience(2)
    while group[3].saving is None or group[2].core.role.value != "leader":
        group.deliver()
        if group[3].saving is not None and group[2].core.role.value != "leader":
            group.sync(3)
            group.deliver()
    group.read(2, "reader")
    group.deliver()
    assert group[2].readers == []
    while group[3].saving is not None:
        group.sync(3)
        group.deliver()
    group.heartbeat(2)
    assert [owner for owner, _ in group[2].readers] == ["reader"]


def test_a_follower_behind_the_log_gets_a_snapshot():
    """5: and goes on from there."""
    group = Group(3)
    group.elect(1)
    group.cut(3)
    for i in range(20):
        group.propose(1, b"%d" % i)
        group.deliver()
    group.take_snapshot(1)
    group.heal()
    group.heartbeat(1)
    group.heartbeat(1)
    assert group[3].values == group[1].values
    assert group[3].core.log.base.index == Index(21)
    group.propose(3, b"more")
    group.deliver()
    group.heartbeat(1)
    assert group[3].settled == [b"more"]
    group.crash(3)
    group.start(3)
    group.heartbeat(1)
    group.heartbeat(1)
    assert group[3].values == group[1].values


def test_a_proposal_that_a_snapshot_hides_is_called_lost():
    group = Group(3)
    group.elect(1)
    group.propose(3, b"mine")
    group.deliver(lambda message: message.to != 3)
    group.cut(3)
    group.deliver()
    group.heartbeat(1)
    assert b"mine" in group[1].values
    group.take_snapshot(1)
    group.heal()
    for _ in range(3):
        group.heartbeat(1)
    assert group[3].values == [b"mine"]
    assert (group[3].settled, group[3].lost) == ([], [b"mine"])


def test_a_snapshot_that_a_newer_one_replaces_on_the_disk_is_not_restored():
    """Its file is gone by the time anybody would read it."""
    group = Group(3)
    group.elect(1)
    group.cut(3)
    group.propose(1, b"a")
    group.deliver()
    group.take_snapshot(1)
    group[3].slow = True
    group.heal()
    group.heartbeat(1)
    group.cut(3)
    group.propose(1, b"b")
    group.deliver()
    older, saving = group[1].disk.snapshot, group[3].saving
    assert saving.snapshot.mark == older.mark
    group.take_snapshot(1)
    newer, replica = group[1].disk.snapshot, group[3].replica
    replica.step(m.InstallSnapshot(1, 3, group[1].core.term, mark=newer.mark, data=newer.data))
    replica.saved(saving)
    work = replica.ready()
    assert (work.save.snapshot, work.restore) == (newer, None)
    replica.saved(work.save)
    assert replica.ready().restore == newer


def test_a_snapshot_that_failed_is_sent_again_when_the_follower_is_heard_of():
    group = Group(3)
    group.elect(1)
    group.cut(3)
    group.propose(1, b"a")
    group.deliver()
    group.take_snapshot(1)
    group.heal()
    group.heartbeat(1)
    assert group[3].values == [b"a"]
    group.cut(3)
    group.propose(1, b"b")
    group.deliver()
    group.take_snapshot(1)
    group.heal()
    group.deliver(lambda message: not isinstance(message, m.InstallSnapshot))
    group.tick(1, 3)
    group.deliver(lambda message: not isinstance(message, m.InstallSnapshot))
    assert group[1].core.progress()[3].snapshot == group[1].core.snapshot.index
    group.cut(3)
    group[1].core.snapshot_failed(3)
    group.serve(1)
    assert not [message for message in group.under_way if isinstance(message, m.InstallSnapshot)]
    group.heal()
    group.heartbeat(1)
    group.heartbeat(1)
    assert group[3].values == [b"a", b"b"]


def test_large_proposals_are_forwarded_in_portions_and_only_the_first_is_repeated():
    """A message may be as large as its receiver takes, and a leader that takes nothing must not be flooded."""
    group = Group(3)
    group.elect(1)
    values = [bytes([value]) * (MAX_FORWARD_BYTES // 3) for value in range(5)]
    group.propose(3, *values)
    forwards = [message for message in group.under_way if isinstance(message, m.Forward)]
    assert [(forward.first, len(forward.proposals)) for forward in forwards] == [(1, 2), (3, 2), (5, 1)]
    group.under_way.clear()
    group.tick(3, RESEND_TICKS)
    (again,) = [message for message in group.under_way if isinstance(message, m.Forward)]
    assert (again.first, again.proposals) == (1, forwards[0].proposals)
    for _ in range(4):
        group.deliver()
        group.heartbeat(1)
        group.tick(3, RESEND_TICKS)
    assert group[1].values == values
    assert group[3].settled == values


def test_an_older_snapshot_than_meant_does_as_well_if_the_log_goes_on_from_there():
    """The one that was given up for lost arrived, and its successor waits behind it."""
    group = Group(3)
    group.elect(1)
    group.cut(3)
    group.propose(1, b"a")
    group.deliver()
    group.take_snapshot(1)
    older, term = group[1].disk.snapshot, group[1].core.term

    def is_other(message):
        return not isinstance(message, m.InstallSnapshot)

    group.heal()
    group.tick(1, 3)
    group.deliver(is_other)
    group.propose(1, b"b")
    group.deliver(is_other)
    group.take_snapshot(1, keep=100)
    group[1].core.snapshot_failed(3)
    group.tick(1, 3)
    group.deliver(is_other)
    assert group[1].core.progress()[3].snapshot > older.mark.index
    group[3].replica.step(m.InstallSnapshot(1, 3, term, mark=older.mark, data=older.data))
    group.serve(3)
    group.deliver(is_other)
    assert group[3].values == [b"a", b"b"]


@pytest.mark.parametrize(
    ("count", "size_bytes", "lowest"),
    [
        pytest.param(3, 10**9, 6, id="so many entries"),
        pytest.param(100, 10**9, 2, id="no more than there are"),
        pytest.param(100, 250, 7, id="so many bytes"),
        pytest.param(100, 0, 9, id="nothing"),
    ],
)
def test_what_stays_of_a_log_is_bounded_in_entries_and_bytes(count, size_bytes, lowest):
    log = Log(m.SnapshotMark(Index(2), Term(1)), [Entry(Index(i), Term(1), bytes(100)) for i in range(3, 13)])
    assert log.behind(Index(9), count=count, size_bytes=size_bytes) == lowest


def test_what_is_applied_at_once_is_bounded_however_many_proposals_share_an_entry():
    """The driver looks at the clock between two portions; a turn must not outlast a leader's patience."""
    group = Group(1)
    group.tick(1)
    replica, portions = group[1].replica, []
    for number in range(64 * 256):
        replica.propose(b"%05d" % number + bytes(50), "writer")
    while (work := replica.ready()) is not None:
        portions.append(len(work.committed))
        if work.save is not None:
            replica.saved(work.save)
    assert sum(portions) == 64 * 256
    assert max(portions) < 10 * 256


def told(group, peer):
    """Return the entries that are on their way to ``peer``, by their indices."""
    appends = [message for message in group.under_way if isinstance(message, m.Append) and message.to == peer]
    return [entry.index for append in appends for entry in append.entries]


def lone(size=3, *, after=1):
    """Return a group whose leader, 1, lets wait what can wait, when it has settled."""
    group = Group(size)
    group.elect(1)
    for i in range(after):
        group.propose(1, b"%d" % i)
        group.deliver()
    group[1].core.delays = True
    return group, Index(group[1].core.log.last_index + 1)


def turn(group):
    """Let those hear of everything who were held back."""
    group[1].core.delays = False
    group.serve(1)
    group[1].core.delays = True


@pytest.mark.parametrize(("size", "asked"), [(3, [2]), (4, [2, 3]), (5, [2, 3])])
def test_entries_go_to_a_majority_first(size, asked):
    group, index = lone(size)
    for i in range(3):
        group.propose(1, b"%d" % i)
        assert [peer for peer in group.desks if told(group, peer) == [index + i]] == asked
        group.deliver()
        assert group[1].settled[-1] == b"%d" % i
        assert (group[1].core.owes_from, group[1].core.has_turn_for_others) == (index, True)
    turn(group)
    # The others hear of all of them at once, and of their commit in the same breath.
    (last,) = [message for message in group.under_way if message.to == size]
    assert ([entry.index for entry in last.entries], last.commit) == ([index, index + 1, index + 2], index + 2)
    group.deliver()
    assert group[size].values[-3:] == [b"0", b"1", b"2"]
    assert group[1].core.owes_from == 0


def test_whoever_is_silent_is_not_the_one_to_be_asked():
    group, index = lone()
    group.cut(2)
    group.propose(1, b"a")
    group.deliver()
    assert group[1].settled[-1] != b"a"
    turn(group)
    group.deliver()
    assert group[1].settled[-1] == b"a"
    group.propose(1, b"b")
    assert (told(group, 2), told(group, 3)) == ([], [index + 1])  # at once: it is ahead now
    group.deliver()
    assert group[1].settled[-1] == b"b"


def test_what_comes_while_more_is_under_way_waits_for_the_same_turn():
    group, index = lone()
    group[2].slow = True
    group.propose(1, b"a")
    group.propose(1, b"b")
    assert (told(group, 2), told(group, 3)) == ([index, index + 1], [])
    assert not group[1].core.has_turn_for_others  # somebody waits still
    assert group[1].core.owes_from == index


def test_whoever_proposed_it_is_not_held_back():
    group, index = lone()
    sent = []
    group.propose(3, b"a")
    group.deliver(lambda message: sent.append(message) or True)
    append = next(message for message in sent if isinstance(message, m.Append) and message.to == 3)
    assert ([entry.index for entry in append.entries], append.commit) == ([index], index - 1)


def test_whoever_waits_for_the_commit_before_it_is_not_held_back():
    """The mark of its own proposal travels with the entry."""
    group, index = lone()
    group.propose(3, b"a")
    # 3 is slow to answer: what it proposed is committed without it.
    group.deliver(lambda message: not (isinstance(message, m.AppendReply) and message.sender == 3))
    turn(group)
    group.deliver(lambda message: not (isinstance(message, m.AppendReply) and message.sender == 3))
    assert (group[1].core.log.committed, group[3].settled) == (index, [])
    group.propose(1, b"b")
    assert (told(group, 2), told(group, 3)) == ([index + 1], [index + 1])
    group.deliver(lambda message: message.to == 3)
    assert group[3].settled == [b"a"]


def test_whoever_proposes_is_asked_first_and_the_others_have_their_turn():
    group, index = lone()
    for i in range(3):
        group.propose(3, b"%d" % i)
        group.deliver()
    assert group[3].settled == [b"0", b"1", b"2"]
    assert group[2].values[-1] == b"0"
    assert group[1].core.owes_from == index
    turn(group)
    group.deliver()
    assert group[2].values[-3:] == [b"0", b"1", b"2"]


def test_a_read_at_a_follower_does_not_wait_for_its_turn():
    group, _index = lone()
    group.propose(1, b"a")
    group.deliver()
    assert (group[1].settled[-1], group[3].values[-1:]) == (b"a", [b"0"])
    group.read(3, "reader")
    group.deliver()
    assert group[3].values[-1] == b"a"


def test_whom_we_hand_over_to_does_not_wait_for_its_turn():
    group, index = lone()
    group.propose(1, b"a")
    group.deliver()
    assert told(group, 3) == []
    group[1].core.transfer(MemberId(3))
    group.serve(1)
    assert told(group, 3) == [index]


def test_who_is_far_behind_does_not_rest_between_turns():
    """Goal: a follower that comes back gets what it lacks as fast as it takes it, also while others write."""
    group, index = lone()
    for i in range(CATCHING_UP):
        group.propose(1, b"%d" % i)
        group.deliver()
    assert group[3].core.log.last_index == index - 1
    group.propose(1, b"one more")
    assert told(group, 3)[0] == index
    group.deliver()
    assert group[3].core.log.last_index == index + CATCHING_UP


def test_a_followers_answer_leaves_before_it_applies():
    """Whoever wrote waits for the answer, and for nothing that the follower's machine does."""
    group = Group(3)
    group.elect(1)
    replica = group[2].replica
    core, last = replica.core, replica.core.log.last_index
    entry = Entry(Index(last + 1), core.term, b"")
    append = m.Append(
        MemberId(1),
        MemberId(2),
        core.term,
        prev_index=last,
        prev_term=core.log.last_term,
        entries=[entry],
        commit=last + 1,
    )
    replica.step(append)
    replica.saved(replica.ready().save)
    work = replica.ready()
    assert [type(message) for message in work.messages] == [m.AppendReply]
    assert work.committed == ()
    work = replica.ready()
    assert [each.index for each in work.committed] == [last + 1]
    assert replica.ready() is None
