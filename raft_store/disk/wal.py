"""The write-ahead log: every ``Save`` of the core, in order, each as one checksummed record.

Layout
------
The log is a row of segments ``<number of its first record>.wal``. A record is

    header: magic "TREC" | crc32c of the rest of the header | crc32c of the payload
            | length of the payload | number of the record | how many whole sectors of the payload are zeros
    payload | end mark "CERT"

and its payload

    term, vote | index, term of a snapshot that replaces all before (0, 0: none) | index of the first entry | entries

Numbers rise by one along the whole log, across segments. The first record of a segment repeats the hard state, and the
entries that a snapshot does not hold lie in later segments, so that old segments can go.

What a crash can leave, and what it cannot
------------------------------------------
A record is written and synced before the next one is begun, so a crash can damage the last record only, and in one way
only: some of it never reached the disk, and reads as the zeros that were set aside, or is cut off. A sector is there or
it is not. Such a torn tail was never acknowledged by anybody, and is cut off. Everything else is no crash's work:

- damage anywhere before the last record;
- a last record of which every part is there (its end mark has no zeros, nor are more of its sectors than were when it
  was written) but whose checksums are wrong: it may have been synced, and a promise may rest on it.

Then synced data has changed and the log is refused, naming file and offset, for a member that forgets what it promised
can make the group lose acknowledged writes.
"""

import logging
import struct
from collections.abc import Iterator, Sequence

import google_crc32c
import msgspec

from raft_store.disk.directory import Directory, DiskError, File
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.messages import HardState, Save, Snapshot, SnapshotMark, pack_entries, unpack_entries

log = logging.getLogger(__name__)

MAGIC = b"TREC"
SUFFIX = ".wal"
SEGMENT_BYTES = 16 << 20
_HEADER = struct.Struct("<4sIIIQI")  # magic, crc of what follows, crc of the payload, length, number, zero sectors
_COVERED = struct.Struct("<IIQI")  # the part of the header under its own crc
_CRC = struct.Struct("<I")
_END = b"CERT"
_SAVE = struct.Struct("<QQQQQ")
_NO_MARK = SnapshotMark()


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
        self._closed_bytes = 0  # in all others
        self._segments: list[tuple[int, int, Index]] = []  # (first number, bytes, highest entry index in it)

    @property
    def size_bytes(self) -> int:
        """Size of the whole log."""
        return self._closed_bytes + self._written

    @property
    def descriptor(self) -> int | None:
        """Number of the file that the next record goes to; None if that is a new one, or only ``sync`` may sync it."""
        return None if self._file is None or self._written >= self._segment_bytes else self._file.descriptor

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
        entries = save.entries
        mark = save.snapshot.mark if save.snapshot is not None else _NO_MARK
        self._append(_pack(save.hard_state, mark, entries))
        highest = entries[-1].index if entries else mark.index
        number, _, known = self._segments[-1]
        self._segments[-1] = (number, self._written, max(known, highest))

    def sync(self) -> None:
        """Make the record written last durable. A failure is final: nobody knows what the disk holds then."""
        assert self._file is not None
        self._file.sync()

    def drop_before(self, index: Index) -> None:
        """Remove segments that hold only entries up to ``index``; a snapshot holds those, and is on disk."""
        while len(self._segments) > 1 and self._segments[0][2] <= index:
            number, size, _ = self._segments.pop(0)
            self._closed_bytes -= size
            self._directory.remove(_name(number))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, payload: bytes) -> None:
        assert self._file is not None, "recover comes first"
        length, sector_bytes = len(payload), self._directory.sector_bytes
        zeros = 0 if length < sector_bytes else _zero_sectors(payload, self._written + _HEADER.size, sector_bytes)
        covered = _COVERED.pack(google_crc32c.value(payload), length, self._next, zeros)
        record = b"".join((MAGIC, _CRC.pack(google_crc32c.value(covered)), covered, payload, _END))
        self._file.append(record)
        self._next += 1
        self._written += len(record)

    def _begin_segment(self, state: HardState) -> None:
        """Go on in a new file. The old one is synced: its last save was."""
        self.close()
        self._file = self._directory.create(_name(self._next), expected_bytes=self._segment_bytes)
        self._add_segment(self._next, 0, Index(0))
        self._append(_pack(state, SnapshotMark(), ()))
        # One record a sync, this one too: only then is the last record the only one that a crash can damage.
        self.sync()

    def _add_segment(self, number: int, written: int, highest: Index) -> None:
        """The present segment, if there is one, is closed; another one takes its place."""
        if self._segments:
            closed, _, known = self._segments[-1]
            self._segments[-1] = (closed, self._written, known)
            self._closed_bytes += self._written
        self._segments.append((number, written, highest))
        self._written = written

    def _recover_segment(self, name: str, replay: "_Replay", *, newest: bool) -> None:
        first = _first_number(name)
        if not self._segments:
            self._next = first
        elif first != self._next:
            raise CorruptLog(f"{name}: a segment with records {self._next} to {first - 1} is missing before it")
        content = self._directory.read(name)
        offset, highest = 0, Index(0)
        while (record := _read_record(content, offset, self._next)) is not None:
            highest = Index(max(highest, replay.take(name, offset, _unpack(name, offset, record.payload))))
            offset, self._next = record.end, record.number + 1
        if torn := _check_end(self._directory, name, content, offset, self._next, newest=newest):
            log.warning("cut off a torn tail file=%s offset=%d bytes=%d", name, offset, torn)
        self._add_segment(first, offset, highest)
        if newest:
            self._file = self._directory.reopen(name, size=offset, expected_bytes=self._segment_bytes)
            if offset == 0:
                self._append(_pack(replay.hard_state, SnapshotMark(), ()))
                self.sync()


