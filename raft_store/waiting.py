"""Who waits for the replica, and until when. Each is answered once: by the replica, by a deadline, or by the end.

Proposers are called back, for a write must not cost the futures and coroutines of a wait; readers and those who change
the group are fewer, and wait for futures.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from fastgrpc.deadlines import Deadlines, place_of
from raft_store.engine import ChangeRefused, Done, EngineError, Foresee, NoLeader, Overloaded, ProposalTimedOut, Refusal
from raft_store.raft.proposals import Proposal

log = logging.getLogger(__name__)

MAX_OPEN_PROPOSALS = 50_000
MAX_OPEN_BYTES = 128 << 20


class _Proposer:
    """The owner of a proposal that was made here."""

    __slots__ = ("done", "foresee", "place", "proposal")

    def __init__(self, done: Done, foresee: Foresee | None) -> None:
        self.done = done
        self.foresee = foresee
        self.place = 0  # among the deadlines
        self.proposal: Proposal


class Proposers:
    """Whoever waits for what it proposed."""

    def __init__(self, propose: Callable[[Sequence[bytes], object, int], Proposal]) -> None:
        self._propose = propose
        self._deadlines: Deadlines[_Proposer] = Deadlines()
        self.open = 0  # proposals that wait
        self._open_bytes = 0

    def submit(self, items: Sequence[bytes], done: Done, *, until_s: float, foresee: Foresee | None = None) -> Proposal:
        """Propose ``items`` together; ``done`` hears what comes of them. Raises Overloaded if too many wait."""
        if b"" in items:
            raise ValueError("an empty proposal means a leader's first entry")
        size_bytes = len(items[0]) if len(items) == 1 else sum(map(len, items))
        if self.open >= MAX_OPEN_PROPOSALS or self._open_bytes + size_bytes > MAX_OPEN_BYTES:
            raise Overloaded(f"{self.open} requests of {self._open_bytes} bytes are waiting")
        proposer = _Proposer(done, foresee)
        proposer.proposal = self._propose(items, proposer, size_bytes)
        proposer.place = self._deadlines.add(proposer, until_s)
        self.open += len(items)
        self._open_bytes += size_bytes
        return proposer.proposal

    def join(self, proposal: Proposal, items: Sequence[bytes], *, until_s: float) -> bool:
        """Let ``items`` share what ``submit`` returned, if it has not left and ends about then; return whether they do.

        Who hears of it hears of them as well, behind the others.
        """
        if b"" in items:
            raise ValueError("an empty proposal means a leader's first entry")
        proposer = proposal.owner
        if not isinstance(proposer, _Proposer) or proposer.place != place_of(until_s):
            return False
        size_bytes = sum(map(len, items))
        if self.open >= MAX_OPEN_PROPOSALS or self._open_bytes + size_bytes > MAX_OPEN_BYTES:
            return False
        if not proposal.join(items, size_bytes):
            return False
        self.open += len(items)
        self._open_bytes += size_bytes
        return True

    def foresee(self, proposal: Proposal, results: Sequence[object]) -> None:
        """Let who proposed make ready what it says if this is what the proposal comes to."""
        proposer = proposal.owner
        if proposal.abandoned or not isinstance(proposer, _Proposer) or proposer.foresee is None:
            return
        try:
            proposer.foresee(results)
        except Exception:
            log.exception("whoever proposed cannot make an answer ready")

    def settle(self, proposal: Proposal, results: Sequence[object]) -> None:
        """It is certain what a proposal comes to: the machine has applied it, or does so next."""
        if not proposal.abandoned:
            self._end(proposal, results, None)

    def refuse(self, proposal: Proposal, exc: EngineError) -> None:
        """Nothing comes of a proposal, or nobody will ever know."""
        if not proposal.abandoned:
            self._end(proposal, (), exc)

    def forget(self, proposal: Proposal) -> None:
        """Its proposer waits no more; where it is under way, it goes on."""
        if not proposal.abandoned:
            self._let_go(proposal)

    def lose(self, proposal: Proposal, exc: EngineError) -> None:
        """A snapshot hides what became of a proposal.

        The replica has abandoned it, so that it is proposed no more; its proposer still waits.
        """
        proposal.abandoned = False
        self.refuse(proposal, exc)

    def look_at_clock(self, now_s: float) -> None:
        """Refuse those whose time is over."""
        for proposer in self._deadlines.due(now_s):
            self.refuse(proposer.proposal, _too_late(proposer.proposal))

    def refuse_all(self, exc: EngineError) -> None:
        """The member ends."""
        for proposer in self._deadlines.all():
            self.refuse(proposer.proposal, exc)

    def _end(self, proposal: Proposal, results: Sequence[object], exc: EngineError | None) -> None:
        proposer = self._let_go(proposal)
        try:
            proposer.done(results, exc)
        except Exception:
            log.exception("whoever proposed cannot take the answer")

    def _let_go(self, proposal: Proposal) -> _Proposer:
        proposer = proposal.owner
        assert isinstance(proposer, _Proposer)
        proposal.owner = None  # in a circle they would be garbage that only the collector finds, in 20 ms each time
        proposal.abandoned = True
        self._deadlines.discard(proposer, proposer.place)
        self.open -= len(proposal.items)
        self._open_bytes -= proposal.size_bytes
        return proposer


def _too_late(proposal: Proposal) -> EngineError:
    if proposal.in_flight:
        return ProposalTimedOut("no majority confirmed the proposal in time; it may still take effect")
    return NoLeader("no leader was known within the time allowed; nothing was proposed")


class Waits:
    """Whoever waits for a future."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        # A timer for each would cost as much as the rest of a wait; the tick looks at all of them.
        self._deadlines: Deadlines[tuple[asyncio.Future[object], Callable[[], Exception]]] = Deadlines()

    def __bool__(self) -> bool:
        return bool(self._deadlines)

    def note(
        self, future: "asyncio.Future[object]", timeout_s: float, too_late: Callable[[], Exception]
    ) -> "asyncio.Future[object]":
        """Let ``future`` fail with ``too_late`` after ``timeout_s``, unless it is done by then; return it."""
        waiting = (future, too_late)
        place = self._deadlines.add(waiting, self._now_s() + timeout_s)
        future.add_done_callback(lambda _: self._deadlines.discard(waiting, place))
        return future

    def look_at_clock(self, now_s: float) -> None:
        """Refuse those whose time is over."""
        for future, too_late in self._deadlines.due(now_s):
            refuse(future, too_late())

    def refuse_all(self, exc: Exception) -> None:
        """The member ends."""
        for future, _ in self._deadlines.all():
            refuse(future, exc)


def is_done(owner: object) -> bool:
    """Return whether an owner that is a future waits no more."""
    assert isinstance(owner, asyncio.Future)
    return owner.done()


def resolve(owner: object, result: object) -> None:
    """Answer an owner that is a future, if it still waits."""
    assert isinstance(owner, asyncio.Future)
    if not owner.done():
        owner.set_result(result)


def refuse(owner: object, exc: Exception) -> None:
    """Let an owner that is a future fail, if it still waits."""
    assert isinstance(owner, asyncio.Future)
    if not owner.done():
        owner.set_exception(exc)


def end_change(owner: object, *, made: bool | None) -> None:
    """Answer whoever asked to change the group; made: None if nobody knows."""
    if made:
        resolve(owner, None)
    elif made is None:
        refuse(owner, ProposalTimedOut("a snapshot overtook this member; the change may be in it"))
    else:
        refuse(owner, ChangeRefused(Refusal.NOT_LEADER))


def failure_of(ended: "asyncio.Future[object]") -> EngineError | None:
    """Return why a wait was in vain; None: it was not."""
    exc = ended.exception()
    assert exc is None or isinstance(exc, EngineError), f"a reader was told {exc!r}"
    return exc
