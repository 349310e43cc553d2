"""What a majority has agreed to; in a joint configuration: what a majority of each half has (thesis 4.3)."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum

from raft_store.engine import MemberId


class Verdict(Enum):
    """How a vote stands."""

    WON = "won"
    LOST = "lost"
    OPEN = "open"


def majority(voters: frozenset[MemberId]) -> int:
    """Return the smallest number of ``voters`` of which any two sets overlap."""
    return len(voters) // 2 + 1


def commit_index(matched: Mapping[MemberId, int], voters: frozenset[MemberId]) -> int:
    """Return the highest log index that a majority of ``voters`` has on disk.

    matched: member -> highest index it confirmed; an absent voter counts as 0.
    Raises ValueError if ``voters`` is empty.
    Source: Ongaro's thesis 3.5; the term check of 3.6.2 stays with the caller.
    """
    if not voters:
        raise ValueError("a quorum needs at least one voter")
    highest_first = sorted([matched.get(v, 0) for v in voters], reverse=True)
    return highest_first[len(voters) // 2]


def tally(votes: Mapping[MemberId, bool], voters: frozenset[MemberId]) -> Verdict:
    """Return how an election stands; ``votes``: member -> granted, absent: not answered yet."""
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= majority(voters):
        return Verdict.WON
    # Enough refusals that the rest cannot make a majority any more.
    if refused > len(voters) - majority(voters):
        return Verdict.LOST
    return Verdict.OPEN


def joint_commit_index(matched: Mapping[MemberId, int], halves: Sequence[frozenset[MemberId]]) -> int:
    """Return the highest log index that a majority of each of ``halves`` has on disk; see ``commit_index``."""
    if len(halves) == 1:
        return commit_index(matched, halves[0])
    return min(commit_index(matched, voters) for voters in halves)


def joint_tally(votes: Mapping[MemberId, bool], halves: Sequence[frozenset[MemberId]]) -> Verdict:
    """Return how an election stands that each of ``halves`` has to win; see ``tally``."""
    verdicts = {tally(votes, voters) for voters in halves}
    if Verdict.LOST in verdicts:
        return Verdict.LOST
    return Verdict.OPEN if Verdict.OPEN in verdicts else Verdict.WON


def is_quorum(members: AbstractSet[MemberId], halves: Sequence[frozenset[MemberId]]) -> bool:
    """Return whether ``members`` hold a majority of each of ``halves``."""
    return all(len(members & voters) >= majority(voters) for voters in halves)
