"""Snapshots on disk: the newest whole state of the machine, in one file of checksummed frames.

A frame is

    magic "TSNP" | crc32c of all that follows | length of the payload | number of the frame | payload

The first frame says what the snapshot is of (``SnapshotHead``), the frames after it carry the machine's chunks, and
one without a payload ends it: a file that lacks it, or any frame, or has one in the wrong place, is not a snapshot.
The same bytes lie on disk, travel to followers, and are what ``snapshot save`` gets.

A file is written under another name, synced as it grows (a single sync at the end would hold up the log's own for
seconds), and takes its place in the directory by being renamed. So there is the old one or the new one, nothing else.
"""

import struct
from collections.abc import Iterable, Iterator
from threading import Lock

import google_crc32c
import msgspec

from raft_store.disk.directory import Directory, DiskError, File, Source
from raft_store.raft.messages import SnapshotMark

SUFFIX = ".snapshot"
GROWING = ".growing"  # being written; worthless after a crash
RECEIVED = ".received"  # whole and synced, from another member; the core has not decided about it yet
SYNC_BYTES = 4 << 20  # so much may wait for a sync
MAX_FRAME_BYTES = 64 << 20
READ_BYTES = 256 << 10
FORMAT = 2
_INDEX_DIGITS = 16
_MAGIC = b"TSNP"
_FRAME = struct.Struct("<4sIII")
_COVERED = struct.Struct("<II")


class SnapshotHead(msgspec.Struct, frozen=True):
    """What a snapshot is of: the whole first frame, in MessagePack."""

    format: int
    mark: SnapshotMark
    cluster_id: int = 0  # in files that leave the member: where they come from, and when they were made
    taken_s: float = 0.0  # Unix time


class NotASnapshot(DiskError):
    """A file that should be a snapshot is damaged, cut off, or something else; says where."""


class FrameReader:
    """Takes a snapshot's bytes in any portions, and gives its payloads; raises NotASnapshot at the first wrong byte."""

    def __init__(self, name: str) -> None:
        """name: for messages."""
        self.ended = False
        self.offset = 0  # of the first byte that is not checked yet
        self.head: SnapshotHead | None = None  # known after the first frame
        self._name = name
        self._next = 0
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the machine's chunks that end in ``data``; to be drawn to its end. What follows stays in ``rest``."""
        data = self._rest + data if self._rest else data
        place, size = 0, len(data)
        while not self.ended and place + _FRAME.size <= size:
            magic, crc, length, number = _FRAME.unpack_from(data, place)
            if magic != _MAGIC or number != self._next or length > MAX_FRAME_BYTES:
                raise self._damaged()
            end = place + _FRAME.size + length
            if end > size:
                break
            payload = data[place + _FRAME.size : end]
            if google_crc32c.extend(google_crc32c.value(_COVERED.pack(length, number)), payload) != crc:
                raise self._damaged()
            self.offset += end - place
            place = end
            self._next += 1
            if number == 0:
                self.head = self._decode_head(payload)
            elif payload:
                yield payload
            else:
                self.ended = True
        self._rest = data[place:]

    @property
    def rest(self) -> bytes:
        """Return what was fed and does not belong to a whole frame."""
        return self._rest

    def check_ended(self) -> SnapshotHead:
        """Return the head; raises NotASnapshot if the end has not been seen."""
        if not self.ended or self.head is None:
            raise NotASnapshot(f"{self._name}: the snapshot is cut off at byte {self.offset + len(self._rest)}")
        return self.head

    def _decode_head(self, payload: bytes) -> SnapshotHead:
        try:
            head = msgspec.msgpack.decode(payload, type=SnapshotHead)
        except msgspec.MsgspecError as exc:
            raise NotASnapshot(f"{self._name}: the snapshot's head cannot be read: {exc}") from exc
        if head.format != FORMAT:
            raise NotASnapshot(f"{self._name}: the snapshot has format {head.format}; this program reads {FORMAT}")
        return head

    def _damaged(self) -> NotASnapshot:
        return NotASnapshot(f"{self._name}: the snapshot is damaged at byte {self.offset}")


