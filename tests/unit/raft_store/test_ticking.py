"""Time told by need: quiet ticks are made up for, and a stall never looks like silence."""

import pytest

from raft_store.raft import messages as m
from raft_store.ticking import Ticks

from .raft.group import ELECTION_TICKS, Group

HEARTBEAT_TICKS = 3


def test_every_tick_is_waited_for_while_nothing_else_is_planned():
    ticks = Ticks(10.0, 100.0)
    assert (ticks.due_s, ticks.pass_quietly(109.0), ticks.is_over(109.0)) == (110.0, 0, False)
    assert (ticks.pass_quietly(111.0), ticks.is_over(111.0)) == (0, True)
    assert (ticks.due_s, ticks.is_over(111.0)) == (121.0, False)


def test_quiet_ticks_are_made_up_for_and_the_last_is_told_apart():
    ticks = Ticks(10.0, 100.0)
    ticks.plan(5)
    assert ticks.due_s == 150.0
    assert (ticks.pass_quietly(125.0), ticks.is_over(125.0)) == (2, False)
    assert ticks.due_s == 150.0
    assert (ticks.pass_quietly(150.0), ticks.is_over(150.0)) == (2, True)


def test_a_stall_is_no_more_ticks_than_were_planned():
    ticks = Ticks(10.0, 100.0)
    ticks.plan(3)
    assert (ticks.pass_quietly(1e6), ticks.is_over(1e6)) == (2, True)
    assert ticks.due_s == 1e6 + 10.0


def quiet(group, member):
    """Let all ticks pass that are said to be quiet but the last; nothing comes of them."""
    desk = group[member]
    said = desk.replica.quiet_ticks
    before = desk.core.role, desk.core.term
    for _ in range(said - 1):
        desk.replica.tick()
        assert desk.replica.ready() is None
    assert (desk.core.role, desk.core.term) == before
    return said


def test_a_follower_sleeps_until_just_before_it_would_lose_patience():
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    said = quiet(group, 2)
    assert said >= ELECTION_TICKS - 1
    group.tick(2)
    assert group[2].replica.quiet_ticks == 1
    assert group[2].core.role.value == "follower"  # whoever is woken late has a tick left to read what came
    group.tick(2)
    assert group[2].core.role.value == "precandidate"
    assert group[2].replica.quiet_ticks == 1


def test_a_leader_wakes_for_its_heartbeats_and_to_see_who_is_there():
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    for _ in range(3 * ELECTION_TICKS):
        assert quiet(group, 1) <= 3
        group.tick(1)
        group.deliver()
    assert group[1].core.role.value == "leader"
    group.cut(1)
    while group[1].core.role.value == "leader":  # until it sees that nobody is there
        quiet(group, 1)
        group.tick(1)
    assert group[1].core.role.value == "follower"


@pytest.mark.parametrize("case", ["proposal", "read", "transfer", "snapshot"])
def test_while_anything_waits_every_tick_counts(case):
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    member = 1
    if case == "proposal":
        member = 2
        group.propose(2, b"a")
    elif case == "read":
        member = 2
        group.read(2, "reader")
    elif case == "transfer":
        group.crash(2)
        group[1].core.transfer(2)
    else:
        group.cut(3)
        group.propose(1, b"a")
        group.deliver()
        group.take_snapshot(1)
        group.heal()
        group.tick(1, 3)
        group.deliver(lambda message: not isinstance(message, m.InstallSnapshot))
    assert group[member].replica.quiet_ticks == 1


@pytest.mark.parametrize(("now_s", "late"), [(100.0, 0), (110.0, 0), (119.9, 0), (120.0, 1), (175.0, 6)])
def test_lateness_is_counted_in_whole_ticks(now_s, late):
    assert Ticks(10.0, 100.0).late(now_s) == late


def test_who_stood_still_gives_its_leader_until_the_next_heartbeat():
    """All planned ticks passed at once, and a machine that stalls takes the leader along."""
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    group.heartbeat(1)
    quiet(group, 2)
    group.tick(2)
    group[2].replica.excuse(50)
    group.tick(2, HEARTBEAT_TICKS)
    assert group[2].core.role.value == "follower"
    assert quiet(group, 2) == 1
    group.tick(2)
    assert group[2].core.role.value == "precandidate"


def test_who_is_always_late_still_notices_that_its_leader_is_gone():
    group = Group(3)
    group.elect(1)
    group.heartbeat(1)
    group.cut(1)
    for _ in range(2 * ELECTION_TICKS + HEARTBEAT_TICKS):
        group[2].replica.excuse(1)
        group.tick(2)
    assert group[2].core.role.value == "precandidate"


def test_a_sign_of_life_buys_a_new_excuse():
    group = Group(3)
    group.elect(1)
    for _ in range(2):
        group.heartbeat(1)
        quiet(group, 2)
        group[2].replica.excuse(50)
        group.tick(2, HEARTBEAT_TICKS)
        assert group[2].core.role.value == "follower"


def clocks(group, member):
    core, patience = group[member].core, group[member].core.patience
    return core.role, core._since_leader, core._deaf_ticks, patience._clock, core.log.committed


@pytest.mark.parametrize("count", [1, 2, 3, ELECTION_TICKS - 1, ELECTION_TICKS, 2 * ELECTION_TICKS])
@pytest.mark.parametrize("member", [1, 2])
@pytest.mark.parametrize("waiting", [False, True], ids=["nobody waits", "a proposal waits"])
def test_ticks_that_pass_at_once_are_ticks(member, count, waiting):
    one_by_one, at_once = Group(3), Group(3)
    for group in (one_by_one, at_once):
        group.elect(1)
        group.heartbeat(1)
        if waiting:
            group.propose(member, b"a")
            group.under_way.clear()
    for _ in range(count):
        one_by_one[member].replica.tick()
    at_once[member].replica.pass_ticks(count)
    assert clocks(at_once, member) == clocks(one_by_one, member)
    for group in (one_by_one, at_once):
        group.serve(member)
    assert at_once.under_way == one_by_one.under_way


def test_a_leader_looks_at_its_quorum_when_a_heartbeat_is_due_anyway():
    """An idle leader is woken for its heartbeats alone."""
    group = Group(3)
    group.elect(1)
    for _ in range(5):
        said = group[1].replica.quiet_ticks
        assert said == HEARTBEAT_TICKS
        group.heartbeat(1)


def test_a_leader_that_readers_keep_busy_still_notices_that_its_quorum_is_gone():
    """6.2: their questions are heartbeats too, so that none is ever due."""
    group = Group(3)
    group.elect(1)
    group.cut(1)
    for _ in range(2 * ELECTION_TICKS):
        group.read(1, "reader")
        group.tick(1)
    assert group[1].core.role.value == "follower"
