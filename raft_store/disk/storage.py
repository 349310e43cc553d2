"""What one member keeps on disk: its log and its newest snapshot, always in an order that a crash may interrupt.

The core hands snapshots around by name: a ``Snapshot``'s data, opaque to it, is the name of the file that another
member's snapshot was received into. The bytes go from disk to disk, never through the memory of a member as a whole.
"""

import itertools
from collections.abc import Iterator

import msgspec

from raft_store.disk.directory import Directory, Source
from raft_store.disk.snapshot import (
    GROWING,
    RECEIVED,
    Framer,
    FrameReader,
    GrowingSnapshot,
    newest_snapshot,
    read_chunks,
    read_head,
    received_name,
    remove_older,
    snapshot_name,
)
from raft_store.disk.wal import SEGMENT_BYTES, Wal
from raft_store.raft.log import Log
from raft_store.raft.membership import NO_MEMBERS, Configuration
from raft_store.raft.messages import HardState, Save, Snapshot, SnapshotMark


class Past(msgspec.Struct, frozen=True):
    """What a member remembers when it starts."""

    hard_state: HardState
    snapshot: SnapshotMark | None  # ``Storage.read_snapshot`` has the state
    log: Log


class OwnSnapshot:
    """A snapshot of our own machine on its way to the disk; see ``GrowingSnapshot`` about threads and errors."""

    def __init__(self, directory: Directory, mark: SnapshotMark) -> None:
        self.mark = mark
        self._framer = Framer()
        self._file = GrowingSnapshot(directory, snapshot_name(mark) + GROWING)
        self._file.write(self._framer.head(mark))

    @property
    def size_bytes(self) -> int:
        """Return how many bytes were written so far."""
        return self._file.size_bytes

    def write(self, chunk: bytes) -> None:
        """Add a chunk of the machine's."""
        self._file.write(self._framer.chunk(chunk))

    def finish(self) -> None:
        """Make it the newest snapshot; the log that it makes superfluous is still there."""
        self._file.write(self._framer.end())
        self._file.finish(snapshot_name(self.mark))


class IncomingSnapshot:
    """Another member's snapshot on its way to our disk; see ``GrowingSnapshot`` about threads and errors."""

    def __init__(self, directory: Directory, number: int) -> None:
        self._number = number
        self._reader = FrameReader("a snapshot from another member")
        self._file = GrowingSnapshot(directory, f"{number}{GROWING}")

    def write(self, data: bytes) -> None:
        """Add bytes as they come; raises NotASnapshot at the first wrong one."""
        for _ in self._reader.feed(data):
            pass  # checked, that is all
        self._file.write(data)

    def finish(self) -> Snapshot:
        """Make it durable and return it for the core to decide about; raises NotASnapshot if something is missing."""
        head = self._reader.check_ended()
        name = received_name(head.mark, self._number)
        self._file.finish(name)
        return Snapshot(head.mark, name.encode())

    def discard(self) -> None:
        """Forget it."""
        self._file.discard()


class Storage:
    """Blocking. One call at a time has to do with the log; what says so may be called from any thread meanwhile.

    But for ``let_go``, which may run beside a ``write``: the one removes old segments and never the newest, the other
    goes on in the newest and begins no new one (``descriptor`` is None when it would).
    """

    def __init__(self, directory: Directory, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._wal = Wal(directory, segment_bytes=segment_bytes)
        self._incoming = itertools.count(1)

    @property
    def log_bytes(self) -> int:
        """Size of the log on disk."""
        return self._wal.size_bytes

    @property
    def descriptor(self) -> int | None:
        """See ``Wal.descriptor``."""
        return self._wal.descriptor

    def recover(self, founders: Configuration = NO_MEMBERS) -> Past:
        """Read the log and open it for writing; raises DiskError, CorruptLog.

        founders: the group at the beginning of the log; a snapshot knows better. An older snapshot than the newest is
        no way out if that one is damaged: the log before it may be gone.
        """
        for name in self._directory.names():
            if name.endswith((GROWING, RECEIVED)):
                self._directory.remove(name)  # a crash left it behind: nobody relies on it
        newest = newest_snapshot(self._directory)
        found = read_head(self._directory, newest).mark if newest is not None else None
        mark = found or SnapshotMark(configuration=founders)
        recovered = self._wal.recover(mark)
        return Past(recovered.hard_state, found, Log(mark, recovered.entries))

    def save(self, save: Save) -> None:
        """Make one step of the core durable."""
        self.write(save)
        self.sync()

    def write(self, save: Save) -> None:
        """Hand one step to the disk; durable after ``sync``."""
        if save.snapshot is not None:
            # First the snapshot, then the log that relies on it.
            mark = save.snapshot.mark
            self._directory.rename(save.snapshot.data.decode(), snapshot_name(mark))
            remove_older(self._directory, mark)
        self._wal.write(save)

    def sync(self) -> None:
        """Make the step written last durable."""
        self._wal.sync()

    def begin_snapshot(self, mark: SnapshotMark) -> OwnSnapshot:
        """Begin a snapshot of our own machine; from any thread."""
        return OwnSnapshot(self._directory, mark)

    def let_go(self, mark: SnapshotMark) -> None:
        """Drop what the snapshot at ``mark``, which is on disk, makes superfluous: older ones, and log."""
        remove_older(self._directory, mark)
        self._wal.drop_before(mark.index)

    def receive_snapshot(self) -> IncomingSnapshot:
        """Begin to take in another member's snapshot; from any thread."""
        return IncomingSnapshot(self._directory, next(self._incoming))

    def open_snapshot(self) -> Source:
        """Return the newest snapshot's bytes, for a follower that our log cannot help any more; from any thread."""
        newest = newest_snapshot(self._directory)
        assert newest is not None, "the core knows of a snapshot, the disk does not"
        return self._directory.open(newest)

    def read_snapshot(self, mark: SnapshotMark) -> Iterator[bytes]:
        """Yield the chunks of the snapshot at ``mark``; from any thread. Raises NotASnapshot, DiskError."""
        name = snapshot_name(mark)
        return read_chunks(self._directory.open(name), name)

    def close(self) -> None:
        """Release the log."""
        self._wal.close()
