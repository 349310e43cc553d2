"""Elections: thesis 3.4, 3.6.1, 4.2.3, 6.2, 9.6, 3.10."""

import pytest

from raft_store.raft import elections, patience
from raft_store.raft import messages as m

from .group import ELECTION_TICKS, Group


def roles(group):
    return [desk.core.role.value for desk in group.desks.values()]


def test_the_first_to_lose_patience_leads():
    """3.4: timeout, candidacy, votes of a majority."""
    group = Group(3)
    group.lose_patience(1)
    group.deliver()
    assert roles(group) == ["leader", "follower", "follower"]
    assert [desk.core.term for desk in group.desks.values()] == [1, 1, 1]
    assert [desk.core.leader for desk in group.desks.values()] == [1, 1, 1]


def test_a_group_of_one_leads_at_its_first_tick():
    group = Group(1)
    group.tick(1)
    assert roles(group) == ["leader"]
    group.propose(1, b"a")
    assert group[1].settled == [b"a"]


def test_no_vote_counts_before_it_is_on_disk():
    """3.8: the candidate's own vote too."""
    group = Group(3)
    group[1].slow = True
    group.lose_patience(1)
    group.deliver()
    assert group[1].core.role.value == "candidate"
    assert group.under_way == []
    group.sync(1)
    group.deliver()
    assert group[1].core.role.value == "leader"
    group = Group(3)
    group[2].slow = group[3].slow = True
    group.lose_patience(1)
    group.deliver()
    assert group[1].core.role.value == "candidate"
    group.sync(2)
    group.deliver()
    assert group[1].core.role.value == "leader"


def test_a_vote_survives_a_crash():
    """3.8: one vote a term, whatever happens to the voter."""
    group = Group(3)
    group.cut(3)
    group.forget_leader(2)
    group.lose_patience(1)
    group.deliver(lambda message: not (isinstance(message, m.VoteReply) and not message.pre))
    assert group[2].disk.hard_state == m.HardState(1, 1)
    group.crash(2)
    group.start(2)
    request = m.VoteRequest(3, 2, 1, last_index=9, last_term=9, pre=False)
    group[2].replica.step(request)
    group.serve(2)
    assert [message.granted for message in group.under_way if isinstance(message, m.VoteReply)] == [False]


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [
        pytest.param(0, 99, False, id="older last term, longer log"),
        pytest.param(1, 2, False, id="same last term, shorter log"),
        pytest.param(1, 3, True, id="same log"),
        pytest.param(1, 4, True, id="same last term, longer log"),
        pytest.param(2, 1, True, id="newer last term, shorter log"),
    ],
)
def test_a_vote_goes_to_logs_at_least_as_good(last_term, last_index, granted):
    """3.6.1: the election restriction."""
    group = Group(3)
    group.elect(1)
    group.propose(1, b"a")
    group.propose(1, b"b")
    group.deliver()
    group.heartbeat(1)
    assert group[2].core.log.last_index == 3
    group.forget_leader(2)
    group[2].replica.step(m.VoteRequest(3, 2, 5, last_index=last_index, last_term=last_term, pre=False, forced=False))
    group.serve(2)
    (reply,) = [message for message in group.under_way if isinstance(message, m.VoteReply)]
    assert reply.granted is granted


def test_a_member_that_was_cut_off_disturbs_nobody():
    """9.6: its pre-votes raise no term, neither its own nor anybody's."""
    group = Group(3)
    group.elect(1)
    group.cut(3)
    for _ in range(20):
        group.lose_patience(3)
        group.heartbeat(1)
    group.heal()
    group.heartbeat(1)
    assert [desk.core.term for desk in group.desks.values()] == [1, 1, 1]
    assert roles(group) == ["leader", "follower", "follower"]


def test_whoever_hears_a_leader_ignores_candidates():
    """4.2.3: even ones with a higher term."""
    group = Group(3)
    group.elect(1)
    group[2].replica.step(m.VoteRequest(3, 2, 7, last_index=9, last_term=9, pre=False))
    group.serve(2)
    assert group.under_way == []
    assert group[2].core.term == 1


