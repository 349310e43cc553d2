"""Configurations as values: what a change makes of one, what is refused, and when it takes effect."""

from contextlib import nullcontext

import pytest

from raft_store.engine import Change, ChangeKind, ChangeRefused, Index, MemberId, Refusal
from raft_store.raft import messages as m
from raft_store.raft.membership import (
    Configuration,
    History,
    Step,
    alone,
    changed,
    check_active,
    check_started,
    decode,
    encode,
    founded,
    in_sync,
    left,
)

from .group import Group

ADD, ADD_LEARNER, PROMOTE, DEMOTE, REMOVE, MOVE = (
    ChangeKind.ADD,
    ChangeKind.ADD_LEARNER,
    ChangeKind.PROMOTE,
    ChangeKind.DEMOTE,
    ChangeKind.REMOVE,
    ChangeKind.MOVE,
)


def url(member):
    return f"http://m{member}:2380"


def group(*voters, learners=(), removed=()):
    return Configuration(
        voters=frozenset(voters),
        learners=frozenset(learners),
        removed=frozenset(removed),
        urls={member: (url(member),) for member in (*voters, *learners)},
    )


def change(kind, member, *urls):
    takes_urls = kind in (ADD, ADD_LEARNER, MOVE)
    return Change(kind, MemberId(member), urls or ((url(member),) if takes_urls else ()))


@pytest.mark.parametrize(
    ("before", "wish", "after"),
    [
        pytest.param(group(1), change(ADD, 2), group(1, 2), id="a voter comes"),
        pytest.param(group(1), change(ADD_LEARNER, 2), group(1, learners=[2]), id="a learner comes"),
        pytest.param(group(1, learners=[2]), change(PROMOTE, 2), group(1, 2), id="a learner may vote"),
        pytest.param(group(1, 2), change(DEMOTE, 2), group(1, learners=[2]), id="a voter may not any more"),
        pytest.param(group(1, 2), change(REMOVE, 1), group(2, removed=[1]), id="a voter goes"),
        pytest.param(group(1, learners=[2]), change(REMOVE, 2), group(1, removed=[2]), id="a learner goes"),
        pytest.param(
            group(1), change(MOVE, 1, "http://x:1"), Configuration(voters=frozenset({1}), urls={1: ("http://x:1",)}),
            id="a member moves",
        ),
    ],
)  # fmt: skip
def test_one_step(before, wish, after):
    assert changed(before, [wish]) == after


@pytest.mark.parametrize(
    ("before", "wishes", "refusal"),
    [
        (group(1, 2), [change(ADD, 2)], Refusal.MEMBER_EXISTS),
        (group(1, 2), [change(ADD_LEARNER, 2)], Refusal.MEMBER_EXISTS),
        (group(1, removed=[2]), [change(ADD, 2)], Refusal.MEMBER_REMOVED),
        (group(1), [change(ADD, 2, url(1))], Refusal.URL_TAKEN),
        (group(1, 2), [change(MOVE, 2, url(1))], Refusal.URL_TAKEN),
        (group(1), [change(REMOVE, 2)], Refusal.MEMBER_UNKNOWN),
        (group(1), [change(MOVE, 2)], Refusal.MEMBER_UNKNOWN),
        (group(1), [change(PROMOTE, 2)], Refusal.MEMBER_UNKNOWN),
        (group(1), [change(PROMOTE, 1)], Refusal.NOT_A_LEARNER),
        (group(1, learners=[2]), [change(DEMOTE, 2)], Refusal.NOT_A_VOTER),
        (group(1, learners=[2]), [change(ADD_LEARNER, 3)], Refusal.TOO_MANY_LEARNERS),
        (group(1), [change(REMOVE, 1)], Refusal.LAST_VOTER),
        (group(1, 2), [change(REMOVE, 1), change(REMOVE, 2)], Refusal.LAST_VOTER),
        (group(1), [change(DEMOTE, 1)], Refusal.LAST_VOTER),
        (
            changed(group(1, 2), [change(ADD, 3), change(ADD, 4)]),
            [change(REMOVE, 1)],
            Refusal.CHANGE_UNDER_WAY,
        ),
    ],
)
def test_what_is_refused(before, wishes, refusal):
    with pytest.raises(ChangeRefused) as caught:
        changed(before, wishes)
    assert caught.value.refusal is refusal


