"""Which way saves take to the disk, and what comes back."""

import asyncio
import ctypes
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from raft_store import saving
from raft_store.disk import kernel
from raft_store.disk.directory import DiskError, OsDirectory
from raft_store.disk.kernel import KernelSyncs
from raft_store.disk.storage import Storage
from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.messages import HardState, Save
from raft_store.saving import Saver

STATE = HardState(Term(1), MemberId(1))


def entries(first, count=1, size=10):
    return [Entry(Index(first + i), Term(1), bytes([i]) * size) for i in range(count)]


class Kernel:
    """A kernel that does as it is told, and remembers by whom it was asked."""

    def __init__(self, loop):
        self.loop = loop
        self.asked = []
        self.answer = None
        self.refuses = 0
        self.refused = 0

    def begin(self, descriptor, done):
        if self.refuses:
            self.refused += 1
            raise OSError(self.refuses, os.strerror(self.refuses))
        self.asked.append(descriptor)
        self.loop.call_soon(done, self.answer)

    def leave(self):
        pass

    def close(self):
        pass


@pytest.fixture
def directory(tmp_path):
    directory = OsDirectory(tmp_path)
    yield directory
    directory.close()


@pytest.fixture
def storage(directory):
    storage = Storage(directory, segment_bytes=1000)
    storage.recover()
    yield storage
    storage.close()


@pytest.fixture
async def saver(storage, monkeypatch):
    monkeypatch.setattr(saving, "KernelSyncs", Kernel)
    monkeypatch.setattr(
        saving, "time", SimpleNamespace(perf_counter=lambda: 0.0)
    )  # no write takes long, on a busy machine either
    monkeypatch.setattr(saving, "SMALL_BYTES", -1)
    saver = Saver(storage, asyncio.get_running_loop())
    yield saver
    await saver.close()


async def save(saver, save):
    told = asyncio.get_running_loop().create_future()
    assert saver.begin(save, told.set_result) is False
    assert not told.done()
    async with asyncio.timeout(10):
        return await told


async def test_a_record_at_the_end_of_a_file_is_synced_by_the_kernel(saver, storage):
    assert await save(saver, Save(STATE, entries(1), None)) is None
    assert saver._kernel.asked == [storage.descriptor]


async def test_a_small_save_is_durable_at_once_while_the_disk_is_quick(saver, directory, storage, monkeypatch):
    now_s, took_s = [100.0], [0.0]
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    monkeypatch.setattr(saving, "SMALL_BYTES", 1024)
    sync = storage.sync

    def timed():
        sync()
        now_s[0] += took_s[0]

    monkeypatch.setattr(storage, "sync", timed)
    told = []
    assert saver.begin(Save(STATE, entries(1), None), told.append) is True
    took_s[0] = 0.1
    assert saver.begin(Save(STATE, entries(2), None), told.append) is True
    assert saver._kernel.asked == []
    assert await save(saver, Save(STATE, entries(3), None)) is None  # the disk was slow
    now_s[0] += 1.9  # the loop is held up for a twentieth of the time at most
    assert await save(saver, Save(STATE, entries(4), None)) is None
    now_s[0] += 0.2
    assert saver.begin(Save(STATE, entries(5), None), told.append) is True
    assert (len(saver._kernel.asked), told) == (2, [])
    storage.close()
    assert Storage(directory).recover().log.last_index == 5


async def test_a_large_save_does_not_hold_the_loop(saver, monkeypatch):
    large = [Entry(Index(i), Term(1), bytes(400)) for i in (1, 2, 3)]
    monkeypatch.setattr(saving, "SMALL_BYTES", 1024)
    assert await save(saver, Save(STATE, large, None)) is None
    assert len(saver._kernel.asked) == 1


async def test_where_nobody_proposes_larger_ones_are_too_while_it_is_quicker_still(saver, storage, monkeypatch):
    now_s, took_s = [100.0], [0.0009]
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    sync = storage.sync

    def timed():
        sync()
        now_s[0] += took_s[0]

    monkeypatch.setattr(storage, "sync", timed)
    assert saver.begin(Save(STATE, entries(1), None), pytest.fail, calm=True) is True
    assert await save(saver, Save(STATE, entries(2), None)) is None  # somebody proposes
    took_s[0] = 0.0011
    assert saver.begin(Save(STATE, entries(3), None), pytest.fail, calm=True) is True
    told = asyncio.get_running_loop().create_future()
    assert saver.begin(Save(STATE, entries(4), None), told.set_result, calm=True) is False  # that was slow
    assert await told is None
    monkeypatch.setattr(saving, "SMALL_BYTES", 10)
    assert saver.begin(Save(STATE, entries(5), None), pytest.fail, calm=True) is True  # but not for a small one
    monkeypatch.setattr(saving, "SMALL_BYTES", -1)
    now_s[0] += 0.03
    assert saver.begin(Save(STATE, entries(6), None), pytest.fail, calm=True) is True
    monkeypatch.setattr(saving, "CALM_BYTES", 9)
    told = asyncio.get_running_loop().create_future()
    assert saver.begin(Save(STATE, entries(7), None), told.set_result, calm=True) is False
    assert await told is None
    assert len(saver._kernel.asked) == 3


async def test_a_small_save_that_fails_raises(saver, storage, monkeypatch):
    def broken():
        raise DiskError("cannot sync")

    monkeypatch.setattr(saving, "SMALL_BYTES", 1024)
    monkeypatch.setattr(storage, "sync", broken)
    with pytest.raises(DiskError):
        saver.begin(Save(STATE, entries(1), None), lambda _: None)


