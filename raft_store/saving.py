"""How saves reach the disk: one at a time, beside the event loop.

Nearly every save is one record at the end of a file that is there. The loop writes it, which is a copy into the
kernel's cache. A small one has one caller, who waits for nothing but this sync: the loop does it at once, as long as
the disk is quick. A follower whose clients only read does so with larger ones too, if the disk is quicker still.
Elsewhere those have many callers, and more of them come meanwhile: the kernel syncs by itself (``disk.kernel``).
Whatever makes, renames or removes files takes longer, and goes to a thread. So does everything where the kernel cannot
help, and everything for a while after a write that held the loop up, or a sync that the kernel did not take on.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from raft_store.counts import wal_syncs
from raft_store.disk.directory import sync_failed
from raft_store.disk.kernel import KernelSyncs
from raft_store.disk.storage import Storage
from raft_store.disk.thread import DiskThread
from raft_store.raft.messages import Save

log = logging.getLogger(__name__)

Saved = Callable[[BaseException | None], None]

SMALL_BYTES, SLOW_S = 1024, 0.005  # of entries, and what is slow for them in the loop
CALM_BYTES, CALM_SLOW_S = 64 << 10, 0.001  # and for larger ones of a calm member
RESTS = 20  # for so many times as long as a slow one took, the kernel syncs all of its size
LONG_S = 0.02  # for a write, in the loop
THREAD_S = 10.0  # after that, for so long, all of them have a thread

T = TypeVar("T")


class _InLoop:
    """Whether saves of a size may be synced in the loop: not for a while after a slow one."""

    __slots__ = ("rests_until_s", "slow_s")

    def __init__(self, slow_s: float) -> None:
        self.slow_s = slow_s
        self.rests_until_s = 0.0

    def took(self, began_s: float, ended_s: float) -> None:
        """One has been synced."""
        if ended_s - began_s > self.slow_s:
            self.rests_until_s = ended_s + RESTS * (ended_s - began_s)


class Saver:
    """Saves for one event loop."""

    def __init__(self, storage: Storage, loop: asyncio.AbstractEventLoop) -> None:
        self._storage = storage
        self._loop = loop
        self._thread = DiskThread(loop, name="disk")
        self._kernel: KernelSyncs | None = None
        with contextlib.suppress(OSError):
            self._kernel = KernelSyncs(loop)
        self._threads_until_s = 0.0
        self._small, self._large = _InLoop(SLOW_S), _InLoop(CALM_SLOW_S)

    def begin(self, save: Save, saved: Saved, *, calm: bool = False) -> bool:
        """Make ``save`` durable, one at a time; return True if it is, else ``saved`` is called later, in the loop.

        calm: it follows, and nobody waits for a proposal of its own. Raises DiskError, as ``saved`` may be told.
        """
        storage, kernel, began_s = self._storage, self._kernel, time.perf_counter()
        descriptor = storage.descriptor
        is_short = save.snapshot is None and began_s >= self._threads_until_s
        if kernel is None or descriptor is None or not is_short:
            self._thread.begin(functools.partial(storage.save, save), lambda _, exc: saved(exc))
            return False
        size_bytes = _size_bytes(save, CALM_BYTES if calm else SMALL_BYTES)
        in_loop = self._small if size_bytes <= SMALL_BYTES else self._large
        if (size_bytes <= SMALL_BYTES or (calm and size_bytes <= CALM_BYTES)) and began_s >= in_loop.rests_until_s:
            storage.save(save)
            in_loop.took(began_s, time.perf_counter())
            return True
        self._by_kernel(kernel, descriptor, save, saved, began_s)
        return False

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Run what blocks in the saves' thread, after the saves that went there before."""
        return self._thread.run(call)

    async def close(self) -> None:
        """End; a save under way is finished first. Once more does no harm."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.leave()
            await asyncio.to_thread(kernel.close)
        await asyncio.to_thread(self._thread.close)

    def _by_kernel(self, kernel: KernelSyncs, descriptor: int, save: Save, saved: Saved, began_s: float) -> None:
        def synced(exc: OSError | None) -> None:
            wal_syncs.observe(time.perf_counter() - written_s)
            saved(sync_failed(exc) if exc is not None else None)

        try:
            self._storage.write(save)
            written_s = time.perf_counter()
            if written_s - began_s > LONG_S:
                log.info("a write held up the loop seconds=%.3f", written_s - began_s)
                self._threads_until_s = written_s + THREAD_S
        except Exception as exc:  # noqa: BLE001 - told where all failures are
            self._loop.call_soon(saved, exc)
            return
        try:
            kernel.begin(descriptor, synced)
        except OSError as exc:
            # Linux before 4.18 syncs so for no file system, and a moment without memory is possible anywhere. Nothing
            # was begun, so that another way to sync tells the truth.
            log.info("the kernel does not sync by itself for now reason=%s", exc)
            self._threads_until_s = written_s + THREAD_S
            self._thread.begin(self._storage.sync, lambda _, failure: saved(failure))


def _size_bytes(save: Save, most_bytes: int) -> int:
    """Return how large the entries are; something above ``most_bytes`` if they are larger than that."""
    size_bytes = 0
    for entry in save.entries:
        size_bytes += len(entry.data)
        if size_bytes > most_bytes:
            break
    return size_bytes