def test_a_member_is_replaced_at_its_own_address():
    joint = changed(group(1, 2, 3), [change(REMOVE, 3), change(ADD, 4, url(3))])
    assert joint.halves == ({1, 2, 4}, {1, 2, 3})
    assert joint.urls[3] == joint.urls[4]  # both are dialled until the change is over
    assert joint.removed == frozenset()
    assert left(joint) == Configuration(
        voters=frozenset({1, 2, 4}), removed=frozenset({3}), urls={1: (url(1),), 2: (url(2),), 4: (url(3),)}
    )


def test_a_voter_on_its_way_to_be_a_learner_votes_to_the_end():
    joint = changed(group(1, 2, 3), [change(DEMOTE, 3)], joint=True)
    assert (joint.electorate, joint.learners, joint.learners_next) == ({1, 2, 3}, frozenset(), {3})
    assert left(joint) == group(1, 2, learners=[3])


def test_of_a_lost_group_one_member_is_left():
    joint = changed(group(1, 2, 3), [change(ADD, 4), change(REMOVE, 1)])
    assert alone(joint, MemberId(2)) == Configuration(
        voters=frozenset({2}), removed=frozenset({1, 3, 4}), urls={2: (url(2),)}
    )


def test_a_configuration_survives_its_encoding():
    before = changed(group(1, 2, 3, removed=[9]), [change(ADD, 1 << 63), change(DEMOTE, 3)], joint=True)
    assert decode(encode(before)) == before
    shuffled = founded({2: ("b",), 1: ("a",)})
    assert encode(shuffled) == encode(founded({1: ("a",), 2: ("b",)}))


@pytest.mark.parametrize(
    ("size", "started", "active", "wish", "refusal"),
    [
        pytest.param(1, {1}, {1}, change(ADD, 9), None, id="one may always grow"),
        pytest.param(2, {1}, {1}, change(ADD, 9), Refusal.TOO_FEW_STARTED, id="the second one never started"),
        pytest.param(3, {1, 2, 3}, {1, 2, 3}, change(ADD, 9), None, id="all well"),
        pytest.param(3, {1, 2}, {1, 2}, change(ADD, 9), Refusal.TOO_FEW_STARTED, id="of four three must have started"),
        pytest.param(3, {1, 2, 3}, {1, 2}, change(ADD, 9), Refusal.UNHEALTHY, id="of four three must answer"),
        pytest.param(3, {1, 2, 3}, {1, 2}, change(ADD_LEARNER, 9), Refusal.UNHEALTHY, id="also for a learner"),
        pytest.param(1, {1}, {1}, change(ADD_LEARNER, 9), None, id="one may always have a learner"),
        pytest.param(3, {1, 2, 3}, {1, 2}, change(REMOVE, 3), None, id="who is down may go"),
        pytest.param(3, {1, 2, 3}, {1, 2}, change(REMOVE, 2), Refusal.UNHEALTHY, id="who is up may not"),
        pytest.param(3, {1, 2}, {1, 2}, change(REMOVE, 2), Refusal.TOO_FEW_STARTED, id="one started would be left"),
        pytest.param(1, {1}, {1}, change(REMOVE, 1), Refusal.TOO_FEW_STARTED, id="nobody would be left"),
        pytest.param(3, {1, 2, 3}, {1, 2}, change(DEMOTE, 2), Refusal.UNHEALTHY, id="demotion takes a vote too"),
        pytest.param(2, {1}, {1}, change(PROMOTE, 9), None, id="promoted is started"),
        pytest.param(4, {1}, {1}, change(PROMOTE, 9), Refusal.TOO_FEW_STARTED, id="but alone is not enough"),
        pytest.param(3, {1}, {1}, change(REMOVE, 9), None, id="a learner or nobody: no vote is lost"),
    ],
)
def test_prudence(size, started, active, wish, refusal):
    """etcd's strict check of reconfigurations: what Raft allows may still leave a group that cannot agree."""
    before = group(*range(1, size + 1), learners=[9] if wish.kind is PROMOTE else ())
    with pytest.raises(ChangeRefused) if refusal else nullcontext() as caught:
        check_started(before, [wish], started)
        check_active(before, [wish], active)
    assert (caught and caught.value.refusal) is refusal


