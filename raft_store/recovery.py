"""What a member does with its disk before it takes part."""

import asyncio
import logging
from pathlib import Path

from raft_store.disk.directory import OsDirectory
from raft_store.disk.storage import Past, Storage
from raft_store.engine import Entry, Index, MemberId, StateMachine, Term
from raft_store.raft.membership import alone, encode
from raft_store.raft.messages import HardState, Save, SnapshotMark

log = logging.getLogger(__name__)


def open_directory(path: Path, disk_orders: Path | None) -> OsDirectory:
    """Return a member's data directory, locked; disk_orders: see ``disk.faults``. Raises DiskError."""
    if disk_orders is None:
        return OsDirectory(path)
    # Only robustness runs load it.
    from raft_store.disk.faults import FaultyDirectory  # noqa: PLC0415

    return FaultyDirectory(path, disk_orders)


async def restore(machine: StateMachine, storage: Storage, mark: SnapshotMark) -> None:
    """Restore a snapshot while there is nothing else to do yet but to listen to signals."""
    restoration = machine.begin_restore()
    for chunk in storage.read_snapshot(mark):
        restoration.feed(chunk)
        await asyncio.sleep(0)
    restoration.finish()


def give_up_others(storage: Storage, past: Past, member: MemberId) -> Past:
    """Write into the log that ``member`` is the whole group: as any change, twice (see ``membership``)."""
    log_, state = past.log, past.hard_state
    configuration = log_.newest_configuration
    # Written last is not enough: a change that nobody agreed to leaves the group as it was, and us without a majority.
    if configuration.members == log_.step.configuration.members == {member}:
        return past
    term = Term(state.term + 1)
    alone_now = encode(alone(configuration, member))
    entries = [Entry(Index(log_.last_index + i), term, alone_now, reconfigures=True) for i in (1, 2)]
    save = Save(HardState(term, member), entries, None)
    storage.save(save)
    log_.append(save.entries)
    log_.mark_saved(log_.begin_save()[-1].index)
    log.warning("gave up all other members member=%x lost=%d", member, len(configuration.members) - 1)
    return Past(save.hard_state, past.snapshot, log_)
