"""The few operations that durability is made of, so that a simulated disk can stand in for a real one."""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Protocol

from raft_store.counts import wal_syncs


class DiskError(Exception):
    """The disk failed or holds what we cannot trust. The member must end: a failed sync is never tried again."""


class DirectoryInUse(DiskError):
    """Another process works in the directory."""


class DiskFull(DiskError):
    """There is no room. The member has to end as with every other failure, but starts again once there is some."""


class Source(Protocol):
    """A file open for reading; what is read stays the same, whatever happens to its name. May raise DiskError."""

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; none at the end."""

    def close(self) -> None:
        """Release the file."""


class File(Protocol):
    """A file open for appending."""

    @property
    def descriptor(self) -> int | None:
        """Return its number, for who asks the kernel to sync it; None if only ``sync`` may."""

    def append(self, data: bytes) -> None:
        """Write ``data`` after what was written before; not durable yet."""

    def sync(self) -> None:
        """Make everything appended durable."""

    def close(self) -> None:
        """Release the file; implies no sync."""


class Directory(Protocol):
    """A flat directory of one program's own. Every method may raise DiskError, from any thread."""

    @property
    def sector_bytes(self) -> int:
        """Return the unit that a crash leaves either written or not: aligned, from the start of a file on."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def read(self, name: str) -> bytes:
        """Return a whole file."""

    def open(self, name: str) -> Source:
        """Open a file for reading."""

    def create(self, name: str, *, expected_bytes: int) -> File:
        """Create an empty file, its name durable; a hint of its size saves work later."""

    def reopen(self, name: str, *, size: int, expected_bytes: int) -> File:
        """Cut an existing file to ``size`` bytes, durably, and open it for appending after them."""

    def replace(self, name: str, data: bytes) -> None:
        """Write a whole file, durably: after a crash there is the old one or the new one, nothing between."""

    def rename(self, old: str, new: str) -> None:
        """Give a synced file another name, durably; a file that has it is replaced."""

    def remove(self, name: str) -> None:
        """Remove a file."""


def _failed(what: str, exc: OSError) -> DiskError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"cannot {what}: {exc.strerror}; make room, then start this member again")
    return DiskError(f"cannot {what}: {exc.strerror}")


def sync_failed(exc: OSError) -> DiskError:
    """Return what it means that a log cannot be synced."""
    return _failed("sync the log", exc)


class _OsSource:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as exc:
            raise _failed(f"read {path}", exc) from exc

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as exc:
            raise _failed(f"read {self._path}", exc) from exc

    def close(self) -> None:
        self._file.close()


def open_file(path: Path) -> Source:
    """Open any file for reading; raises DiskError."""
    return _OsSource(path)


class _OsFile:
    def __init__(self, path: Path, descriptor: int, offset: int) -> None:
        self._path = path
        self.descriptor = descriptor
        self._offset = offset

    def append(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            while rest:
                written = os.pwrite(self.descriptor, rest, self._offset)
                self._offset += written
                if written == len(rest):  # as ever
                    return
                rest = memoryview(rest)[written:]
        except OSError as exc:
            raise _failed(f"write {self._path} at byte {self._offset}", exc) from exc

    def sync(self) -> None:
        try:
            began = time.perf_counter()
            os.fdatasync(self.descriptor)
            wal_syncs.observe(time.perf_counter() - began)
        except OSError as exc:
            raise _failed(f"sync {self._path}", exc) from exc

    def close(self) -> None:
        os.close(self.descriptor)


class OsDirectory:
    """A real directory, locked for this process for as long as the object is open."""

    sector_bytes = 512  # of every disk since floppies; larger ones are multiples

    def __init__(self, path: Path) -> None:
        """Create the directory if need be and lock it; raises DirectoryInUse, DiskError."""
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise _failed(f"open the data directory {path}", exc) from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._descriptor)
            raise DirectoryInUse(f"the data directory {path} is in use by another process") from exc

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(entry.name for entry in os.scandir(self._path) if entry.is_file())

    def read(self, name: str) -> bytes:
        """Return a whole file."""
        try:
            return (self._path / name).read_bytes()
        except OSError as exc:
            raise _failed(f"read {self._path / name}", exc) from exc

    def open(self, name: str) -> Source:
        """Open a file for reading."""
        return _OsSource(self._path / name)

    def create(self, name: str, *, expected_bytes: int) -> File:
        """Create an empty file, its name durable."""
        path = self._path / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            _reserve(descriptor, expected_bytes)
            os.fsync(descriptor)
            os.fsync(self._descriptor)
        except OSError as exc:
            raise _failed(f"create {path}", exc) from exc
        return _OsFile(path, descriptor, 0)

    def reopen(self, name: str, *, size: int, expected_bytes: int) -> File:
        """Cut a file to ``size`` bytes and open it for appending."""
        path = self._path / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            os.ftruncate(descriptor, size)
            _reserve(descriptor, expected_bytes)
            os.fsync(descriptor)
        except OSError as exc:
            raise _failed(f"open {path}", exc) from exc
        return _OsFile(path, descriptor, size)

    def replace(self, name: str, data: bytes) -> None:
        """Write a whole file beside the old one, sync it, and let it take the old one's place."""
        path, fresh = self._path / name, self._path / f"{name}.tmp"
        try:
            with fresh.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
            os.fsync(self._descriptor)
        except OSError as exc:
            raise _failed(f"write {path}", exc) from exc

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, durably."""
        try:
            (self._path / old).rename(self._path / new)
            os.fsync(self._descriptor)
        except OSError as exc:
            raise _failed(f"rename {self._path / old} to {new}", exc) from exc

    def remove(self, name: str) -> None:
        """Remove a file; should its name come back after a crash, it is removed again."""
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as exc:
            raise _failed(f"remove {self._path / name}", exc) from exc


def _reserve(descriptor: int, size: int) -> None:
    """Let the file system set blocks aside: a sync then need not change the file's size. Not every one can."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
