"""Joint quorums against a dumb twin that tries every set of voters."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from raft_store.raft.quorum import Verdict, is_quorum, joint_commit_index, joint_tally

MEMBERS = st.integers(1, 7)
VOTERS = st.frozensets(MEMBERS, min_size=1, max_size=5)
HALVES = st.one_of(st.tuples(VOTERS), st.tuples(VOTERS, VOTERS))


def agrees(members, halves):
    """Whether more than half of each half is among ``members``."""
    return all(sum(voter in members for voter in voters) * 2 > len(voters) for voters in halves)


@given(HALVES, st.dictionaries(MEMBERS, st.integers(0, 9)))
def test_the_commit_index_is_the_highest_that_enough_have(halves, matched):
    possible = [
        index for index in range(10) if agrees({member for member, at in matched.items() if at >= index}, halves)
    ]
    everywhere = 0 in possible or not matched
    assert everywhere or joint_commit_index(matched, halves) == 0
    assert joint_commit_index(matched, halves) == max(possible, default=0)


@given(HALVES, st.dictionaries(MEMBERS, st.booleans()))
def test_an_election_is_over_when_the_open_votes_cannot_change_it(halves, votes):
    voters = sorted(set().union(*halves))
    outcomes = set()
    for rest in itertools.product((False, True), repeat=len(voters)):
        final = dict(zip(voters, rest, strict=True)) | votes
        outcomes.add(agrees({member for member, granted in final.items() if granted}, halves))
    expected = {
        frozenset({True}): Verdict.WON,
        frozenset({False}): Verdict.LOST,
        frozenset({True, False}): Verdict.OPEN,
    }[frozenset(outcomes)]
    assert joint_tally(votes, halves) is expected


@given(HALVES, st.frozensets(MEMBERS))
def test_a_quorum(halves, members):
    assert is_quorum(members, halves) == agrees(members, halves)


@given(VOTERS, VOTERS, st.frozensets(MEMBERS), st.frozensets(MEMBERS))
def test_a_joint_majority_overlaps_any_majority_of_either_half(old, new, joint_members, others):
    """What makes joint consensus safe (thesis 4.3)."""
    if is_quorum(joint_members, (new, old)):
        for half in (old, new):
            if is_quorum(others & half, (half,)):
                assert joint_members & others