class Framer:
    """Makes a snapshot's bytes, frame by frame."""

    def __init__(self) -> None:
        self._next = 0

    def head(self, mark: SnapshotMark, *, cluster_id: int = 0, taken_s: float = 0.0) -> bytes:
        """Return the first frame."""
        head = SnapshotHead(FORMAT, mark, cluster_id, taken_s)
        return self._frame(msgspec.msgpack.encode(head))

    def chunk(self, chunk: bytes) -> bytes:
        """Return the next frame; ``chunk`` is not empty."""
        assert chunk, "an empty frame ends a snapshot"
        return self._frame(chunk)

    def end(self) -> bytes:
        """Return the last frame."""
        return self._frame(b"")

    def _frame(self, payload: bytes) -> bytes:
        covered = _COVERED.pack(len(payload), self._next)
        crc = google_crc32c.extend(google_crc32c.value(covered), payload)
        self._next += 1
        return _FRAME.pack(_MAGIC, crc, len(payload), self._next - 1) + payload


class GrowingSnapshot:
    """A snapshot file being written, from one thread at a time, never the log's. Any method may raise DiskError.

    Only ``discard`` may come while another thread still writes, and lets that end first: the system gives a closed
    file's descriptor to the next file that is opened, the log's maybe.
    """

    def __init__(self, directory: Directory, name: str) -> None:
        self._directory = directory
        self._name = name
        self._file: File | None = directory.create(name, expected_bytes=0)
        self._unsynced = 0
        self._busy = Lock()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Add bytes of the file."""
        with self._busy:
            assert self._file is not None
            self._file.append(data)
            self.size_bytes += len(data)
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                self._file.sync()
                self._unsynced = 0

    def finish(self, name: str) -> None:
        """Make the file durable under its final name."""
        with self._busy:
            assert self._file is not None
            self._file.sync()
            self._close()
            self._directory.rename(self._name, name)

    def discard(self) -> None:
        """Remove the file."""
        with self._busy:
            self._close()
            self._directory.remove(self._name)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def write_snapshot(directory: Directory, mark: SnapshotMark, chunks: Iterable[bytes]) -> None:
    """Write a whole snapshot, durably, in one go: for who has nothing else to do meanwhile."""
    framer, growing = Framer(), GrowingSnapshot(directory, snapshot_name(mark) + GROWING)
    growing.write(framer.head(mark))
    for chunk in chunks:
        if chunk:
            growing.write(framer.chunk(chunk))
    growing.write(framer.end())
    growing.finish(snapshot_name(mark))


def read_chunks(source: Source, name: str) -> Iterator[bytes]:
    """Yield a snapshot's chunks, each checked, and close the source; raises NotASnapshot, DiskError."""
    reader = FrameReader(name)
    try:
        while not reader.ended and (data := source.read(READ_BYTES)):
            yield from reader.feed(data)
        reader.check_ended()
        if reader.rest or source.read(1):
            raise NotASnapshot(f"{name}: something follows the snapshot's end at byte {reader.offset}")
    finally:
        source.close()


def read_head(directory: Directory, name: str) -> SnapshotHead:
    """Return what the snapshot file ``name`` says it is of; raises NotASnapshot, DiskError."""
    source = directory.open(name)
    try:
        reader = FrameReader(name)
        while reader.head is None and (data := source.read(READ_BYTES)):
            for _ in reader.feed(data):
                break
    finally:
        source.close()
    if reader.head is None:
        raise NotASnapshot(f"{name}: the snapshot is cut off at byte {len(reader.rest)}")
    return reader.head


def newest_snapshot(directory: Directory) -> str | None:
    """Return the name of the newest snapshot file, None if there never was one."""
    return max((name for name in directory.names() if name.endswith(SUFFIX)), default=None)


def remove_older(directory: Directory, mark: SnapshotMark) -> None:
    """Remove the snapshots before ``mark``'s, also those that were received and not wanted."""
    kept = snapshot_name(mark)
    for name in directory.names():
        if name.endswith((SUFFIX, RECEIVED)) and name[:_INDEX_DIGITS] <= kept[:_INDEX_DIGITS] and name != kept:
            directory.remove(name)


def snapshot_name(mark: SnapshotMark) -> str:
    """Return the name of a snapshot's file; they sort by index."""
    return f"{mark.index:0{_INDEX_DIGITS}x}{SUFFIX}"


def received_name(mark: SnapshotMark, number: int) -> str:
    """Return the name of a file that waits for the core's decision; ``number`` tells two of one mark apart."""
    return f"{mark.index:0{_INDEX_DIGITS}x}-{number}{RECEIVED}"
