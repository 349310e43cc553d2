"""A disk that obeys orders, for robustness runs with real processes: slow, failing, and forgetful as a power cut.

It stands at the ``Directory`` seam, so it needs neither root nor a kernel feature, and fails what a member really waits
for. What is written stays in this process until it is synced: SIGKILL then loses what a power cut would lose, although
the kernel goes on. ``[testing] disk_orders`` names the file with the orders; without it none of this is loaded.
"""

import select
from pathlib import Path

import msgspec

from raft_store.disk.directory import DiskError, File, OsDirectory


class Orders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says, as JSON; no file, no orders."""

    sync_ms: float = 0.0  # every sync takes so much longer
    fail_syncs: bool = False


class FaultyDirectory(OsDirectory):
    """A real directory whose logs sync as ordered."""

    def __init__(self, path: Path, orders: Path) -> None:
        super().__init__(path)
        self._orders = orders

    def create(self, name: str, *, expected_bytes: int) -> File:
        """See ``Directory``."""
        return _FaultyFile(super().create(name, expected_bytes=expected_bytes), self._orders)

    def reopen(self, name: str, *, size: int, expected_bytes: int) -> File:
        """See ``Directory``."""
        return _FaultyFile(super().reopen(name, size=size, expected_bytes=expected_bytes), self._orders)


class _FaultyFile:
    descriptor = None  # or the kernel would sync behind our back

    def __init__(self, file: File, orders: Path) -> None:
        self._file = file
        self._orders = orders
        self._unsynced = bytearray()

    def append(self, data: bytes) -> None:
        self._unsynced += data

    def sync(self) -> None:
        orders = _read(self._orders)
        if orders.sync_ms:
            # Not time.sleep: it waits for a moment of the monotonic clock, which libfaketime takes for the wall clock.
            select.select([], [], [], orders.sync_ms / 1000)
        if orders.fail_syncs:
            raise DiskError("cannot sync: the disk was ordered to fail")
        self._file.append(bytes(self._unsynced))
        self._unsynced.clear()
        self._file.sync()

    def close(self) -> None:
        self._file.append(bytes(self._unsynced))
        self._file.close()


def _read(orders: Path) -> Orders:
    try:
        return msgspec.json.decode(orders.read_bytes(), type=Orders)
    except FileNotFoundError:
        return Orders()
