"""What lies in a data directory that no member works in: its log in readable form, and whether it can be trusted."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from raft_store.disk.directory import Directory, DirectoryInUse, DiskError, OsDirectory
from raft_store.disk.identity import load_identity
from raft_store.disk.snapshot import newest_snapshot, read_chunks, read_head
from raft_store.disk.wal import LogReader
from raft_store.engine import Entry, Term
from raft_store.machine import Machine, decode
from raft_store.mvcc.lease import LeaseClock
from raft_store.raft import membership
from raft_store.raft.membership import Configuration
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.raft.proposals import unpack

SHOWN_BYTES = 60  # of a key or a value


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    sound: bool
    text: str


def open_directory(path: Path) -> OsDirectory:
    """Return a data directory, locked against a member's start; raises DiskError if there is none or it is in use."""
    if not path.is_dir():
        raise DiskError(f"there is no data directory {path}")
    try:
        return OsDirectory(path)
    except DirectoryInUse as exc:
        raise DirectoryInUse(f"{exc}; stop the member first, or look at a copy of it") from exc


def check(directory: Directory) -> Iterator[Finding]:
    """Look at everything, without changing it, until something is wrong for certain."""
    mark = SnapshotMark()
    try:
        yield _check_identity(directory)
        newest = newest_snapshot(directory)
        if newest is None:
            yield Finding(sound=True, text="no snapshot yet: the log has everything")
        else:
            mark = read_head(directory, newest).mark
            yield _check_snapshot(directory, newest, mark)
        yield from _check_log(directory, mark)
    except (DiskError, msgspec.MsgspecError, ValueError, AssertionError) as exc:
        yield Finding(sound=False, text=str(exc))


def _check_identity(directory: Directory) -> Finding:
    identity = load_identity(directory)
    if identity is None:
        return Finding(sound=True, text="nobody's data yet (no identity.json)")
    removed = ", removed from it for ever" if identity.removed else ""
    text = f"data of member {identity.member:x} {identity.name} of cluster {identity.cluster!r}{removed}"
    return Finding(sound=True, text=text)


def _check_snapshot(directory: Directory, name: str, mark: SnapshotMark) -> Finding:
    """Load it as a member would: what cannot be loaded is no state."""
    machine = Machine(LeaseClock(lambda: 0.0))
    machine.restore(read_chunks(directory.open(name), name))
    store = machine.store
    oldest = "" if store.compact_revision < 0 else f" compacted to {store.compact_revision}"
    text = (
        f"{name}: state after entry {mark.index} of term {mark.term}: "
        f"revision {store.revision}{oldest}, {len(store.index)} keys, {len(machine.leases)} leases"
    )
    return Finding(sound=True, text=text)


def _check_log(directory: Directory, mark: SnapshotMark) -> Iterator[Finding]:
    reader, records, state = LogReader(directory), 0, HardState()
    segments: set[str] = set()
    for record in reader.records():
        records += 1
        segments.add(record.segment)
        where = f"{record.segment}: record {record.number} at byte {record.offset}"
        if record.save.hard_state.term < state.term:
            yield Finding(sound=False, text=f"{where}: term {record.save.hard_state.term} comes after {state.term}")
        state = record.save.hard_state
        yield from _check_entries(where, record.save.entries)
    if reader.torn:
        yield Finding(sound=True, text=f"a torn tail, as a crash leaves it, will be cut off: {reader.torn}")
    recovered = reader.replay(mark)
    yield from _check_terms(mark.term, recovered.entries, recovered.hard_state)
    vote = f", vote for {recovered.hard_state.vote:x}" if recovered.hard_state.vote else ""
    last = recovered.entries[-1].index if recovered.entries else mark.index
    yield Finding(
        sound=True,
        text=f"log of {records} records in {len(segments)} segments: entries {mark.index + 1} to {last} "
        f"after the snapshot, term {recovered.hard_state.term}{vote}",
    )


def _check_entries(where: str, entries: Sequence[Entry]) -> Iterator[Finding]:
    for entry in entries:
        try:
            describe_entry(entry)
        except (msgspec.MsgspecError, ValueError) as exc:
            yield Finding(sound=False, text=f"{where}: entry {entry.index} cannot be read: {exc}")


def _check_terms(before: Term, entries: Sequence[Entry], state: HardState) -> Iterator[Finding]:
    for entry in entries:
        if entry.term < before:
            yield Finding(sound=False, text=f"entry {entry.index} of term {entry.term} follows one of term {before}")
        before = entry.term
    if before > state.term:
        yield Finding(sound=False, text=f"the last entry is of term {before}, the member knows only of {state.term}")


def dump(directory: Directory) -> Iterator[str]:
    """Yield the log in readable form: every record, and every entry in it. Raises CorruptLog, DiskError."""
    reader, segment, state = LogReader(directory), "", HardState()
    for record in reader.records():
        if record.segment != segment:
            segment = record.segment
            yield f"── {segment} " + "─" * 60
        yield f"{record.offset:>10}  record {record.number}  {_describe_save(record.save, state)}".rstrip()
        state = record.save.hard_state
        for entry in record.save.entries:
            yield f"{'':>10}    {entry.index:>8}/{entry.term:<4} {describe_entry(entry)}"
    if reader.torn:
        yield f"── torn tail, to be cut off at the next start: {reader.torn}"


def _describe_save(save: Save, before: HardState) -> str:
    parts = []
    if save.hard_state != before or not save.entries:
        vote = f" vote {save.hard_state.vote:x}" if save.hard_state.vote else ""
        parts.append(f"term {save.hard_state.term}{vote}")
    if save.snapshot is not None:
        mark = save.snapshot.mark
        parts.append(f"snapshot {mark.index}/{mark.term} replaces all before")
    return "  ".join(parts)


def describe_entry(entry: Entry) -> str:
    """Return what an entry says; raises MsgspecError or ValueError if nobody can tell."""
    if entry.reconfigures:
        return f"members: {_describe_group(membership.decode(entry.data))}"
    if not entry.data:
        return "a leader begins its term"
    session, number, proposed = unpack(entry.data)
    commands = "; ".join(describe_command(decode(data)) for data in proposed)
    return f"{commands}   (proposal {number} of {session:016x})"


def _describe_group(group: Configuration) -> str:
    parts = ["voters " + " ".join(f"{member:x}" for member in sorted(group.voters))]
    if group.outgoing:
        parts.append("together with " + " ".join(f"{member:x}" for member in sorted(group.outgoing)))
    if group.learners:
        parts.append("learners " + " ".join(f"{member:x}" for member in sorted(group.learners)))
    return ", ".join(parts)


def describe_command(command: object) -> str:
    """Return a command as a line: its kind, and those of its fields that are not their defaults."""
    if isinstance(command, list | tuple):
        return "[" + "; ".join(describe_command(one) for one in command) + "]"
    if isinstance(command, bytes):
        return _text(command)
    if not isinstance(command, msgspec.Struct):
        return str(getattr(command, "name", command))
    fields = []
    for field in msgspec.structs.fields(command):
        value = getattr(command, field.name)
        if value != field.default and value not in ([], ()):
            fields.append(f"{field.name}={describe_command(value)}")
    return " ".join([type(command).__name__, *fields])


def _text(data: bytes) -> str:
    shown = data[:SHOWN_BYTES]
    text = shown.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = repr(shown)[2:-1]
    return f'"{text}"' if len(data) <= SHOWN_BYTES else f'"{text}"... ({len(data)} bytes)'
