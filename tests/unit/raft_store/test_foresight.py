"""What a leader foresees is told once the group agrees, and only then; and it is what it comes to."""

import pytest

from raft_store.foresight import Foresight

from .raft.group import Group


class Machine:
    """Foresees that each proposal comes to its own bytes."""

    def __init__(self):
        self.knows = True

    def foresee(self, items):
        return [bytes(data) for data in items] if self.knows else ()


class Telling(Group):
    """A group whose first member looks ahead."""

    def __init__(self, size=3):
        self.foresight, self.told = None, []
        super().__init__(size)
        self.elect(1)
        self.heartbeat(1)
        self.machine = Machine()
        self.foresight = Foresight(self[1].replica, self.machine)

    def serve(self, member):
        if member == 1 and self.foresight is not None and (foreseen := self.foresight.come_true()) is not None:
            self.told.append([list(results) for _, results in foreseen.shares])
            assert self.foresight.owes
        super().serve(member)
        if self.told:
            self.foresight.check(self.told[-1][0])


def shares(foreseen):
    return [(proposal.owner, list(results)) for proposal, results in foreseen.shares]


def test_a_lone_proposal_is_foreseen_and_told_when_a_majority_has_it():
    group = Telling()
    group.propose(1, b"a")
    assert shares(group.foresight.look(waiting=1)) == [(b"a", [b"a"])]
    assert group.foresight.look(waiting=1) is None  # it is known already
    group.serve(1)
    assert group.told == []
    group.deliver()
    assert group.told == [[[b"a"]]]
    assert not group.foresight.owes


def test_what_shares_an_entry_is_foreseen_together():
    group = Telling()
    group.propose(1, b"a", b"b")
    assert shares(group.foresight.look(waiting=1)) == [(b"a", [b"a"]), (b"b", [b"b"])]


def test_nothing_is_foreseen_where_many_wait_for_another_entry():
    """To work that out would be in the way of theirs."""
    group = Telling()
    group.propose(1, b"a", b"b", b"c")
    assert group.foresight.look(waiting=5) is None
    group.propose(1, b"d")
    group.deliver()
    assert group.told == []


def test_a_few_that_came_too_late_for_an_entry_keep_nobody_from_foreseeing_it():
    group = Telling()
    group.propose(1, b"a", b"b", b"c")
    assert shares(group.foresight.look(waiting=4)) == [(b"a", [b"a"]), (b"b", [b"b"]), (b"c", [b"c"])]


def test_what_a_machine_does_not_know_is_not_foreseen():
    group = Telling()
    group.machine.knows = False
    group.propose(1, b"a")
    assert group.foresight.look(waiting=1) is None
    group.deliver()
    assert (group.told, group[1].settled) == ([], [b"a"])


def test_nothing_is_foreseen_behind_what_is_not_applied():
    group = Telling()
    group.propose(1, b"a")
    group.propose(1, b"b")
    assert group.foresight.look(waiting=1) is None
    group.deliver()
    assert group.told == []


def test_followers_foresee_nothing():
    group = Telling()
    group.propose(2, b"a")
    assert Foresight(group[2].replica, group.machine).look(waiting=1) is None


def test_who_leads_no_more_foresees_nothing():
    """Others may put another entry there."""
    group = Telling()
    group.cut(1)
    group.propose(1, b"a")
    core = group[1].core
    core._become_follower(core.term, 0)  # as who lost its quorum does
    assert group.foresight.look(waiting=1) is None


def test_what_others_proposed_is_not_foreseen():
    group = Telling()
    group.propose(2, b"a")
    group.deliver(lambda message: message.to == 1)  # it is in the leader's log, and nowhere else
    assert group[1].core.log.last_index == group[1].core.log.applied + 1
    assert group.foresight.look(waiting=1) is None


def test_what_was_foreseen_in_another_term_is_forgotten():
    """Another leader's entry has taken the place of ours."""
    group = Telling()
    group.cut(1)
    group.propose(1, b"a")
    assert group.foresight.look(waiting=1) is not None
    group.elect(2)  # its own first entry has the same index
    group.heal()
    group.heartbeat(2)
    group.heartbeat(2)
    assert group.told == []
    assert not group.foresight.owes


def test_what_comes_to_something_else_ends_the_member():
    group = Telling()
    group.propose(1, b"a")
    group.foresight.look(waiting=1)
    group.foresight._replica.core.log.commit_to(group[1].core.log.last_index)
    assert group.foresight.come_true() is not None
    with pytest.raises(AssertionError, match="foretold otherwise"):
        group.foresight.check([b"something else"])


def test_nothing_is_told_before_our_own_disk_has_it():
    """It could not be applied yet, and whoever is answered may read here what it wrote."""
    group = Telling()
    group[1].slow = True
    group.propose(1, b"a")
    assert group.foresight.look(waiting=1) is not None
    group.deliver()
    assert group[1].core.log.committed == group[1].core.log.last_index
    assert group.told == []
    group.sync(1)
    assert (group.told, group[1].settled) == ([[[b"a"]]], [b"a"])
