"""The write-ahead log: every ``Save`` of the core, in order, each as one checksummed record.

Layout
------
The log is a row of segments ``<number of its first record>.wal``. A record is

    magic "TREC" | crc32c of all that follows | length of the payload | number of the record | payload

and its payload

    term, vote | index, term of a snapshot that replaces all before (0, 0: none) | index of the first entry | entries

Numbers rise by one along the whole log, across segments. The first record of a segment repeats the hard state, and the
entries that a snapshot does not hold lie in later segments, so that old segments can go.

What a crash can leave, and what it cannot
------------------------------------------
A record is written and synced before the next one is begun, so a crash can damage the last record only: what follows
the last whole record is a torn tail, never acknowledged by anybody, and is cut off. If any *later* record can be read
after a damaged place, the damage is not a crash's: synced data has changed. Then the log is refused, naming file and
offset, for a member that forgets what it promised can make the group lose acknowledged writes. Space that was set aside
reads as zeros and ends the log.
"""

import logging
import struct
from collections.abc import Sequence

import google_crc32c
import msgspec

from raft_store.disk.directory import Directory, DiskError, File
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.messages import HardState, Save, SnapshotMark, pack_entries, unpack_entries

log = logging.getLogger(__name__)

MAGIC = b"TREC"
SUFFIX = ".wal"
SEGMENT_BYTES = 16 << 20
_FRAME = struct.Struct("<4sIIQ")  # magic, crc, length, number
_COVERED = struct.Struct("<IQ")  # the part of the frame under the crc
_SAVE = struct.Struct("<QQQQQ")


class CorruptLog(DiskError):
    """Synced data has changed; the member needs a new disk and a fresh start from its peers."""


class Recovered(msgspec.Struct, frozen=True):
    """What the log says about the past."""

    hard_state: HardState
    base: SnapshotMark  # where the entries begin: the snapshot of this mark, or a later one, has to exist
    entries: Sequence[Entry]


class _Record(msgspec.Struct, frozen=True):
    number: int
    payload: bytes
    end: int  # offset behind it


class Wal:
    """The open log; one save at a time. After a DiskError it must not be used again."""

    def __init__(self, directory: Directory, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the log for ``recover``; raises DiskError."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file: File | None = None
        self._next = 1  # number of the next record
        self._written = 0  # bytes in the present segment
        self._segments: list[tuple[int, int, Index]] = []  # (first number, bytes, highest entry index in it)

    @property
    def size_bytes(self) -> int:
        """Size of the whole log."""
        return sum(size for _, size, _ in self._segments)

    def recover(self, snapshot: SnapshotMark) -> Recovered:
        """Read the log after ``snapshot``, cut off a torn tail, and open it for writing.

        Raises CorruptLog if synced data has changed, DiskError if the disk fails.
        """
        names = [name for name in self._directory.names() if name.endswith(SUFFIX)]
        replay = _Replay(snapshot)
        for place, name in enumerate(names):
            self._recover_segment(name, replay, newest=place == len(names) - 1)
        if self._file is None:
            self._begin_segment(replay.hard_state)
        recovered = replay.result()
        if not replay.reaches(snapshot):
            # The snapshot came from another member, and we crashed before the log knew of it.
            self._append(_pack(replay.hard_state, snapshot, ()))
            self.sync()
        return recovered

    def save(self, save: Save) -> None:
        """Write one record and sync it."""
        self.write(save)
        self.sync()

    def write(self, save: Save) -> None:
        """Write one record; durable after ``sync``."""
        if self._written >= self._segment_bytes:
            self._begin_segment(save.hard_state)
        mark = save.snapshot.mark if save.snapshot is not None else SnapshotMark()
        self._append(_pack(save.hard_state, mark, save.entries))
        highest = save.entries[-1].index if save.entries else mark.index
        number, _, known = self._segments[-1]
        self._segments[-1] = (number, self._written, Index(max(known, highest)))

    def sync(self) -> None:
        """Make the record written last durable. A failure is final: nobody knows what the disk holds then."""
        assert self._file is not None
        self._file.sync()

    def drop_before(self, index: Index) -> None:
        """Remove segments that hold only entries up to ``index``; a snapshot holds those, and is on disk."""
        while len(self._segments) > 1 and self._segments[0][2] <= index:
            number, _, _ = self._segments.pop(0)
            self._directory.remove(_name(number))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, payload: bytes) -> None:
        assert self._file is not None, "recover comes first"
        covered = _COVERED.pack(len(payload), self._next)
        crc = google_crc32c.extend(google_crc32c.value(covered), payload)
        record = _FRAME.pack(MAGIC, crc, len(payload), self._next) + payload
        self._file.append(record)
        self._next += 1
        self._written += len(record)

    def _begin_segment(self, state: HardState) -> None:
        """Go on in a new file. The old one is synced: its last save was."""
        self.close()
        self._file = self._directory.create(_name(self._next), expected_bytes=self._segment_bytes)
        self._segments.append((self._next, 0, Index(0)))
        self._written = 0
        self._append(_pack(state, SnapshotMark(), ()))
        # One record a sync, this one too: only then is the last record the only one that a crash can damage.
        self.sync()

    def _recover_segment(self, name: str, replay: "_Replay", *, newest: bool) -> None:
        first = _first_number(name)
        if not self._segments:
            self._next = first
        elif first != self._next:
            raise CorruptLog(f"{name}: a segment with records {self._next} to {first - 1} is missing before it")
        content = self._directory.read(name)
        offset, highest = 0, Index(0)
        while (record := _read_record(content, offset, self._next)) is not None:
            highest = Index(max(highest, replay.take(name, offset, record.payload)))
            offset, self._next = record.end, record.number + 1
        self._check_end(name, content, offset, newest=newest)
        self._segments.append((first, offset, highest))
        self._written = offset
        if newest:
            self._file = self._directory.reopen(name, size=offset, expected_bytes=self._segment_bytes)
            if offset == 0:
                self._append(_pack(replay.hard_state, SnapshotMark(), ()))
                self.sync()

    def _check_end(self, name: str, content: bytes, offset: int, *, newest: bool) -> None:
        """Decide whether what follows the last whole record is the end of the log, a torn tail, or damage."""
        rest = content[offset:]
        if not rest.strip(b"\0"):
            return
        if not newest or _later_record(content, offset, self._next):
            raise CorruptLog(
                f"{name}: record {self._next} at byte {offset} is damaged although it was synced; this member's disk "
                "cannot be trusted. Remove its data directory and let it join again with the data of the others"
            )
        log.warning("cut off a torn tail file=%s offset=%d bytes=%d", name, offset, len(rest.rstrip(b"\0")))