async def test_a_new_file_is_made_in_the_thread(saver, storage):
    first = storage.descriptor
    assert await save(saver, Save(STATE, entries(1, 20, 100), None)) is None
    assert storage.descriptor is None  # the next record begins a file
    assert await save(saver, Save(STATE, entries(21), None)) is None
    assert saver._kernel.asked == [first]
    assert storage.descriptor is not None
    assert await save(saver, Save(STATE, entries(22), None)) is None
    assert len(saver._kernel.asked) == 2


async def test_after_a_write_that_took_long_the_thread_takes_over_for_a_while(saver, storage, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    write = storage.write

    def slow(save):
        write(save)
        now_s[0] += 1.0

    monkeypatch.setattr(storage, "write", slow)
    for index in range(1, 4):
        assert await save(saver, Save(STATE, entries(index), None)) is None
    assert len(saver._kernel.asked) == 1
    now_s[0] += 60.0
    assert await save(saver, Save(STATE, entries(4), None)) is None
    assert len(saver._kernel.asked) == 2


@pytest.mark.parametrize("code", [11, 22])
async def test_what_the_kernel_does_not_take_on_is_synced_in_the_thread(saver, storage, monkeypatch, code):
    """Goal: a member runs on kernels that set up such syncs and refuse each (before 4.18), and outlives a bad moment."""
    now_s, synced = [100.0], []
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    sync = storage.sync
    monkeypatch.setattr(storage, "sync", lambda: synced.append(sync()))
    saver._kernel.refuses = code
    assert await save(saver, Save(STATE, entries(1), None)) is None
    assert await save(saver, Save(STATE, entries(2), None)) is None
    assert (len(synced), saver._kernel.refused) == (2, 1)
    saver._kernel.refuses = 0
    now_s[0] += 60.0
    assert await save(saver, Save(STATE, entries(3), None)) is None
    assert (len(synced), len(saver._kernel.asked)) == (2, 1)


async def test_what_the_thread_cannot_sync_instead_is_told(saver, storage, monkeypatch):
    def broken():
        raise DiskError("cannot sync")

    monkeypatch.setattr(storage, "sync", broken)
    saver._kernel.refuses = 22
    assert isinstance(await save(saver, Save(STATE, entries(1), None)), DiskError)


@pytest.mark.parametrize("case", ["sync fails", "write fails"])
async def test_what_fails_is_told(saver, storage, monkeypatch, case):
    def broken(save):
        raise DiskError("cannot write")

    if case == "sync fails":
        saver._kernel.answer = OSError(5, "Input/output error")
    else:
        monkeypatch.setattr(storage, "write", broken)
    assert isinstance(await save(saver, Save(STATE, entries(1), None)), OSError | DiskError)


async def test_without_the_kernels_help_all_saves_have_the_thread(directory, storage, monkeypatch):
    def refuse(loop):
        raise OSError("no asynchronous I/O is known here")

    monkeypatch.setattr(saving, "KernelSyncs", refuse)
    saver = Saver(storage, asyncio.get_running_loop())
    assert await save(saver, Save(STATE, entries(1), None)) is None
    await saver.close()
    storage.close()
    assert Storage(directory).recover().log.last_index == 1


async def test_a_program_of_32_bits_asks_nothing_of_a_kernel_of_64(monkeypatch):
    """Its calls have other numbers: ours would be other calls."""
    monkeypatch.setattr(kernel.sys, "maxsize", (1 << 31) - 1)
    with pytest.raises(OSError, match="no asynchronous"):
        KernelSyncs(asyncio.get_running_loop())


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_refusal_of_either_half_leaves_nothing_behind(monkeypatch):
    """The process may have few descriptors, the machine few contexts."""
    asked, before = [], descriptors()

    def refuse(*arguments):
        raise OSError("too many of them")

    def call(number, *arguments):
        asked.append(number.value)
        ctypes.set_errno(errno.EAGAIN)
        return -1

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(kernel.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syscall=call))
    with pytest.raises(OSError, match="temporarily"):
        KernelSyncs(loop)
    assert len(asked) == 1
    assert descriptors() == before
    monkeypatch.setattr(kernel.os, "eventfd", refuse)
    with pytest.raises(OSError, match="too many"):
        KernelSyncs(loop)
    assert len(asked) == 1  # no context was made


def _has_kernel_syncs():
    loop = asyncio.new_event_loop()
    try:
        syncs = KernelSyncs(loop)
    except OSError:
        return False
    else:
        syncs.leave()
        syncs.close()
        return True
    finally:
        loop.close()


@pytest.mark.skipif(not _has_kernel_syncs(), reason="this kernel, or its guard, offers no asynchronous I/O")
async def test_the_real_kernel_syncs_a_file_and_tells_when_it_cannot(tmp_path):
    syncs = KernelSyncs(asyncio.get_running_loop())
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    inside, outside = os.pipe()
    heard = []
    for descriptor in (file, file, outside):
        told = asyncio.get_running_loop().create_future()
        os.pwrite(file, b"x", 0)
        try:
            syncs.begin(descriptor, told.set_result)
        except OSError as exc:  # of a pipe the kernel says so at once
            told.set_result(exc)
        async with asyncio.timeout(10):
            heard.append(await told)
    assert heard[:2] == [None, None]
    assert isinstance(heard[2], OSError)
    heard.clear()
    lost, get_events = asyncio.get_running_loop().create_future(), syncs._get_events
    syncs._get_events = ctypes.c_long(1 << 20)  # no such call
    syncs.begin(file, lost.set_result)
    async with asyncio.timeout(10):
        assert isinstance(await lost, OSError)  # told, although nobody knows how it ended
    syncs._get_events = get_events
    syncs.begin(file, lambda _: heard.append("too late"))
    syncs.leave()
    await asyncio.to_thread(syncs.close)
    assert not heard
    for descriptor in (file, inside, outside):
        os.close(descriptor)
