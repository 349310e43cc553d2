"""What one member keeps on disk: its log and its newest snapshot, always in an order that a crash may interrupt."""

import msgspec

from raft_store.disk.directory import Directory
from raft_store.disk.snapshot import load_snapshot, save_snapshot
from raft_store.disk.wal import SEGMENT_BYTES, Wal
from raft_store.raft.log import Log
from raft_store.raft.membership import NO_MEMBERS, Configuration
from raft_store.raft.messages import HardState, Save, Snapshot, SnapshotMark


class Past(msgspec.Struct, frozen=True):
    """What a member remembers when it starts."""

    hard_state: HardState
    snapshot: Snapshot | None
    log: Log


class Storage:
    """Blocking, one call at a time: a driver calls it from one thread of its own."""

    def __init__(self, directory: Directory, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._wal = Wal(directory, segment_bytes=segment_bytes)

    @property
    def log_bytes(self) -> int:
        """Size of the log on disk."""
        return self._wal.size_bytes

    def recover(self, founders: Configuration = NO_MEMBERS) -> Past:
        """Read everything and open the log for writing; raises DiskError, CorruptLog.

        founders: the group at the beginning of the log; a snapshot knows better.
        """
        snapshot = load_snapshot(self._directory)
        mark = snapshot.mark if snapshot is not None else SnapshotMark(configuration=founders)
        recovered = self._wal.recover(mark)
        return Past(recovered.hard_state, snapshot, Log(mark, recovered.entries))

    def save(self, save: Save) -> None:
        """Make one step of the core durable."""
        self.write(save)
        self.sync()

    def write(self, save: Save) -> None:
        """Hand one step to the disk; durable after ``sync``."""
        if save.snapshot is not None:
            # First the snapshot, then the log that relies on it.
            save_snapshot(self._directory, save.snapshot)
        self._wal.write(save)

    def sync(self) -> None:
        """Make the step written last durable."""
        self._wal.sync()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of our own machine, and let go of the log that it makes superfluous."""
        save_snapshot(self._directory, snapshot)
        self._wal.drop_before(snapshot.mark.index)

    def load_snapshot(self) -> Snapshot | None:
        """Return the newest snapshot, for a follower that our log cannot help any more."""
        return load_snapshot(self._directory)

    def close(self) -> None:
        """Release the log."""
        self._wal.close()
