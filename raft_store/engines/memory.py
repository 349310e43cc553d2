"""A group of one without a disk: applies at once, forgets on stop. For tests of what stands on an engine."""

from collections.abc import Callable, Collection, Sequence

from raft_store.engine import (
    Change,
    ChangeRefused,
    Done,
    EngineError,
    Entry,
    Foresee,
    Index,
    MemberId,
    MemberRecord,
    MemberStatus,
    NoLeader,
    Refusal,
    StateMachine,
    Stopped,
    Term,
)

_TERM = Term(1)
_ONLY_MEMBER = MemberId(1)


class MemoryEngine:
    """An ``Engine`` whose every proposal commits in the call that makes it."""

    def __init__(self, member: MemberId = _ONLY_MEMBER, peer_urls: Sequence[str] = ()) -> None:
        self._member = member
        self._peer_urls = tuple(peer_urls)
        self._machine: StateMachine | None = None
        self._index = Index(0)

    async def start(self, machine: StateMachine) -> None:
        """Begin with an empty log; the machine keeps what it holds."""
        self._machine = machine

    async def stop(self) -> None:
        """Refuse whatever comes after."""
        self._machine = None

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """Apply ``data`` now."""
        del timeout_s  # nothing is waited for
        return self._apply(data)

    def submit(self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None) -> None:
        """Apply ``items`` now."""
        del timeout_s, foresee
        done([self._apply(data) for data in items], None)

    def join(self, submitted: object, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """Return False: nothing that was submitted waits."""
        del submitted, items, timeout_s
        return False

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """Return at once: nothing is ever committed elsewhere."""
        del timeout_s
        self._running()
        return self._index

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """Tell at once."""
        del timeout_s
        self._running()
        tell(None)

    @property
    def term(self) -> Term:
        """Return the only term there is."""
        return _TERM

    async def step_aside(self) -> None:
        """Do nothing: there is nobody else."""

    def status(self) -> MemberStatus:
        """Return what a group of one knows: it leads while it runs."""
        running = self._machine is not None
        return MemberStatus(
            member=self._member,
            leader=self._member if running else MemberId(0),
            role="leader" if running else "follower",
            term=_TERM,
            commit_index=self._index,
            applied_index=self._index,
            log_bytes=0,
        )

    def members(self) -> Sequence[MemberRecord]:
        """Return ourselves."""
        return [MemberRecord(self._member, self._peer_urls, learner=False)]

    def trace(self, after: int) -> None:
        """Return None: there is nobody to talk to."""

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool = False, started: Collection[MemberId] | None
    ) -> None:
        """Refuse: nobody can be spoken to."""
        del changes, timeout_s, joint, started  # it makes no difference what is asked
        raise ChangeRefused(Refusal.FIXED)

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """Do nothing for our own id; nobody else could take over."""
        del timeout_s
        self._running()
        if to != self._member:
            raise NoLeader(f"member {to} is not in this group of one")

    def _apply(self, data: bytes) -> object:
        machine = self._running()
        self._index = Index(self._index + 1)
        (result,) = machine.apply([Entry(self._index, _TERM, data)])
        return result

    def _running(self) -> StateMachine:
        if self._machine is None:
            raise Stopped("the memory engine is not running")
        return self._machine
