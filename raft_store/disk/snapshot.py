"""Snapshots on disk: the newest whole state of the machine, one file each, replaced atomically."""

import struct

import google_crc32c

from raft_store.disk.directory import Directory, DiskError
from raft_store.engine import Index, Term
from raft_store.raft import membership
from raft_store.raft.messages import Snapshot, SnapshotMark

SUFFIX = ".snapshot"
_MAGIC = b"TSNP"
_HEADER = struct.Struct("<4sI")  # magic, crc32c of all that follows
_MARK = struct.Struct("<QQI")  # index, term, length of the configuration, which comes between mark and data


def save_snapshot(directory: Directory, snapshot: Snapshot) -> None:
    """Write a snapshot durably, then remove older ones."""
    mark = snapshot.mark
    configuration = membership.encode(mark.configuration)
    head = _MARK.pack(mark.index, mark.term, len(configuration)) + configuration
    crc = google_crc32c.extend(google_crc32c.value(head), snapshot.data)
    directory.replace(_name(mark), _HEADER.pack(_MAGIC, crc) + head + snapshot.data)
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
    if len(content) < _HEADER.size + _MARK.size:
        raise DiskError(f"{names[-1]}: the snapshot is cut off at byte {len(content)}")
    magic, crc = _HEADER.unpack_from(content)
    if magic != _MAGIC or google_crc32c.value(content[_HEADER.size :]) != crc:
        raise DiskError(f"{names[-1]}: the snapshot is damaged; remove this member's data and let it join again")
    index, term, length = _MARK.unpack_from(content, _HEADER.size)
    start = _HEADER.size + _MARK.size
    configuration = membership.decode(content[start : start + length])
    return Snapshot(SnapshotMark(Index(index), Term(term), configuration), content[start + length :])


def _name(mark: SnapshotMark) -> str:
    return f"{mark.index:016x}{SUFFIX}"
