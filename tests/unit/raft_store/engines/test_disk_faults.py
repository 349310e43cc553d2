"""A member whose disk fails ends, is told apart from one that works, and has lost nothing when it starts again."""

import asyncio
import errno
import os

import pytest

from raft_store import recovery
from raft_store.disk.directory import DiskError, DiskFull, OsDirectory
from raft_store.engine import EngineError, MemberId, Stopped
from raft_store.engines import native
from raft_store.engines.native import NativeConfig, NativeEngine
from tests.ports import free_ports
from tests.unit.raft_store.engines.test_native import Values

OPERATIONS = {
    # what fails -> (method, of which files)
    "appending to the log": ("append", ".wal"),
    "syncing the log": ("sync", ".wal"),
    "creating a segment": ("create", ".wal"),
    "creating a snapshot": ("create", ".growing"),
    "writing a snapshot": ("append", ".growing"),
    "syncing a snapshot": ("sync", ".growing"),
    "renaming a snapshot": ("rename", ".growing"),
    "removing an old segment": ("remove", ".wal"),
}
LOG = ("appending to the log", "syncing the log", "creating a segment")


class Fault:
    """Lets one kind of operation fail from its ``after``th use on, and counts what is tried afterwards."""

    def __init__(self, method, suffix, *, after=2, error=errno.EIO):
        self.method, self.suffix, self.left, self.error = method, suffix, after, error
        self.struck = False
        self.tried_after = 0  # on the log, once something failed

    def check(self, method, name):
        if self.struck:
            self.tried_after += name.endswith(".wal")
        if method == self.method and name.endswith(self.suffix):
            self.left -= 1
            if self.left <= 0:
                self.struck = True
                kind = DiskFull if self.error == errno.ENOSPC else DiskError
                raise kind(f"cannot {method} {name}: {os.strerror(self.error)}")


class FaultyFile:
    descriptor = None

    def __init__(self, file, name, fault):
        self._file, self._name, self._fault = file, name, fault

    def append(self, data):
        self._fault.check("append", self._name)
        self._file.append(data)

    def sync(self):
        self._fault.check("sync", self._name)
        self._file.sync()

    def close(self):
        self._file.close()


class FaultyDirectory(OsDirectory):
    fault: Fault

    def create(self, name, *, expected_bytes):
        self.fault.check("create", name)
        return FaultyFile(super().create(name, expected_bytes=expected_bytes), name, self.fault)

    def reopen(self, name, *, size, expected_bytes):
        return FaultyFile(super().reopen(name, size=size, expected_bytes=expected_bytes), name, self.fault)

    def rename(self, old, new):
        self.fault.check("rename", old)
        super().rename(old, new)

    def remove(self, name):
        self.fault.check("remove", name)
        super().remove(name)


class Life:
    """A group of one, whose segments are so small that every operation comes by."""

    def __init__(self, folder, monkeypatch):
        self._patch = monkeypatch
        address = f"127.0.0.1:{free_ports(1)[0]}"
        self._config = NativeConfig(
            member=MemberId(1),
            members={MemberId(1): address},
            data_dir=folder,
            listen=address,
            snapshot_entries=15,
        )
        self.acknowledged = []
        self.fatal = []
        storage = native.Storage
        monkeypatch.setattr(native, "Storage", lambda directory: storage(directory, segment_bytes=1000))

    async def until_it_fails(self, fault):
        self._patch.setattr(recovery, "OsDirectory", type("Faulty", (FaultyDirectory,), {"fault": fault}))
        engine = NativeEngine(self._config, on_fatal=self.fatal.append)
        await engine.start(Values())
        try:
            with pytest.raises(EngineError) as refused:
                await self._write(engine)
            with pytest.raises(Stopped):
                await engine.propose(b"later", timeout_s=20)
            return refused.value
        finally:
            await engine.stop()

    async def _write(self, engine):
        for number in range(10_000):
            value = b"%d" % number
            await engine.propose(value, timeout_s=20)
            self.acknowledged.append(value)

    async def values_after_a_restart(self):
        self._patch.setattr(recovery, "OsDirectory", OsDirectory)
        machine = Values()
        engine = NativeEngine(self._config, on_fatal=self.fatal.append)
        await engine.start(machine)
        try:
            await engine.propose(b"once more", timeout_s=20)
        finally:
            await engine.stop()
        return machine.values


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["broken", "full"])
@pytest.mark.parametrize("what", OPERATIONS)
async def test_a_failed_operation_ends_the_member_once_and_loses_nothing(what, error, tmp_path, monkeypatch):
    life = Life(tmp_path / "data", monkeypatch)
    fault = Fault(*OPERATIONS[what], error=error)
    async with asyncio.timeout(60):
        refused = await life.until_it_fails(fault)
    assert fault.struck
    assert isinstance(refused, Stopped)
    (reason,) = life.fatal
    assert isinstance(reason, DiskFull if error == errno.ENOSPC else DiskError)
    assert os.strerror(error) in str(reason)
    # A sync that failed is never tried again, nor is anything written after it: nobody knows what the disk holds.
    if what in LOG:
        assert fault.tried_after == 0
    values = await life.values_after_a_restart()
    assert values[: len(life.acknowledged)] == life.acknowledged
    # What was in flight may be there; nothing else may.
    assert values[len(life.acknowledged) :] in ([b"once more"], [b"%d" % len(life.acknowledged), b"once more"])


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("pwrite", "append"),
        ("fdatasync", "sync"),
        ("fsync", "create"),
        ("fsync", "rename"),
        ("open", "create"),
        ("posix_fallocate", "create"),
    ],
)
def test_every_error_of_the_system_is_told_with_its_file(method, call, tmp_path, monkeypatch):
    """The directory's sync included: a file whose name is not durable is no file."""
    directory = OsDirectory(tmp_path)
    file = directory.create("one.wal", expected_bytes=0)
    calls = {
        "append": lambda: file.append(b"x"),
        "sync": file.sync,
        "create": lambda: directory.create("two.wal", expected_bytes=100),
        "rename": lambda: directory.rename("one.wal", "two.wal"),
    }

    def fails(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, method, fails)
    with pytest.raises(DiskFull, match=rf"{tmp_path}.*(one|two)\.wal.*No space left on device"):
        calls[call]()
    monkeypatch.undo()
    file.close()
    directory.close()
