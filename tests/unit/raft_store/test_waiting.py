"""Who waits for what was proposed."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from raft_store import waiting
from raft_store.engine import NoLeader
from raft_store.raft import proposals
from raft_store.raft.proposals import Proposal
from raft_store.waiting import Proposers


class Heard:
    """Whoever is told what comes of a proposal."""

    def __call__(self, results: object, exc: Exception | None) -> None:
        pass


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", ["settled", "refused", "forgotten", "too late"])
def test_who_was_answered_is_no_garbage_that_only_the_collector_finds(end: str) -> None:
    """Goal: the collector has nothing to do, which would stall a busy member for 20 ms twice a second."""
    proposers, heard = Proposers(Proposal), Heard()
    known = weakref.ref(heard)
    proposal = proposers.submit((b"a", b"b"), heard, until_s=1.0)
    match end:
        case "settled":
            proposers.settle(proposal, [1, 2])
        case "refused":
            proposers.refuse(proposal, NoLeader("nobody leads"))
        case "forgotten":
            proposers.forget(proposal)
        case _:
            proposers.look_at_clock(10.0)
    del heard, proposal
    assert known() is None
    assert proposers.open == 0


def test_who_joins_is_told_with_the_others():
    proposers, heard = Proposers(Proposal), []
    proposal = proposers.submit([b"a"], lambda results, exc: heard.append((results, exc)), until_s=1.0)
    assert proposers.join(proposal, [b"b", b"c"], until_s=1.0)
    assert (proposal.items, proposal.size_bytes, proposers.open) == ([b"a", b"b", b"c"], 3, 3)
    proposers.settle(proposal, [1, 2, 3])
    assert heard == [([1, 2, 3], None)]
    assert (proposers.open, proposers._open_bytes) == (0, 0)


@pytest.mark.parametrize("why", ["left", "over", "later", "too many", "too large", "too many wait", "too much waits"])
def test_nobody_joins_what_cannot_take_more(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proposers, until_s = Proposers(Proposal), 1.0
    proposal = proposers.submit([b"a"], Heard(), until_s=until_s)
    match why:
        case "left":
            proposal.in_flight = True
        case "over":
            proposers.settle(proposal, [1])
        case "later":
            until_s = 2.0
        case "too many":
            monkeypatch.setattr(proposals, "MAX_BATCH", 1)
        case "too large":
            monkeypatch.setattr(proposals, "MAX_BATCH_BYTES", 1)
        case "too many wait":
            monkeypatch.setattr(waiting, "MAX_OPEN_PROPOSALS", 1)
        case _:
            monkeypatch.setattr(waiting, "MAX_OPEN_BYTES", 1)
    open_before = proposers.open
    assert not proposers.join(proposal, [b"b"], until_s=until_s)
    assert (proposal.items, proposers.open) == ([b"a"], open_before)


def test_nothing_empty_joins():
    proposers = Proposers(Proposal)
    proposal = proposers.submit([b"a"], Heard(), until_s=1.0)
    with pytest.raises(ValueError, match="empty"):
        proposers.join(proposal, [b""], until_s=1.0)
