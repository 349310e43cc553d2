"""Reads by the clock (thesis 6.4.1): at once within a lease, never without one."""

import pytest

from raft_store.engine import MemberId, Term
from raft_store.raft import messages as m

from .group import ELECTION_TICKS, Group

LEASE_MS = 100.0


@pytest.fixture
def group():
    """Member 1 leads and holds a lease from time 0."""
    group = Group(3, lease_ms=LEASE_MS)
    group.elect(1)
    group.heartbeat(1)
    return group


def read(group, now_ms):
    """Return whether member 1 answers a read at once."""
    group[1].core.now_ms = now_ms
    before = len(group[1].readers)
    group.read(1, "me")
    return len(group[1].readers) > before


def test_a_read_within_the_lease_asks_nobody(group):
    group.cut(1)
    assert read(group, LEASE_MS - 1)
    assert not group.under_way


def test_a_lease_counts_from_when_the_heartbeat_left(group):
    group[1].core.now_ms = 50
    group.tick(1, 3)
    group[1].core.now_ms = 90  # when the answers arrive
    group.deliver()
    assert read(group, 149)
    assert not read(group, 150)


def test_after_the_lease_a_majority_is_asked(group):
    assert not read(group, LEASE_MS)
    group.deliver()
    assert len(group[1].readers) == 1
    assert read(group, LEASE_MS + 1)  # that round was a lease, too


def test_a_leader_that_is_cut_off_falls_silent(group):
    group.cut(1)
    for now_ms in (10, 40, 70, 99):
        assert read(group, now_ms)
        group.tick(1, 3)
    assert not read(group, LEASE_MS)
    group.deliver()
    assert len(group[1].readers) == 4


def test_who_hands_over_has_no_lease_any_more(group):
    """Its wish overrides what the others promised, and may arrive at any time."""
    assert group[1].core.transfer(MemberId(2))
    group.serve(1)
    group.under_way.clear()
    assert not read(group, 1)
    group.tick(1, ELECTION_TICKS)  # given up, and yet on its way
    assert group[1].core.may_append
    assert not read(group, 2)


def test_a_lease_is_the_terms(group):
    group.elect(2)
    group.elect(1)
    assert not read(group, 1)


def test_other_voters_have_to_confirm_it_anew(group):
    group.change(1, ("REMOVE", 3))
    group.under_way = [message for message in group.under_way if message.to == 2]
    group.deliver()
    assert group[1].core.configuration.voters == {1, 2}
    assert not read(group, 1)


def test_a_restarted_member_keeps_its_word(group):
    """It may have confirmed a heartbeat just before; so it ignores candidates for a while."""
    group.crash(2)
    group.start(2)
    group.cut(1)
    group.forget_leader(3)
    group.lose_patience(3)
    group.deliver()
    assert group[3].core.role.value == "precandidate"
    group.tick(2, ELECTION_TICKS)
    group.tick(3, 3)
    group.deliver()
    assert group[3].core.role.value == "leader"


def test_a_higher_term_does_not_end_what_was_promised_to_a_leader(group):
    """Member 3 was elected to campaign, and then nobody heard of it until the leader was back."""
    term, log = Term(group[1].core.term + 1), group[3].core.log
    ask = m.VoteRequest(3, 2, term, last_index=log.last_index, last_term=log.last_term, pre=False, forced=False)
    # The late answer to a question that member 2 asked before it heard from its leader again.
    group[2].replica.step(m.VoteReply(3, 2, term, granted=False, pre=True))
    assert group[2].core.term == term
    group[2].replica.step(ask)
    group.serve(2)
    assert group[2].core.vote != 3
    group.tick(2, ELECTION_TICKS)
    group[2].replica.step(ask)
    group.serve(2)
    assert group[2].core.vote == 3


def test_without_the_wish_there_is_no_lease():
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    assert not read(group, 0)