class _Replay:
    """Puts the log together again, record by record."""

    def __init__(self, snapshot: SnapshotMark) -> None:
        self.hard_state = HardState()
        self._snapshot = snapshot
        self._base = SnapshotMark()
        self._entries: list[Entry] = []
        self._begun = False

    def take(self, name: str, offset: int, payload: bytes) -> Index:
        """Take one record; return the highest index in it, 0 if it has no entries."""
        try:
            term, vote, mark_index, mark_term, first = _SAVE.unpack_from(payload)
            entries = unpack_entries(payload[_SAVE.size :], Index(first))
        except (struct.error, ValueError) as exc:
            raise CorruptLog(f"{name}: the record at byte {offset} has a right checksum and a wrong shape") from exc
        if (term, vote) != (0, 0):
            self.hard_state = HardState(Term(term), MemberId(vote))
        if mark_index:
            self._base = SnapshotMark(Index(mark_index), Term(mark_term))
            self._entries, self._begun = [], True
        if not entries:
            return Index(mark_index)
        if not self._begun:
            # Segments before this one may be gone, with entries that a snapshot holds.
            self._base, self._begun = SnapshotMark(Index(first - 1)), True
        keep = first - 1 - self._base.index
        if keep < 0 and first - 1 <= self._snapshot.index:
            # What was replaced here began in a segment that is gone; the snapshot holds all before the replacement.
            self._base, self._entries, keep = SnapshotMark(Index(first - 1)), [], 0
        if not 0 <= keep <= len(self._entries):
            have = f"{self._base.index + 1} to {self._base.index + len(self._entries)}"
            raise CorruptLog(f"{name}: the record at byte {offset} begins with entry {first}, but we have {have}")
        del self._entries[keep:]
        self._entries.extend(entries)
        return entries[-1].index

    def result(self) -> Recovered:
        """Return what is left after the snapshot; raises CorruptLog if there is a gap between it and the log."""
        mark = self._snapshot
        if mark.index < self._base.index:
            raise CorruptLog(
                f"the log begins with entry {self._base.index + 1}, but the newest snapshot ends with {mark.index}"
            )
        entries = self._entries[mark.index - self._base.index :] if self.reaches(mark) else ()
        return Recovered(self.hard_state, mark, entries)

    def reaches(self, mark: SnapshotMark) -> bool:
        """Return whether the entries lead up to ``mark``; a log that does not is older than that snapshot."""
        place = mark.index - self._base.index
        return place == 0 or (place <= len(self._entries) and self._entries[place - 1].term == mark.term)


def _name(number: int) -> str:
    return f"{number:016x}{SUFFIX}"


def _first_number(name: str) -> int:
    try:
        return int(name.removesuffix(SUFFIX), 16)
    except ValueError as exc:
        raise CorruptLog(f"{name}: not the name of a segment; was it put here by hand?") from exc


def _pack(state: HardState, mark: SnapshotMark, entries: Sequence[Entry]) -> bytes:
    first = entries[0].index if entries else 0
    return _SAVE.pack(state.term, state.vote, mark.index, mark.term, first) + pack_entries(entries)


def _read_record(content: bytes, offset: int, number: int | None) -> _Record | None:
    """Return the whole and undamaged record at ``offset``; with ``number``, only if it is that one."""
    if offset + _FRAME.size > len(content):
        return None
    magic, crc, length, found = _FRAME.unpack_from(content, offset)
    end = offset + _FRAME.size + length
    if magic != MAGIC or end > len(content) or (number is not None and found != number):
        return None
    payload = content[offset + _FRAME.size : end]
    if google_crc32c.extend(google_crc32c.value(_COVERED.pack(length, found)), payload) != crc:
        return None
    return _Record(found, payload, end)


def _later_record(content: bytes, offset: int, number: int) -> bool:
    """Return whether any record after number ``number`` can be read behind ``offset``."""
    place = content.find(MAGIC, offset + 1)
    while place != -1:
        record = _read_record(content, place, None)
        if record is not None and record.number > number:
            return True
        place = content.find(MAGIC, place + 1)
    return False
