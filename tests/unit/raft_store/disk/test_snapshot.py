"""Snapshot files: whole or refused, whatever happened to them on disk or on their way."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_store.disk.directory import OsDirectory
from raft_store.disk.saved import SavedSnapshot, Seal
from raft_store.disk.snapshot import (
    Framer,
    FrameReader,
    GrowingSnapshot,
    NotASnapshot,
    newest_snapshot,
    read_chunks,
    read_head,
    snapshot_name,
    write_snapshot,
)
from raft_store.disk.storage import Storage
from raft_store.engine import Index, Term
from raft_store.raft.messages import HardState, Save, SnapshotMark
from raft_store.simulation.disk import SimulatedDirectory

MARK = SnapshotMark(Index(7), Term(2))
NAME = snapshot_name(MARK)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def written(chunks):
    directory = SimulatedDirectory()
    write_snapshot(directory, MARK, chunks)
    return directory


def check(reader, content):
    for _ in reader.feed(content):
        pass
    reader.check_ended()


def take(incoming, content):
    incoming.write(content)
    return incoming.finish()


def receive(storage, content):
    return take(storage.receive_snapshot(), content)


def read(directory):
    return list(read_chunks(directory.open(NAME), NAME))


@given(CHUNKS)
def test_what_was_written_comes_back(chunks):
    directory = written(chunks)
    assert directory.names() == [NAME]
    assert read_head(directory, NAME).mark == MARK
    assert read(directory) == chunks


@given(CHUNKS, st.data())
def test_any_changed_bit_is_refused(chunks, data):
    directory = written(chunks)
    content = directory.files[NAME].content
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(NotASnapshot, match=NAME):
        read(directory)


@given(CHUNKS, st.data())
def test_any_cut_is_refused(chunks, data):
    directory = written(chunks)
    content = directory.files[NAME].content
    del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(NotASnapshot, match=NAME):
        read(directory)


def test_frames_out_of_order_are_refused():
    framer = Framer()
    head, one, two, end = framer.head(MARK), framer.chunk(b"one"), framer.chunk(b"two"), framer.end()
    for order in itertools.permutations((head, one, two, end)):
        reader = FrameReader("x")
        if order == (head, one, two, end):
            assert list(reader.feed(b"".join(order))) == [b"one", b"two"]
            assert reader.check_ended().mark == MARK
            continue
        with pytest.raises(NotASnapshot):
            check(reader, b"".join(order))


def test_bytes_after_the_end_are_refused():
    directory = written([b"state"])
    directory.files[NAME].content += b"x"
    with pytest.raises(NotASnapshot, match="follows"):
        read(directory)


@given(CHUNKS, st.integers(1, 50))
def test_a_snapshot_travels_in_portions_of_any_size(chunks, portion):
    content = written(chunks).read(NAME)
    storage = Storage(SimulatedDirectory())
    incoming = storage.receive_snapshot()
    for start in range(0, len(content), portion):
        incoming.write(content[start : start + portion])
    received = incoming.finish()
    assert received.mark == MARK
    storage.recover()


@given(CHUNKS, st.data())
def test_what_changed_on_its_way_is_not_taken(chunks, data):
    content = bytearray(written(chunks).read(NAME))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    directory = SimulatedDirectory()
    incoming = Storage(directory).receive_snapshot()
    with pytest.raises(NotASnapshot):
        take(incoming, bytes(content))
    incoming.discard()
    assert directory.names() == []


def test_a_received_snapshot_counts_once_the_core_says_so():
    directory = SimulatedDirectory()
    storage = Storage(directory)
    storage.recover()
    receive(storage, written([b"unwanted"]).read(NAME))
    storage.close()
    storage = Storage(directory)
    assert storage.recover().snapshot is None  # nobody had decided
    wanted = receive(storage, written([b"wanted"]).read(NAME))
    storage.save(Save(HardState(Term(2)), (), wanted))
    assert [name for name in directory.names() if "napshot" in name or "received" in name] == [NAME]
    past = Storage(directory).recover()
    assert (past.snapshot, past.log.base) == (MARK, MARK)
    assert list(storage.read_snapshot(MARK)) == [b"wanted"]


def test_a_newer_snapshot_takes_the_place_of_older_ones():
    directory = SimulatedDirectory()
    storage = Storage(directory)
    storage.recover()
    receive(storage, written([b"late"]).read(NAME))  # index 7, which nobody wanted
    for index in (5, 9):
        growing = storage.begin_snapshot(SnapshotMark(Index(index), Term(2)))
        growing.write(b"state of %d" % index)
        growing.finish()
        storage.let_go(growing.mark)
    newest = snapshot_name(SnapshotMark(Index(9), Term(2)))
    assert [name for name in directory.names() if not name.endswith(".wal")] == [newest]
    assert newest_snapshot(directory) == newest


def test_what_a_crash_left_half_written_is_removed(tmp_path):
    directory = OsDirectory(tmp_path)
    storage = Storage(directory)
    storage.recover()
    GrowingSnapshot(directory, "1.growing").write(b"half")
    storage.close()
    again = Storage(directory)
    again.recover()
    assert [name for name in directory.names() if not name.endswith(".wal")] == []
    again.close()
    directory.close()


def test_a_damaged_snapshot_is_refused_at_the_start():
    directory = written([b"state"])
    directory.files[NAME].content[20] ^= 1  # in the head
    with pytest.raises(NotASnapshot, match=NAME):
        Storage(directory).recover()


def saved(chunks):
    framer, seal = Framer(), Seal()
    frames = [framer.head(MARK), *(framer.chunk(chunk) for chunk in chunks), framer.end()]
    return b"".join(seal.add(frame) for frame in frames) + seal.end()


def source(content):
    directory = SimulatedDirectory()
    directory.replace("saved", content)
    return directory.open("saved")


@given(CHUNKS)
def test_a_saved_snapshot_is_whole_pages_and_a_checksum(chunks):
    content = saved(chunks)
    assert len(content) % 512 == 32
    snapshot = SavedSnapshot(source(content), "saved")
    assert list(snapshot.chunks()) == chunks
    assert snapshot.head is not None
    assert snapshot.head.mark == MARK


@given(CHUNKS, st.data())
def test_any_change_of_a_saved_snapshot_is_refused(chunks, data):
    content = bytearray(saved(chunks))
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(NotASnapshot, match="saved"):
        list(SavedSnapshot(source(bytes(content)), "saved").chunks())


def test_a_file_is_not_closed_under_a_write():
    """Its descriptor may be another file's a moment later."""
    begun, gate, told = threading.Event(), threading.Event(), []

    def append(data):
        begun.set()
        assert gate.wait(10)
        told.append(data)

    file = SimpleNamespace(append=append, sync=lambda: None, close=lambda: told.append("closed"))
    directory = SimpleNamespace(create=lambda name, expected_bytes: file, remove=told.append)
    growing = GrowingSnapshot(directory, "file")
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(growing.write, b"data")
        assert begun.wait(10)
        discarding = threads.submit(growing.discard)
        wait([discarding], timeout=0.05)  # one that does not wait for the write would be done by then
        gate.set()
        writing.result(10)
        discarding.result(10)
    assert told == [b"data", "closed", "file"]
    with pytest.raises(AssertionError):
        growing.write(b"more")