@pytest.mark.parametrize(("learner", "expected"), [(89, False), (90, True), (100, True)])
def test_in_sync_means_nine_tenths(learner, expected):
    assert in_sync(learner_matched=learner, leader_matched=100) is expected


def test_a_history_is_cut_and_compacted_with_its_log():
    history = History(Index(0), group(1))
    history.add(Index(5), group(1, 2))
    history.add(Index(9), group(1, 2, 3))
    assert [history.at(Index(i)).configuration for i in (4, 5, 8, 9, 20)] == [
        group(1),
        group(1, 2),
        group(1, 2),
        group(1, 2, 3),
        group(1, 2, 3),
    ]
    history.compact(Index(7))
    assert (history.at(Index(7)), history.newest) == (Step(5, group(1, 2), sealed=False), 9)
    history.cut(Index(9))
    assert history.newest == 5


def test_a_change_that_another_leader_replaces_was_surely_not_made():
    """4.1: a configuration goes with its entry."""
    desk = Group(3)
    desk.elect(1)
    desk.cut(1)
    desk.change(1, ("REMOVE", 3), owner="mine")
    desk.deliver()
    desk.elect(2)
    desk.heal()
    desk.heartbeat(2)
    desk.heartbeat(2)
    assert desk[1].changes == [("mine", False)]
    assert desk[1].core.configuration.voters == {1, 2, 3}


def test_what_a_restarted_member_knows_of_its_group():
    """Nothing but the log says who the members are, and a commit mark is not on disk."""
    desk = Group(3)
    desk.elect(1)
    desk.change(1, ("REMOVE", 3))
    desk.deliver()
    desk.change(1, ("ADD_LEARNER", 4))
    desk.deliver(lambda message: not carries(message, 5))
    assert desk[1].core.configuration.learners == {4}
    desk.crash(2)
    desk.start(2)
    # The second change proves the first one committed; its own seal did not arrive.
    assert (desk[2].core.configuration.voters, desk[2].core.configuration.learners) == ({1, 2}, frozenset())
    desk.crash(1)
    desk.start(1)
    assert desk[1].core.configuration.learners == {4}


def test_the_last_of_two_members_can_restart_alone():
    """What the seal is for: nobody is left to ask."""
    desk = Group(2)
    desk.elect(2)
    desk.change(2, ("REMOVE", 1))
    desk.deliver()
    assert desk[2].changes == [("change", True)]
    desk.crash(1)
    desk.crash(2)
    desk.start(2)
    desk.tick(2)
    assert desk[2].core.role.value == "leader"
    desk.propose(2, b"alone")
    assert desk[2].values == [b"alone"]


def test_a_removed_leader_is_there_until_the_others_know():
    """4.2.2: the only one who knows is no voter any more, and has more in its log than the voter."""
    desk = Group(2)
    desk.elect(1)
    desk.change(1, ("REMOVE", 1))
    desk.propose(1, b"a")
    desk.deliver(lambda message: not carries(message, 3))
    assert (desk[1].core.role.value, desk[1].core.removed, desk[1].changes) == ("leader", False, [])
    desk.crash(1)
    desk.start(1)
    # It lacks a vote in the newest configuration of its log; member 2 lacks entries. Together they get on.
    desk.forget_leader(2)
    desk.lose_patience(1)
    desk.deliver()
    assert desk[1].core.removed
    assert desk[2].core.role.value == "leader"
    assert desk[2].values == [b"a"]


def carries(message, index):
    """Whether a message is an append with the entry at ``index``."""
    return isinstance(message, m.Append) and any(entry.index == index for entry in message.entries)


