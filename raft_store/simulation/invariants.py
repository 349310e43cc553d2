"""What must hold after every step of every member, whatever network, disk and clock do.

The judge sees all members at once and remembers everything that ever happened. It knows nothing of how the core works;
each check is one property of the thesis (figure 3.2), or one promise of the ``Engine``.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.core import Core, Role
from raft_store.raft.membership import Configuration, decode
from raft_store.raft.messages import AnyMessage, VoteReply
from raft_store.raft.proposals import unpack


class Violation(AssertionError):
    """A promise is broken; ``rule`` names it, whatever the details are."""

    def __init__(self, rule: str, details: str) -> None:
        super().__init__(f"{rule}: {details}")
        self.rule = rule


def demand(holds: bool, rule: str, details: str | Callable[[], str]) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise Violation unless ``holds``."""
    if not holds:
        raise Violation(rule, details if isinstance(details, str) else details())


class Judge:
    """Collects what members did and raises Violation at the first broken promise."""

    def __init__(
        self, founders: Configuration, committed: Callable[[Entry], None], now_ms: Callable[[], float]
    ) -> None:
        """committed: told of each proposal, in order, when any member first counts it as committed."""
        self.configuration = founders  # what the group agreed on last
        self.committed: list[list[Entry]] = []  # by index - 1, as the machines see them: one a proposal, without names
        self.elected: dict[Term, MemberId] = {}
        self.elected_ms: dict[Term, float] = {}
        self._now_ms = now_ms
        self._tell_committed = committed
        self._raw: list[Entry] = []  # the same as ``committed``, as the logs hold them
        self._committed_in: list[Term] = []  # by index - 1: the term whose leader committed it
        self._votes: dict[tuple[MemberId, Term], MemberId] = {}
        self._entries: dict[tuple[Index, Term], tuple[bytes, Term | None]] = {}
        self._commit_seen: dict[MemberId, Index] = {}

    def stepped(self, core: Core) -> None:
        """A member took a step."""
        if core.role is Role.LEADER and self.elected.get(core.term) != core.member:
            self._elected(core)
        if core.log.committed > self._commit_seen.get(core.member, 0):
            self._committed_by(core)

    def restarted(self, member: MemberId) -> None:
        """A member lost its memory, and with it its commit mark."""
        self._commit_seen.pop(member, None)

    def sent(self, message: AnyMessage) -> None:
        """A message left a member."""
        if isinstance(message, VoteReply) and message.granted and not message.pre:
            chosen = self._votes.setdefault((message.sender, message.term), message.to)
            demand(
                chosen == message.to,
                "one vote a term (thesis 3.4)",
                f"member {message.sender} voted for {chosen} and {message.to} in term {message.term}",
            )

    def saving(self, core: Core, entries: Sequence[Entry]) -> None:
        """A member hands entries to its disk: any two logs with one (index, term) agree up to there."""
        if not entries:
            return
        before = core.log.term(Index(entries[0].index - 1))
        for entry in entries:
            known = self._entries.setdefault((entry.index, entry.term), (entry.data, before))
            demand(
                known == (entry.data, before) or before is None,
                "log matching (thesis 3.6.3)",
                lambda entry=entry: (
                    f"entry {entry.index} of term {entry.term} differs between logs, "  # type: ignore[misc]
                    "or what is before it does"
                ),
            )
            before = entry.term

    def applied(self, member: MemberId, entries: Sequence[Entry]) -> None:
        """A machine applied entries: every machine applies the same ones."""
        for index, group in groupby(entries, lambda entry: entry.index):
            demand(
                index <= len(self.committed),
                "only what is committed is applied",
                f"member {member} applied {index}, the group has committed {len(self.committed)}",
            )
            applied, known = list(group), self.committed[index - 1]
            if known != applied:
                raise Violation(
                    "state-machine safety (thesis 3.6.3)", f"member {member} applied {applied}, not {known}"
                )

    def _elected(self, core: Core) -> None:
        """Election safety and leader completeness."""
        other = self.elected.setdefault(core.term, core.member)
        self.elected_ms.setdefault(core.term, self._now_ms())
        demand(
            other == core.member,
            "one leader a term (thesis 3.4)",
            f"members {other} and {core.member} lead in term {core.term}",
        )
        log = core.log
        for entry, term in zip(self._raw[log.base.index :], self._committed_in[log.base.index :], strict=True):
            # A leader may be elected late, in a term that others have left: it need not know what they did since.
            if term < core.term and log.term(entry.index) != entry.term:
                raise Violation(
                    "leader completeness (thesis 3.6.1)",
                    f"leader {core.member} of term {core.term} lacks entry {entry.index} of term {entry.term}",
                )

    def _committed_by(self, core: Core) -> None:
        log = core.log
        start = Index(max(self._commit_seen.get(core.member, Index(0)), log.base.index) + 1)
        self._commit_seen[core.member] = log.committed
        for entry in log.slice(start, max_bytes=1 << 30, last=log.committed) if start <= log.committed else ():
            if entry.index <= len(self._raw):
                known = self._raw[entry.index - 1]
                if known != entry:
                    raise Violation(
                        "committed entries stay", f"member {core.member} committed {entry}, another one {known}"
                    )
            else:
                demand(
                    entry.index == len(self._raw) + 1, "no gap in what is committed", f"nothing before {entry.index}"
                )
                self._raw.append(entry)
                self._committed_in.append(core.term)
                if entry.reconfigures:
                    self.configuration = decode(entry.data)
                proposed = (b"",) if entry.reconfigures or not entry.data else unpack(entry.data)[2]
                self.committed.append([Entry(entry.index, entry.term, data) for data in proposed])
                for each in self.committed[-1]:
                    self._tell_committed(each)


class Ledger:
    """What proposers were told, held against what the group committed; every proposal's bytes are unique."""

    def __init__(self) -> None:
        self.acknowledged: dict[bytes, Index] = {}  # proposal -> where it was applied
        self.refused: set[bytes] = set()  # surely not made, their proposers were told
        self.newest = Index(0)  # of what was acknowledged
        self._places: dict[bytes, Index] = {}

    def committed(self, data: bytes, index: Index) -> None:
        """A proposal is committed."""
        first = self._places.setdefault(data, index)
        demand(first == index, "no proposal takes effect twice", f"{data!r} is committed at {first} and {index}")
        self._check_refused(data)

    def acknowledge(self, data: bytes, index: Index) -> None:
        """A proposer was told that its proposal took effect."""
        demand(
            self._places.get(data) == index,
            "what is acknowledged is committed",
            f"{data!r} was acknowledged at {index}, where it is not",
        )
        self.acknowledged[data] = index
        self.newest = max(self.newest, index)

    def refuse(self, data: bytes) -> None:
        """A proposer was told that its proposal surely was not made."""
        self.refused.add(data)
        self._check_refused(data)

    def _check_refused(self, data: bytes) -> None:
        demand(
            not (data in self.refused and data in self._places),
            "what is refused never takes effect",
            f"{data!r} took effect although its proposer was told that it was not made",
        )