def test_a_leader_without_a_majority_steps_down():
    """6.2: so that its clients look elsewhere."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    group.tick(1, 2 * ELECTION_TICKS)
    assert group[1].core.role.value == "follower"


def test_a_leader_with_a_majority_stays():
    group = Group(3)
    group.elect(1)
    group.cut(3)
    for _ in range(ELECTION_TICKS):
        group.heartbeat(1)
    assert group[1].core.role.value == "leader"


def test_an_old_leader_learns_that_its_term_is_over():
    group = Group(3)
    group.elect(1)
    group.cut(1)
    group.elect(2)
    group.heal()
    group.heartbeat(2)
    assert roles(group) == ["follower", "leader", "follower"]
    assert group[1].core.leader == 2


def test_leadership_is_handed_over_at_once():
    """3.10: even though everybody hears the old leader."""
    group = Group(3)
    group.elect(1)
    group.deliver()
    assert group[1].core.transfer(3)
    group.serve(1)
    group.deliver()
    assert roles(group) == ["follower", "follower", "leader"]
    assert not group[1].core.transfer(2)


def test_a_leader_that_hands_over_takes_no_proposals_and_none_is_lost():
    group = Group(3)
    group.elect(1)
    group[1].core.transfer(3)
    group.propose(1, b"a")
    group.propose(2, b"b")
    group.deliver()
    for _ in range(4):
        group.heartbeat(3)
        group.tick(2, 3)
        group.deliver()
    assert sorted(group[3].values) == [b"a", b"b"]
    assert (group[1].settled, group[2].settled) == ([b"a"], [b"b"])


def test_a_lost_word_to_take_over_is_repeated():
    group = Group(3)
    group.elect(1)
    group[1].core.transfer(3)
    group.serve(1)
    group.deliver(lambda message: not isinstance(message, m.TimeoutNow))
    assert roles(group) == ["leader", "follower", "follower"]
    group.heartbeat(1)
    assert roles(group) == ["follower", "follower", "leader"]


def test_a_hand_over_that_fails_is_given_up():
    group = Group(3)
    group.elect(1)
    group.cut(3)
    group[1].core.transfer(3)
    for _ in range(ELECTION_TICKS):
        group.heartbeat(1)
    group.propose(1, b"a")
    group.deliver()
    assert group[1].settled == [b"a"]


@pytest.fixture
def patient():
    """A group whose time-outs adapt; member 1 leads."""
    group = Group(3, election_stretch=4)
    group.elect(1)
    for _ in range(2):
        group.heartbeat(1)
    return group


def silent_for(group, leader, ticks, *followers):
    """The leader does not get to run for so long; then it goes on."""
    for follower in followers:
        group.tick(follower, ticks)
    group.heartbeat(leader)


def test_who_bore_a_silence_bears_a_longer_one(patient):
    """3.4, with a time-out that adapts: it takes neither part in an election nor calls one."""
    silent_for(patient, 1, 9, 2, 3)
    for member in (2, 3):
        patient.tick(member, 2 * ELECTION_TICKS)
    patient.deliver()
    assert roles(patient) == ["leader", "follower", "follower"]
    patient[2].replica.step(vote_request(patient, 3))
    patient.serve(2)
    assert patient.under_way == []


def vote_request(group, sender, *, pre=True):
    log, term = group[sender].core.log, group[sender].core.term + 1
    return m.VoteRequest(sender, 2, term, last_index=log.last_index, last_term=log.last_term, pre=pre)


def test_a_leader_that_comes_back_too_late_was_slow_not_dead(patient):
    """Whoever replaced it waits longer next time."""
    patient.cut(1)
    patient.elect(3)
    waited = patient[2].core.patience.ticks
    patient.tick(1, 3)
    patient.heal()
    patient.deliver()
    assert roles(patient) == ["follower", "follower", "leader"]
    assert patient[2].core.patience.ticks == waited  # it had not waited itself
    assert patient[3].core.patience.ticks > waited


def test_a_leader_waits_as_long_for_a_quorum_that_was_late_before(patient):
    """6.2: it steps down later where followers answer late; one that is late matters to nobody."""
    patient.cut(3)
    for _ in range(9):
        patient.tick(1)
        patient.deliver()
    patient.heal()
    patient.heartbeat(1)
    assert patient[1].core.patience.ticks == ELECTION_TICKS
    patient.cut(1)
    patient.tick(1, 8)
    patient.heal()
    patient.heartbeat(1)
    wide = patient[1].core.patience.ticks
    assert wide > ELECTION_TICKS
    patient.cut(1)
    patient.tick(1, wide)
    assert roles(patient)[0] == "leader"
    patient.tick(1, 2 * wide)
    assert roles(patient)[0] != "leader"


def test_a_leader_that_hears_in_time_becomes_less_patient_again(patient, monkeypatch):
    monkeypatch.setattr(patience, "NARROW_TICKS", 30)
    patient.cut(1)
    patient.tick(1, 8)
    patient.heal()
    patient.heartbeat(1)
    widths = []
    for _ in range(60):
        widths.append(patient[1].core.patience.ticks)
        patient.heartbeat(1)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1] == ELECTION_TICKS
    assert roles(patient)[0] == "leader"


def test_campaigns_that_come_to_nothing_become_longer():
    """Votes that are slower than a campaign is long would otherwise never elect anybody."""
    group = Group(3, election_stretch=4)
    lengths, length, term = [], 0, 0
    for _ in range(30 * ELECTION_TICKS):
        group.tick(2)
        group.deliver(lambda message: not isinstance(message, m.VoteReply) or message.pre)
        length += 1
        if group[2].core.term != term:
            lengths.append(length)
            length, term = 0, group[2].core.term
    assert lengths == sorted(lengths)
    assert lengths[-1] >= 4 * lengths[0] - 4
    group.heal()
    for _ in range(8 * ELECTION_TICKS):
        group.tick(2)
        group.deliver()
    assert group[2].core.role.value == "leader"
    assert group[2].core._failed == 0


def end_of_leader(group, *told):
    """The leader's process ends, and those of ``told`` notice."""
    group.crash(1)
    for member in told:
        group[member].replica.ended(1)


