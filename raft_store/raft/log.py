"""The replicated log, as one member holds it in memory.

    snapshot ... base | base+1 ............ saved ............ last
                             applied <= committed
                             applied <= saved

Entries up to ``base`` are compacted away: their effect is in the snapshot. Entries up to ``saved`` are on this member's
disk; the rest is on its way there. The machine receives an entry only when it is committed by the group *and* saved
here, so that what was applied never has to be fetched again after a crash.
"""

from collections.abc import Sequence

from raft_store.engine import Entry, Index, Term
from raft_store.raft.membership import Configuration, History, Step, decode
from raft_store.raft.messages import SnapshotMark


class Log:
    """Entries after ``base``, with the marks above; asserts what Raft promises about them."""

    __slots__ = ("_entries", "_history", "_saving", "applied", "base", "committed", "last_index", "saved")

    def __init__(self, base: SnapshotMark | None = None, entries: Sequence[Entry] = ()) -> None:
        """Start from what the disk held: all of it is saved, none of it known to be committed or applied."""
        self.base = base or SnapshotMark()
        self._entries: list[Entry] = list(entries)
        assert not self._entries or self._entries[0].index == self.base.index + 1, (self.base, self._entries[0])
        # Of the newest entry, or of ``base``; kept, and not counted anew, because every step of the core asks for it.
        self.last_index: Index = Index(self.base.index + len(self._entries))
        self.committed: Index = self.base.index
        self.applied: Index = self.base.index
        self.saved: Index = self.last_index
        self._saving: Index = self.saved  # handed to the disk so far; falls back when entries are replaced
        self._history = History(self.base.index, self.base.configuration, sealed=self.base.sealed)
        self._note_configurations(self._entries)

    @property
    def last_term(self) -> Term:
        """Term of the newest entry, or of ``base``."""
        return self._entries[-1].term if self._entries else self.base.term

    def term(self, index: Index) -> Term | None:
        """Return the term of the entry at ``index``; None if it is compacted away or not there yet."""
        place = index - self.base.index
        if place == 0:
            return self.base.term
        if 0 < place <= len(self._entries):
            return self._entries[place - 1].term
        return None

    def slice(self, first: Index, *, max_bytes: int, last: Index | None = None) -> list[Entry]:
        """Return entries from ``first`` up to ``last``, at most ``max_bytes`` but at least one, if any is there."""
        start = first - self.base.index - 1
        assert start >= 0, f"entry {first} is compacted away, the log begins at {self.base.index + 1}"
        end = len(self._entries) if last is None else last - self.base.index
        if end - start == 1:
            return self._entries[start:end]  # whatever its size
        taken, size = start, 0
        for place in range(start, end):
            grown = size + len(self._entries[place].data)
            if grown > max_bytes and place > start:
                break
            taken, size = place + 1, grown
        return self._entries[start:taken]

    @property
    def step(self) -> Step:
        """The group's members as agreed on, and by which entry."""
        return self._history.at(self.committed)

    @property
    def changing(self) -> bool:
        """Whether a configuration stands in the log that is not known to be agreed on."""
        return self._history.newest > self.committed

    @property
    def newest_configuration(self) -> Configuration:
        """The members as the log has them at its end, agreed on or not."""
        return self._history.at(self.last_index).configuration

    @property
    def configuration_before(self) -> Configuration | None:
        """The members before the last change, as long as the log remembers them."""
        return self._history.before(self.committed)

    def mark(self, index: Index) -> SnapshotMark | None:
        """Return the mark of a snapshot taken after the entry at ``index``; None if that is not here (any more)."""
        term = self.term(index)
        if term is None:
            return None
        step = self._history.at(index)
        return SnapshotMark(index, term, step.configuration, step.sealed)

    def up_to_date(self, *, last_term: Term, last_index: Index) -> bool:
        """Return whether a log that ends so holds at least what ours does (thesis 3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries right after the last one."""
        if entries:
            assert entries[0].index == self.last_index + 1, (entries[0].index, self.last_index)
            self._entries.extend(entries)
            self.last_index = Index(self.last_index + len(entries))
            self._note_configurations(entries)

    def _note_configurations(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.reconfigures:
                # No leader makes a change before the last one is committed (``membership``): so it is.
                self.committed = max(self.committed, self._history.newest)
                self._history.add(entry.index, decode(entry.data))

    def merge(self, entries: Sequence[Entry]) -> None:
        """Add a leader's entries, whose predecessor we hold; entries of ours that contradict them go (thesis 3.5)."""
        if entries and entries[0].index == self.last_index + 1:  # nearly always
            self.append(entries)
            return
        for place, entry in enumerate(entries):
            ours = self.term(entry.index)
            if ours == entry.term or entry.index <= self.base.index:
                continue
            if ours is not None:
                self._cut(entry.index)
            self.append(entries[place:])
            return

    def _cut(self, index: Index) -> None:
        """Forget the entries from ``index`` on; another leader has others there."""
        assert index > self.committed, f"entry {index} is committed (up to {self.committed}) and cannot be replaced"
        del self._entries[index - self.base.index - 1 :]
        self.last_index = Index(index - 1)
        self._history.cut(index)
        # A save under way may be writing the old ones: they do not count when it is done.
        self.saved = Index(min(self.saved, index - 1))
        self._saving = Index(min(self._saving, index - 1))

    def hint(self, index: Index, term: Term) -> tuple[Index, Term]:
        """Return our last entry at or before ``index`` whose term is at most ``term``: logs may agree up to there.

        Terms never fall along a log, so whatever lies between cannot agree; a whole term is skipped at a time.
        """
        place = Index(min(index, self.last_index))
        while place > self.base.index:
            here = self._entries[place - self.base.index - 1].term
            if here <= term:
                return place, here
            place = Index(place - 1)
        return self.base.index, self.base.term

    def begin_save(self) -> list[Entry]:
        """Return the entries that the disk was not given yet; it is given them now."""
        fresh = self._entries[self._saving - self.base.index :]
        self._saving = self.last_index
        return fresh

    @property
    def has_unsaved(self) -> bool:
        """Whether ``begin_save`` would return entries."""
        return self._saving < self.last_index

    def mark_saved(self, last: Index) -> None:
        """The disk has what it was given up to ``last``, as far as it was not replaced since."""
        self.saved = Index(max(self.saved, min(last, self._saving)))

    def commit_to(self, index: Index) -> bool:
        """Raise the commit mark to ``index``, which must be here; return whether it moved."""
        if index <= self.committed:
            return False
        assert index <= self.last_index, f"commit {index} is beyond our last entry {self.last_index}"
        self.committed = index
        return True

    def take_committed(self, *, max_entries: int, max_bytes: int) -> list[Entry]:
        """Return the next entries for the machine, in order; they count as applied from now on."""
        if self.applied >= self.committed or self.applied >= self.saved:
            return []
        end = Index(min(self.committed, self.saved, self.applied + max_entries))
        entries = self.slice(Index(self.applied + 1), max_bytes=max_bytes, last=end)
        self.applied = entries[-1].index
        return entries

    @property
    def has_committed(self) -> bool:
        """Whether ``take_committed`` would return entries."""
        return self.applied < self.committed and self.applied < self.saved

    def behind(self, index: Index, *, count: int, size_bytes: int) -> Index:
        """Return the lowest index from which on up to ``index`` lie at most so many entries with so many bytes."""
        place, lowest = index - self.base.index, max(0, index - count - self.base.index)
        while place > lowest and (size_bytes := size_bytes - len(self._entries[place - 1].data)) >= 0:
            place -= 1
        return Index(self.base.index + place)

    def compact(self, to: Index) -> None:
        """Forget entries up to ``to``, all of them applied; ``to`` becomes ``base``."""
        if to <= self.base.index:
            return
        assert to <= self.applied, f"cannot compact to {to}: applied only up to {self.applied}"
        mark = self.mark(to)
        assert mark is not None
        del self._entries[: to - self.base.index]
        self._history.compact(to)
        self.base = mark

    def restore(self, mark: SnapshotMark) -> None:
        """Replace everything by a snapshot that another member took; ``mark`` is ahead of our commit mark."""
        assert mark.index > self.committed, (mark, self.committed)
        self._entries.clear()
        self._history = History(mark.index, mark.configuration, sealed=mark.sealed)
        self.base = mark
        self.last_index = self.committed = self.saved = self._saving = self.applied = mark.index