def test_a_snapshot_carries_the_group():
    desk = Group(2)
    desk.elect(1)
    desk.change(1, ("ADD_LEARNER", 3))
    desk.propose(1, b"a")
    desk.deliver()
    desk.take_snapshot(1)
    desk.join(3)
    desk.heartbeat(1)
    desk.heartbeat(1)
    assert desk[3].core.configuration == desk[1].core.configuration
    assert desk[3].values == [b"a"]
    desk.crash(3)
    desk.start(3)
    assert desk[3].core.configuration.learners == {3}


def test_a_member_restarted_from_the_empty_state_is_brought_up_by_a_leader_only():
    """4.2.1: a member that knows nobody waits to be spoken to."""
    desk = Group(1)
    desk.join(2)
    desk.tick(2, 100)
    assert (desk[2].core.term, desk.under_way) == (0, [])


def test_a_leader_that_removes_itself_is_not_missed():
    """4.2.2: it hands over with the commit, so that no time-out has to pass."""
    desk = Group(3)
    desk.elect(1)
    desk.change(1, ("REMOVE", 1))
    desk.propose(2, b"meanwhile")
    desk.deliver()
    assert desk[1].core.removed
    assert {desk[2].core.role.value, desk[3].core.role.value} == {"leader", "follower"}
    desk.propose(3, b"after")
    desk.deliver()
    assert desk[2].values == [b"meanwhile", b"after"]


def test_a_transfer_to_whom_cannot_lead_is_refused():
    """3.10."""
    desk = Group(2)
    desk.elect(1)
    desk.change(1, ("ADD_LEARNER", 3))
    desk.deliver()
    core = desk[1].core
    assert [core.transfer(MemberId(to)) for to in (1, 3, 4)] == [False, False, False]
    assert not desk[2].core.transfer(MemberId(1))  # it does not lead
    assert core.transfer(MemberId(2))


def test_a_transfer_is_over_when_its_heir_is_removed():
    desk = Group(3)
    desk.elect(1)
    desk.change(1, ("REMOVE", 3))
    desk.cut(3)
    desk[1].core.transfer(MemberId(3))
    desk.deliver()
    assert desk[1].core.may_append


def test_a_removed_member_whose_snapshot_ends_with_its_removal_still_votes():
    """4.2.2: only the seal says that nobody needs it; a snapshot of the removal alone does not."""
    desk = Group(2)
    desk.elect(1)
    desk.change(1, ("REMOVE", 2))
    desk[1].slow = True  # its seal stays in memory
    desk.deliver(lambda message: not carries(message, 3))
    desk.tick(1, 3)
    desk.deliver(lambda message: not carries(message, 3))
    assert desk[2].core.configuration.voters == {1}
    desk.take_snapshot(2)
    for member in (1, 2):
        desk.crash(member)
        desk[member].slow = False
        desk.start(member)
    assert not desk[2].core.removed
    desk.elect(1)
    desk.heartbeat(1)
    assert desk[2].core.removed
    desk.propose(1, b"alone")
    assert desk[1].values == [b"alone"]


def test_a_joint_configuration_in_a_snapshot_is_left_by_whoever_leads_from_it():
    """4.3: until then the group needs both majorities, and cannot be changed any more."""
    desk = Group(3)
    desk.elect(1)
    desk.change(1, ("DEMOTE", 3), joint=True)
    desk[1].slow = True  # the end of the change stays in memory
    desk.deliver(lambda message: not carries(message, 3))
    desk.tick(1, 3)
    desk.deliver(lambda message: not carries(message, 3))
    assert desk[2].core.configuration.outgoing == {1, 2, 3}
    desk.take_snapshot(2)
    for member in (1, 2):
        desk.crash(member)
        desk[member].slow = False
        desk.start(member)
    desk.elect(2)
    desk.heartbeat(2)
    assert [desk[member].core.configuration.outgoing for member in desk.desks] == [frozenset()] * 3


def test_a_snapshot_after_the_seal_says_who_is_gone():
    desk = Group(3)
    desk.elect(1)
    desk.change(1, ("REMOVE", 3))
    desk.deliver()
    desk.take_snapshot(2)
    desk.crash(2)
    desk.start(2)
    assert desk[2].core.gone_for_good == {3}
