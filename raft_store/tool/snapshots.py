"""Saved snapshots: what is in them, and new clusters out of them."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from raft_store.config import cluster_id, member_id
from raft_store.disk.directory import DiskError, OsDirectory, open_file
from raft_store.disk.identity import Identity, save_identity
from raft_store.disk.saved import SavedSnapshot
from raft_store.disk.snapshot import NotASnapshot, write_snapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Index, Term
from raft_store.machine import Machine
from raft_store.mvcc.lease import LeaseClock
from raft_store.raft.membership import founded
from raft_store.raft.messages import HardState, Save, SnapshotMark

RESTORING = ".restoring"
_BOLT_MAGIC = bytes.fromhex("edda0ced")  # at byte 16 of the file that a real etcd gives


class SnapshotFacts(msgspec.Struct, frozen=True):
    """What a saved snapshot holds."""

    hash: str  # SHA-256 of the file, the first 8 digits
    revision: int
    compact_revision: int
    total_key: int
    total_size: int  # of the file, in bytes
    index: int
    term: int
    leases: int
    alarms: int
    cluster_id: int
    taken_s: float


def load(path: Path) -> tuple[Machine, SavedSnapshot]:
    """Return the state in a saved snapshot, all of it checked; raises NotASnapshot, DiskError."""
    if not path.is_file():
        raise DiskError(f"there is no file {path}")
    with path.open("rb") as file:
        if file.read(20)[16:] == _BOLT_MAGIC:
            raise NotASnapshot(
                f"{path}: this is a snapshot of a real etcd (a bbolt file); this store restores only its own"
            )
    saved = SavedSnapshot(open_file(path), str(path))
    machine = Machine(LeaseClock(lambda: 0.0))
    try:
        machine.restore(saved.chunks())
    except (msgspec.MsgspecError, ValueError) as exc:
        raise NotASnapshot(f"{path}: the state in it cannot be read: {exc}") from exc
    return machine, saved


def status(path: Path) -> SnapshotFacts:
    """Return what a saved snapshot holds; raises NotASnapshot, DiskError."""
    machine, saved = load(path)
    assert saved.head is not None
    store, mark = machine.store, saved.head.mark
    return SnapshotFacts(
        hash=_digest(path)[:8],
        revision=store.revision,
        compact_revision=max(0, store.compact_revision),
        total_key=len(store.index),
        total_size=path.stat().st_size,
        index=mark.index,
        term=mark.term,
        leases=len(machine.leases),
        alarms=len(machine.alarms),
        cluster_id=saved.head.cluster_id,
        taken_s=saved.head.taken_s,
    )


def restore(path: Path, data_dir: Path, *, name: str, members: Mapping[str, str], cluster: str) -> SnapshotFacts:
    """Make the data directory of a member of a new cluster that begins with the snapshot's state.

    name: the member's; members: name -> peer URL of every member, the same for all; cluster: the new one's name. Each
    of them has to be restored from the same file. What was on its way of being restored when something
    went wrong is never taken for data. Raises NotASnapshot, DiskError, ValueError.
    """
    if name not in members:
        raise ValueError(f"member {name!r} is not among the members {', '.join(members)}")
    if data_dir.exists() and any(data_dir.iterdir()):
        raise DiskError(f"{data_dir} is not empty; a snapshot is restored into a new data directory")
    machine, _ = load(path)
    machine.members.clear()  # the old cluster's; the new one's tell where they are as soon as they run
    workshop = data_dir.with_name(data_dir.name + RESTORING)
    shutil.rmtree(workshop, ignore_errors=True)
    directory = OsDirectory(workshop)
    try:
        _furnish(directory, machine, name=name, members=members, cluster=cluster)
    finally:
        directory.close()
    if data_dir.exists():
        data_dir.rmdir()
    workshop.rename(data_dir)
    return msgspec.structs.replace(status(path), cluster_id=cluster_id(cluster))


def _furnish(directory: OsDirectory, machine: Machine, *, name: str, members: Mapping[str, str], cluster: str) -> None:
    urls = {member_id(cluster, member): (url,) for member, url in members.items()}
    # As if the whole state had been brought about by one entry, on which all founders agree.
    mark = SnapshotMark(Index(1), Term(1), founded(urls))
    write_snapshot(directory, mark, machine.snapshot())
    storage = Storage(directory)
    storage.recover(founded(urls))
    storage.save(Save(HardState(Term(1)), (), None))
    storage.close()
    save_identity(directory, Identity(cluster=cluster, member=member_id(cluster, name), name=name, founders=urls))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