def test_followers_that_are_left_behind_elect_another_leader_at_once():
    """They need not wait for a silence (9.6); nor do they split the vote, for they go one after the other."""
    group = Group(3)
    group.elect(1)
    end_of_leader(group, 2, 3)
    for member in (3, 2):
        group.tick(member)
    group.deliver()
    assert roles(group)[1:] == ["leader", "follower"]
    assert group[2].core.term == 2


def test_whoever_is_next_takes_its_turn_if_the_first_cannot_win():
    """3.6.1: the first in line lacks an entry that may be committed."""
    group = Group(3)
    group.elect(1)
    group.propose(1, b"a")
    group.deliver(lambda message: message.to != 2)
    end_of_leader(group, 2, 3)
    for _ in range(1 + elections.STAGGER_TICKS):
        for member in (2, 3):
            group.tick(member)
        group.deliver()
    assert roles(group)[1:] == ["follower", "leader"]


def test_a_wrong_word_of_a_leaders_end_disturbs_nobody():
    """9.6: whoever hears the leader refuses the pre-vote."""
    group = Group(3)
    group.elect(1)
    group[2].replica.ended(1)
    group.tick(2)
    group.deliver()
    assert group[2].core.role.value == "precandidate"
    group.heartbeat(1)
    assert [desk.core.term for desk in group.desks.values()] == [1, 1, 1]
    assert roles(group) == ["leader", "follower", "follower"]


def test_a_leaders_word_proves_that_it_has_not_ended():
    group = Group(3)
    group.elect(1)
    for member in (2, 3):
        group[member].replica.ended(1)
    group.heartbeat(1)
    for member in (2, 3):
        group.tick(member, ELECTION_TICKS - 1)
    group.deliver()
    assert roles(group) == ["leader", "follower", "follower"]


@pytest.mark.parametrize(
    ("ended", "options"),
    [
        pytest.param(2, {}, id="another follower"),
        pytest.param(3, {}, id="itself, as if its address led elsewhere"),
        pytest.param(1, {"lease_ms": 90}, id="a leader whose reads rest on our silence (6.4.1)"),
    ],
)
def test_whose_end_shortens_no_silence(ended, options):
    group = Group(3, **options)
    group.elect(1)
    group.heartbeat(1)
    group[3].replica.ended(ended)
    group.tick(3, ELECTION_TICKS - 1)
    assert roles(group) == ["leader", "follower", "follower"]
    assert group.under_way == []


def test_whoever_needs_no_vote_but_its_own_has_more_to_save_once_it_has_that():
    """Its first entry would else wait for the next tick: a driver asks no more of a save that brought nothing."""
    group = Group(1)
    replica = group[1].replica
    replica.tick()
    work = replica.ready()
    replica.saved(work.save)
    assert roles(group) == ["leader"]
    assert replica.core.has_news
    (entry,) = replica.ready().save.entries
    assert (entry.term, entry.data) == (1, b"")
