"""The lab's health in words, from what its masters say of themselves and each other.

Container states are no proof of anything: a running master may be cut off, and quorum is the store's own fact. So
the masters' answers decide; the hosts' states only explain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LEADER = "leader"


@dataclass(frozen=True, slots=True)
class MasterView:
    """One master as some master sees it; mirrors the contract's MasterStatus."""

    name: str
    reachable: bool
    role: str = ""
    term: int = 0
    commit_index: int = 0
    applied_index: int = 0
    lag: int = 0
    store_bytes: int = 0
    store_version: str = ""
    runs_controllers: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one master answered."""

    answered_by: str
    masters: tuple[MasterView, ...]

    @property
    def reachable(self) -> int:
        """Return how many masters the answering one reaches, itself included."""
        return sum(master.reachable for master in self.masters)

    @property
    def leader(self) -> MasterView | None:
        """Return the leader of the newest term that the answering master reaches."""
        leaders = [master for master in self.masters if master.reachable and master.role == LEADER]
        return max(leaders, key=lambda master: master.term, default=None)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether writes are possible, and in words what that hangs on."""

    writes: bool
    words: str
    masters: tuple[MasterView, ...] = field(default=())


def judge(total: int, answers: Sequence[Answer], *, external_store: bool = False) -> Health:
    """Return the health of a lab of ``total`` masters from the answers that came in time."""
    if not answers:
        words = f"0 of {total} masters answer: no writes until {_count(majority(total))} run"
        return Health(writes=False, words=words)
    if external_store:
        return _judge_external(total, answers)
    best = max(answers, key=_weight)
    members, quorum = best.reachable, majority(total)
    views = best.masters
    opening = f"{members} of {total} {_masters(total)}"
    if members < quorum:
        missing = quorum - members
        verb = "is" if missing == 1 else "are"
        words = f"{opening}: no writes until {_count(missing)} more {verb} back"
        return Health(writes=False, words=words, masters=views)
    if best.leader is None:
        return Health(writes=False, words=f"{opening}: no leader yet; no writes until one is elected", masters=views)
    if members == 1:
        loss = "losing it stops them"
    else:
        loss = "losing one more keeps them" if members - 1 >= quorum else "losing one more stops them"
    return Health(writes=True, words=f"{opening}: writes possible; {loss}", masters=views)


def majority(total: int) -> int:
    """Return how many of ``total`` members make a quorum."""
    return total // 2 + 1


def _judge_external(total: int, answers: Sequence[Answer]) -> Health:
    best = max(answers, key=lambda answer: answer.reachable)
    writes = any(master.runs_controllers for master in best.masters)
    state = "writes possible" if writes else "no master holds the leadership record, so nothing is reconciled"
    words = f"{best.reachable} of {total} {_masters(total)} on an external store: {state}"
    return Health(writes=writes, words=words, masters=best.masters)


def _weight(answer: Answer) -> tuple[int, int, int]:
    """A side with a leader of the newest term speaks for the lab; a cut-off old leader does not."""
    leader = answer.leader
    in_majority = leader is not None and answer.reachable >= majority(len(answer.masters))
    return (int(in_majority), leader.term if leader else -1, answer.reachable)


def merge(answers: Sequence[Answer], verdict: Health) -> Mapping[str, MasterView]:
    """Return the best view of each master: the verdict's, or what the master said of itself if that side lost it."""
    views = {master.name: master for master in verdict.masters}
    for answer in answers:
        for master in answer.masters:
            if master.name == answer.answered_by and not views[master.name].reachable:
                views[master.name] = master
    return views


def _masters(total: int) -> str:
    return "master" if total == 1 else "masters"


def _count(number: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(number, str(number))
