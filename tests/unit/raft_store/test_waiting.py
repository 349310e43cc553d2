"""Who waits for what was proposed."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from raft_store.engine import NoLeader
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