class Written(msgspec.Struct, frozen=True):
    """One record of a log, and where it lies."""

    segment: str
    offset: int
    size_bytes: int
    number: int
    save: Save  # its snapshot has no data: the log only names it


class LogReader:
    """Reads a log that nobody writes just now, and changes nothing."""

    def __init__(self, directory: Directory) -> None:
        self.torn = ""  # where the log ends in the middle of a record, once that is known
        self._directory = directory

    def records(self) -> Iterator[Written]:
        """Yield every record, oldest first. Raises CorruptLog where ``Wal.recover`` would, DiskError."""
        names = [name for name in self._directory.names() if name.endswith(SUFFIX)]
        number: int | None = None
        for name in names:
            first = _first_number(name)
            if number is not None and first != number:
                raise CorruptLog(f"{name}: a segment with records {number} to {first - 1} is missing before it")
            content, offset, number = self._directory.read(name), 0, first
            while (record := _read_record(content, offset, number)) is not None:
                save = _unpack(name, offset, record.payload)
                yield Written(name, offset, record.end - offset, number, save)
                offset, number = record.end, number + 1
            if torn := _check_end(self._directory, name, content, offset, number, newest=name == names[-1]):
                self.torn = f"{name}: {torn} bytes of record {number}, at byte {offset}"

    def replay(self, snapshot: SnapshotMark) -> Recovered:
        """Return what a member would recover; raises CorruptLog, DiskError."""
        replay = _Replay(snapshot)
        for record in self.records():
            replay.take(record.segment, record.offset, record.save)
        return replay.result()


def _check_end(directory: Directory, name: str, content: bytes, offset: int, number: int, *, newest: bool) -> int:
    """Return how many bytes of a torn record follow the last whole one, 0 if the log ends there; raises CorruptLog."""
    rest = content[offset:].rstrip(b"\0")
    if not rest:
        return 0
    if not newest or _later_record(content, offset, number) or not _is_torn(content, offset, directory.sector_bytes):
        raise CorruptLog(
            f"{name}: record {number} at byte {offset} is damaged although it was synced; this member's disk "
            "cannot be trusted. Remove the member from the group, add it as a new one, and start that with an empty "
            "data directory (docs/members.md)"
        )
    return len(rest)


