"""The log file: what was saved comes back; a crash costs the last record at most; changed data is refused."""

import os
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_store.disk.directory import DirectoryInUse, DiskError, OsDirectory
from raft_store.disk.snapshot import write_snapshot
from raft_store.disk.storage import Storage
from raft_store.disk.wal import CorruptLog, Wal
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.simulation.disk import SECTOR_BYTES, SimulatedDirectory

NOTHING = SnapshotMark()


def save(*, term, first=1, values=(), vote=0):
    entries = [Entry(Index(first + i), Term(term), value) for i, value in enumerate(values)]
    return Save(HardState(Term(term), MemberId(vote)), entries, None)


def recover(directory, snapshot=NOTHING):
    return Wal(directory).recover(snapshot)


@st.composite
def histories(draw):
    """Saves as a follower makes them: terms rise, entries go on after the last or replace some of the latest."""
    saves, last, term = [], 0, 1
    for _ in range(draw(st.integers(1, 12))):
        values = draw(st.lists(st.binary(max_size=60), max_size=4))
        replaced = draw(st.integers(0, min(3, last))) if draw(st.booleans()) else 0
        term += 1 if replaced else draw(st.integers(0, 1))
        first = last - replaced + 1
        saves.append(save(term=term, first=first, values=values, vote=draw(st.integers(0, 3))))
        if values:
            last = first + len(values) - 1
    return saves


def replay(saves):
    """The dumb twin: a dict of entries."""
    entries = {}
    for one in saves:
        if one.entries:
            entries = {index: entry for index, entry in entries.items() if index < one.entries[0].index}
            entries.update({entry.index: entry for entry in one.entries})
    state = next((one.hard_state for one in reversed(saves)), HardState())
    return state, [entries[index] for index in sorted(entries)]


def write(saves, *, segment_bytes=300):
    directory = SimulatedDirectory()
    wal = Wal(directory, segment_bytes=segment_bytes)
    wal.recover(NOTHING)
    sizes = []
    for one in saves:
        wal.save(one)
        sizes.append((wal._next - 1, directory.names()[-1], wal._written))
    return directory, sizes


@given(histories(), st.integers(50, 2000))
def test_what_was_saved_comes_back(saves, segment_bytes):
    directory, _ = write(saves, segment_bytes=segment_bytes)
    recovered = recover(directory)
    assert (recovered.hard_state, list(recovered.entries)) == replay(saves)


@given(histories(), st.data())
def test_a_cut_at_any_byte_leaves_a_prefix(saves, data):
    directory, _ = write(saves, segment_bytes=1 << 20)
    (name,) = directory.names()
    content = directory.read(name)
    directory.files[name].content = bytearray(content[: data.draw(st.integers(0, len(content)))])
    recovered = recover(directory)
    prefixes = [replay(saves[:count]) for count in range(len(saves) + 1)]
    assert (recovered.hard_state, list(recovered.entries)) in prefixes
    # What is left is a log that one can go on with.
    wal = Wal(directory)
    before = wal.recover(NOTHING)
    last = before.entries[-1].index if before.entries else 0
    term = before.hard_state.term + 1
    wal.save(save(term=term, first=last + 1, values=[b"more"]))
    assert recover(directory).entries[-1].data == b"more"


@given(histories(), st.data())
def test_any_changed_bit_of_synced_data_is_refused(saves, data):
    """The last record as well: every part of it is there, so it was no crash that changed it."""
    directory, _ = write(saves, segment_bytes=data.draw(st.sampled_from([300, 1 << 20])))
    name = data.draw(st.sampled_from(directory.names()))
    content = directory.files[name].content
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    content += bytes(500)  # set aside
    with pytest.raises(CorruptLog, match=name):
        recover(directory)


@given(histories(), st.data())
def test_a_tail_torn_at_any_byte_is_cut_off(saves, data):
    """Zeros from any byte of the last record on: less than a disk promises, a sector being there or not."""
    directory, sizes = write(saves, segment_bytes=1 << 20)
    (name,) = directory.names()
    content = directory.files[name].content
    start = sizes[-2][2] if len(sizes) > 1 else first_record_end(content)
    place = data.draw(st.integers(start, len(content) - 1))
    content[place:] = bytes(len(content) - place + data.draw(st.sampled_from([0, 500])))
    recovered = recover(directory)
    assert (recovered.hard_state, list(recovered.entries)) == replay(saves[:-1])


