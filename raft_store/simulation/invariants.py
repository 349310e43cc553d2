"""What must hold after every step of every member, whatever network, disk and clock do.

The judge sees all members at once and remembers everything that ever happened. It knows nothing of how the core works;
each check is one property of the thesis (figure 3.2), or one promise of the ``Engine``.
"""

from collections.abc import Sequence

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.core import Core, Role
from raft_store.raft.messages import AnyMessage, VoteReply


class Violation(AssertionError):
    """A promise is broken."""


class Judge:
    """Collects what members did and raises Violation at the first broken promise."""

    def __init__(self) -> None:
        self.committed: list[Entry] = []  # by index - 1, as the machines see them: without the proposals' names
        self.acknowledged: dict[bytes, Index] = {}  # proposal -> where it was applied
        self.refused: set[bytes] = set()  # proposals that were surely not made
        self._raw: list[Entry] = []  # the same as ``committed``, as the logs hold them
        self._places: dict[bytes, Index] = {}  # proposal -> its index
        self._leaders: dict[Term, MemberId] = {}
        self._votes: dict[tuple[MemberId, Term], MemberId] = {}
        self._entries: dict[tuple[Index, Term], tuple[bytes, Term | None]] = {}
        self._commit_seen: dict[MemberId, Index] = {}

    def stepped(self, core: Core) -> None:
        """A member took a step."""
        if core.role is Role.LEADER and self._leaders.get(core.term) != core.member:
            self._elected(core)
        self._committed_by(core)

    def restarted(self, member: MemberId) -> None:
        """A member lost its memory, and with it its commit mark."""
        self._commit_seen.pop(member, None)

    def sent(self, message: AnyMessage) -> None:
        """A message left a member."""
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            chosen = self._votes.setdefault((message.sender, message.term), message.to)
            _demand(
                chosen == message.to,
                f"member {message.sender} voted for {chosen} and {message.to} in term {message.term} (thesis 3.4)",
            )

    def saving(self, core: Core, entries: Sequence[Entry]) -> None:
        """A member hands entries to its disk: any two logs with one (index, term) agree up to there (log matching)."""
        if not entries:
            return
        before = core.log.term(Index(entries[0].index - 1))
        for entry in entries:
            known = self._entries.setdefault((entry.index, entry.term), (entry.data, before))
            _demand(
                known == (entry.data, before) or before is None,
                f"entry {entry.index} of term {entry.term} differs between logs, or what is before it does (3.6.3)",
            )
            before = entry.term

    def applied(self, member: MemberId, entries: Sequence[Entry]) -> None:
        """A machine applied entries: every machine applies the same ones (state-machine safety)."""
        for entry in entries:
            _demand(entry.index <= len(self.committed), f"member {member} applied {entry.index}: not committed")
            known = self.committed[entry.index - 1]
            _demand(known == entry, f"member {member} applied {entry}, another one {known} (thesis 3.6.3)")

    def acknowledge(self, data: bytes, index: Index) -> None:
        """A proposer was told that its proposal took effect."""
        _demand(self._places.get(data) == index, f"{data!r} was acknowledged at {index}, where it is not")
        self.acknowledged[data] = index

    def refuse(self, data: bytes) -> None:
        """A proposer was told that its proposal surely was not made."""
        self.refused.add(data)
        self._check_refused(data)

    def read(self, member: MemberId, *, barrier: Index, acknowledged_before: Index, values: Sequence[bytes]) -> None:
        """A reader that came after an acknowledgement at ``acknowledged_before`` may read ``values`` now."""
        _demand(
            barrier >= acknowledged_before,
            f"member {member} may read at {barrier}, but {acknowledged_before} was acknowledged before (thesis 6.4)",
        )
        expected = [entry.data for entry in self.committed[:barrier] if entry.data]
        _demand(list(values[: len(expected)]) == expected, f"member {member} reads another state than {barrier}'s")

    def restored(self, member: MemberId, index: Index, values: Sequence[bytes]) -> None:
        """A machine was replaced by a snapshot."""
        expected = [entry.data for entry in self.committed[:index] if entry.data]
        _demand(list(values) == expected, f"member {member} restored another state than that of {index}")

    def settled(self, member: MemberId, values: Sequence[bytes]) -> None:
        """Everything is healed and quiet: this member must hold all that was committed, and so all acknowledged."""
        expected = [entry.data for entry in self.committed if entry.data]
        _demand(list(values) == expected, f"member {member} holds {len(values)} proposals, not {len(expected)}")
        missing = self.acknowledged.keys() - set(values)
        _demand(not missing, f"acknowledged proposals are lost: {sorted(missing)[:5]}")

    def _elected(self, core: Core) -> None:
        """Election safety and leader completeness."""
        other = self._leaders.setdefault(core.term, core.member)
        _demand(other == core.member, f"two leaders in term {core.term}: {other} and {core.member} (thesis 3.4)")
        log = core.log
        for entry in self._raw[log.base.index :]:
            _demand(
                log.term(entry.index) == entry.term,
                f"leader {core.member} of term {core.term} lacks entry {entry.index} of term {entry.term} (3.6.1)",
            )

    def _committed_by(self, core: Core) -> None:
        log = core.log
        seen = self._commit_seen.get(core.member, Index(0))
        if log.committed <= seen:
            return
        start = Index(max(seen, log.base.index) + 1)
        self._commit_seen[core.member] = log.committed
        for entry in log.slice(start, max_bytes=1 << 30, last=log.committed) if start <= log.committed else ():
            if entry.index <= len(self._raw):
                known = self._raw[entry.index - 1]
                _demand(known == entry, f"member {core.member} committed {entry}, another one {known}")
            else:
                _demand(entry.index == len(self._raw) + 1, f"a gap in what is committed before {entry.index}")
                self._record(entry)

    def _record(self, entry: Entry) -> None:
        data = b"" if entry.reconfigures else entry.data[16:]  # without session and number
        self._raw.append(entry)
        self.committed.append(Entry(entry.index, entry.term, data))
        if data:
            first = self._places.setdefault(data, entry.index)
            _demand(first == entry.index, f"{data!r} is committed twice: at {first} and {entry.index}")
            self._check_refused(data)

    def _check_refused(self, data: bytes) -> None:
        _demand(
            not (data in self.refused and data in self._places),
            f"{data!r} took effect although its proposer was told that it was not made",
        )


def _demand(holds: bool, message: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise Violation(message)
