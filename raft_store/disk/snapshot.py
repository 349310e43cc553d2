"""Snapshots on disk: the newest whole state of the machine, one file each, replaced atomically."""

import struct

import google_crc32c

from raft_store.disk.directory import Directory, DiskError
from raft_store.engine import Index, Term
from raft_store.raft.messages import Snapshot, SnapshotMark

SUFFIX = ".snapshot"
_MAGIC = b"TSNP"
_HEADER = struct.Struct("<4sIQQ")  # magic, crc32c of mark and data, index, term
_MARK = struct.Struct("<QQ")


def save_snapshot(directory: Directory, snapshot: Snapshot) -> None:
    """Write a snapshot durably, then remove older ones."""
    mark = snapshot.mark
    crc = google_crc32c.extend(google_crc32c.value(_MARK.pack(mark.index, mark.term)), snapshot.data)
    directory.replace(_name(mark), _HEADER.pack(_MAGIC, crc, mark.index, mark.term) + snapshot.data)
    for name in directory.names():
        if name.endswith(SUFFIX) and name < _name(mark):
            directory.remove(name)


def load_snapshot(directory: Directory) -> Snapshot | None:
    """Return the newest snapshot, None if there never was one; raises DiskError if it is damaged.

    An older one is no way out: the log before the newest one may be gone.
    """
    names = [name for name in directory.names() if name.endswith(SUFFIX)]
    if not names:
        return None
    content = directory.read(names[-1])
    if len(content) < _HEADER.size:
        raise DiskError(f"{names[-1]}: the snapshot is cut off at byte {len(content)}")
    magic, crc, index, term = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if magic != _MAGIC or google_crc32c.extend(google_crc32c.value(_MARK.pack(index, term)), data) != crc:
        raise DiskError(f"{names[-1]}: the snapshot is damaged; remove this member's data and let it join again")
    return Snapshot(SnapshotMark(Index(index), Term(term)), data)


def _name(mark: SnapshotMark) -> str:
    return f"{mark.index:016x}{SUFFIX}"