@given(histories(), st.lists(st.binary(max_size=40) | st.integers(0, 300).map(bytes), min_size=1), st.data())
def test_a_tail_with_any_sectors_missing_is_cut_off(saves, values, data):
    """Also if the record itself has sectors of zeros."""
    directory, _ = write(saves, segment_bytes=1 << 20)
    (name,) = directory.names()
    start = len(directory.files[name].content)
    wal = Wal(directory)
    before = wal.recover(NOTHING)
    last = before.entries[-1].index if before.entries else 0
    wal.save(save(term=before.hard_state.term, first=last + 1, values=values))
    content = directory.files[name].content
    whole = bytes(content)
    for sector in range(start // SECTOR_BYTES, len(content) // SECTOR_BYTES + 1):
        if data.draw(st.booleans()):
            low, high = max(start, sector * SECTOR_BYTES), min(len(content), (sector + 1) * SECTOR_BYTES)
            content[low:high] = bytes(high - low)
    recovered = recover(directory)
    expected = [*before.entries, *recovered.entries[len(before.entries) :]] if content == whole else before.entries
    assert list(recovered.entries) == list(expected)
    assert len(recovered.entries) == len(before.entries) + (len(values) if content == whole else 0)


def test_a_changed_bit_among_zeros_is_refused():
    """Sectors of zeros that were written so are not missing ones."""
    directory, _ = write([save(term=1, values=[bytes(1000)])], segment_bytes=1 << 20)
    (name,) = directory.names()
    directory.files[name].content[500] ^= 4
    with pytest.raises(CorruptLog, match=name):
        recover(directory)


def first_record_end(content):
    return content.index(b"TREC", 1)


def test_the_refusal_names_file_and_offset():
    directory, _ = write([save(term=1, values=[b"a"]), save(term=2, first=2, values=[b"b"])], segment_bytes=1 << 20)
    (name,) = directory.names()
    second = directory.files[name].content.find(b"TREC", 1)
    directory.files[name].content[second + 25] ^= 1
    with pytest.raises(CorruptLog, match=rf"{name}: record 2 at byte {second}"):
        recover(directory)


def test_a_missing_segment_is_refused():
    saves = [save(term=1, first=i, values=[b"x" * 40]) for i in range(1, 30)]
    directory, _ = write(saves)
    names = directory.names()
    assert len(names) > 3
    directory.remove(names[1])
    with pytest.raises(CorruptLog, match="missing"):
        recover(directory)


def test_a_log_that_begins_after_the_snapshot_is_refused():
    saves = [save(term=1, first=i, values=[b"x" * 40]) for i in range(1, 30)]
    directory, _ = write(saves)
    directory.remove(directory.names()[0])
    with pytest.raises(CorruptLog, match="the newest snapshot ends with 0"):
        recover(directory)


def test_segments_that_a_snapshot_holds_go():
    saves = [save(term=1, first=i, values=[b"x" * 40]) for i in range(1, 30)]
    directory = SimulatedDirectory()
    wal = Wal(directory, segment_bytes=300)
    wal.recover(NOTHING)
    for one in saves:
        wal.save(one)
    before = len(directory.names())
    wal.drop_before(Index(20))
    assert 1 <= len(directory.names()) < before
    recovered = recover(directory, SnapshotMark(Index(20), Term(1)))
    assert [entry.index for entry in recovered.entries] == list(range(21, 30))


def test_space_set_aside_ends_the_log():
    directory, _ = write([save(term=3, values=[b"a"], vote=2)], segment_bytes=1 << 20)
    (name,) = directory.names()
    directory.files[name].content += bytes(5000)
    assert recover(directory).hard_state == HardState(Term(3), MemberId(2))


def test_a_snapshot_that_the_log_does_not_know_yet_counts():
    """A crash between the two writes of a snapshot from another member."""
    directory = SimulatedDirectory()
    storage = Storage(directory)
    storage.recover()
    storage.save(save(term=1, values=[b"old"]))
    mark = SnapshotMark(Index(10), Term(2))
    write_snapshot(directory, mark, [b"state"])
    storage = Storage(directory)
    past = storage.recover()
    assert (past.log.base, past.log.last_index) == (mark, 10)
    storage.save(save(term=3, first=11, values=[b"new"]))
    past = Storage(directory).recover()
    assert (past.snapshot, past.log.last_index, past.log.last_term) == (mark, 11, 3)
    assert list(Storage(directory).read_snapshot(mark)) == [b"state"]


def test_a_directory_serves_one_process(tmp_path):
    directory = OsDirectory(tmp_path)
    with pytest.raises(DirectoryInUse, match=str(tmp_path)):
        OsDirectory(tmp_path)
    directory.close()
    OsDirectory(tmp_path).close()


def test_on_a_real_disk(tmp_path):
    directory = OsDirectory(tmp_path)
    wal = Wal(directory, segment_bytes=4096)
    wal.recover(NOTHING)
    saves = [save(term=1, first=i, values=[b"%d" % i * 100], vote=1) for i in range(1, 60)]
    for one in saves:
        wal.save(one)
    wal.close()
    again = Wal(directory, segment_bytes=4096)
    recovered = again.recover(NOTHING)
    again.close()
    directory.close()
    assert (recovered.hard_state, list(recovered.entries)) == replay(saves)


def test_a_failed_sync_names_the_file(tmp_path, monkeypatch):
    directory = OsDirectory(tmp_path)
    wal = Wal(directory)
    wal.recover(NOTHING)

    def broken(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", broken)
    with pytest.raises(DiskError, match=r"cannot sync .*\.wal: Input/output error"):
        wal.save(save(term=1))
    wal.close()
    directory.close()


def test_what_the_kernel_takes_in_parts_is_written_whole(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, memoryview(data)[:7], offset))
    with closing(OsDirectory(tmp_path)) as directory:
        file = directory.create("x", expected_bytes=100)
        for data in (b"0123456789" * 3, b"", b"seven..", b"end"):
            file.append(data)
        file.close()
        assert directory.read("x").rstrip(b"\0") == b"0123456789" * 3 + b"seven..end"