class _Replay:
    """Puts the log together again, record by record."""

    def __init__(self, snapshot: SnapshotMark) -> None:
        self.hard_state = HardState()
        self._snapshot = snapshot
        self._base = SnapshotMark()
        self._entries: list[Entry] = []
        self._begun = False

    def take(self, name: str, offset: int, save: Save) -> Index:
        """Take one record; return the highest index in it, 0 if it has no entries."""
        entries = save.entries
        if save.hard_state != HardState():
            self.hard_state = save.hard_state
        mark = save.snapshot.mark if save.snapshot is not None else SnapshotMark()
        if mark.index:
            self._base = mark
            self._entries, self._begun = [], True
        if not entries:
            return mark.index
        first = entries[0].index
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


def _unpack(name: str, offset: int, payload: bytes) -> Save:
    """Return what ``_pack`` packed; raises CorruptLog."""
    try:
        term, vote, mark_index, mark_term, first = _SAVE.unpack_from(payload)
        entries = unpack_entries(payload[_SAVE.size :], Index(first))
    except (struct.error, ValueError) as exc:
        raise CorruptLog(f"{name}: the record at byte {offset} has a right checksum and a wrong shape") from exc
    snapshot = Snapshot(SnapshotMark(Index(mark_index), Term(mark_term)), b"") if mark_index else None
    return Save(HardState(Term(term), MemberId(vote)), entries, snapshot)


class _Header(msgspec.Struct, frozen=True):
    crc: int  # of the payload
    length: int
    number: int
    zeros: int  # sectors of zeros that the record had when it was written


def _read_header(content: bytes, offset: int) -> _Header | None:
    """Return the header at ``offset``, None if it is not whole and undamaged."""
    if offset + _HEADER.size > len(content):
        return None
    magic, own_crc, crc, length, number, zeros = _HEADER.unpack_from(content, offset)
    covered = content[offset + len(MAGIC) + _CRC.size : offset + _HEADER.size]
    if magic != MAGIC or google_crc32c.value(covered) != own_crc:
        return None
    return _Header(crc, length, number, zeros)


def _read_record(content: bytes, offset: int, number: int | None) -> _Record | None:
    """Return the whole and undamaged record at ``offset``; with ``number``, only if it is that one."""
    header = _read_header(content, offset)
    if header is None or (number is not None and header.number != number):
        return None
    start = offset + _HEADER.size
    end = start + header.length
    payload = content[start:end]
    if content[end : end + len(_END)] != _END or google_crc32c.value(payload) != header.crc:
        return None
    return _Record(header.number, payload, end + len(_END))


def _is_torn(content: bytes, offset: int, sector_bytes: int) -> bool:
    """Return whether the damaged record at ``offset``, the last one, is damaged as a crash damages a write."""
    if len(content[offset:].rstrip(b"\0")) < _HEADER.size:
        return True  # nothing but a part of the header is there
    start = offset + _HEADER.size
    if _lacks_a_sector(content, offset, start, sector_bytes):
        return True
    header = _read_header(content, offset)
    if header is None:
        return False
    end = start + header.length
    if end + len(_END) > len(content) or 0 in content[end : end + len(_END)]:
        return True
    return _zero_sectors(content[start:end], start, sector_bytes) > header.zeros


def _lacks_a_sector(content: bytes, start: int, end: int, sector_bytes: int) -> bool:
    """Return whether one of the sectors that hold a part of [start, end) never arrived: zeros from ``start`` on."""
    while start < end:
        sector_end = start - start % sector_bytes + sector_bytes
        if not content[start:sector_end].strip(b"\0"):
            return True
        start = sector_end
    return False


def _zero_sectors(payload: bytes, offset: int, sector_bytes: int) -> int:
    """Return how many whole sectors of a payload, which lies at ``offset``, hold nothing but zeros."""
    zeros = bytes(sector_bytes)
    if zeros not in payload:  # nearly always
        return 0
    first = -offset % sector_bytes
    return sum(
        payload.startswith(zeros, start) for start in range(first, len(payload) - sector_bytes + 1, sector_bytes)
    )


def _later_record(content: bytes, offset: int, number: int) -> bool:
    """Return whether any record after number ``number`` can be read behind ``offset``."""
    place = content.find(MAGIC, offset + 1)
    while place != -1:
        record = _read_record(content, place, None)
        if record is not None and record.number > number:
            return True
        place = content.find(MAGIC, place + 1)
    return False
