"""What a member's core says and hears is told to who looks, and to nobody else."""

import pytest

from raft_store import trace as trace_module
from raft_store.engine import MemberId, Term
from raft_store.raft import messages as m
from raft_store.raft.state import Role
from raft_store.trace import Trace


class Watched:
    def __init__(self):
        self.now = 100.0
        self.stand = (Role.FOLLOWER, Term(1), MemberId(0))
        self.trace = Trace(MemberId(1), now=lambda: self.now, stand=lambda: self.stand)

    def told(self, after):
        page = self.trace.look(after, applied=7)
        return page.next, [(event.kind, event.peer, event.text) for event in page.events]


@pytest.fixture
def watched():
    return Watched()


def vote(term=2):
    return m.VoteRequest(
        MemberId(1), MemberId(0xAB), Term(term), last_index=4, last_term=Term(1), pre=False, forced=False
    )


def test_it_is_off_until_somebody_looks_and_again_soon_after(watched):
    trace = watched.trace
    assert not trace.on
    watched.told(0)
    assert trace.on
    watched.now += trace_module.LOOKS_S + 0.1
    trace.sent([vote()])
    assert not trace.on
    assert not trace._events


def test_a_first_look_says_where_the_member_stands_and_later_ones_what_happened(watched):
    after, told = watched.told(0)
    assert told == [("became", "", "now in term 1")]
    watched.stand = (Role.CANDIDATE, Term(2), MemberId(0))
    watched.trace.sent([vote()])
    reply = m.VoteReply(MemberId(0xAB), MemberId(1), Term(2), granted=True, pre=False)
    watched.trace.received([reply])
    watched.stand = (Role.LEADER, Term(2), MemberId(1))
    after, told = watched.told(after)
    assert told == [
        ("became", "", "campaigns in term 2, votes for itself"),
        ("sent", "ab", "VOTE? t2, log 4/t1"),
        ("received", "ab", "yes, t2"),
        ("became", "1", "LEADS in term 2"),
    ]
    assert watched.told(after) == (after, [])


def test_what_nobody_fetched_in_time_is_counted(watched, monkeypatch):
    after, _ = watched.told(0)
    many = trace_module.MAX_EVENTS + 10
    for term in range(many):
        watched.trace.sent([vote(term)])
    page = watched.trace.look(after, applied=7)
    assert (page.missed, len(page.events)) == (10, trace_module.MAX_EVENTS)
    assert page.events[-1].text.startswith(f"VOTE? t{many - 1},")


def test_a_number_of_an_earlier_life_gives_what_there_is(watched):
    watched.told(0)
    watched.trace.sent([vote()])
    assert watched.told(9999)[1] == [("sent", "ab", "VOTE? t2, log 4/t1")]


def test_what_comes_while_two_look_is_told_to_both(watched):
    first, _ = watched.told(0)
    watched.trace.sent([vote()])
    second, told = watched.told(0)
    assert told == [("became", "", "now in term 1")]
    watched.trace.sent([vote(3)])
    assert len(watched.told(first)[1]) == 2
    assert len(watched.told(second)[1]) == 1
