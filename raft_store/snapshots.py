"""A member's snapshots: its own are taken, others' come and go, and from any of them the machine is restored.

They hold nothing up. Taking one draws the machine's chunks a few at a time, and threads of their own write and read the
files beside the log's.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from raft_store.disk.directory import DiskError
from raft_store.disk.snapshot import READ_BYTES, NotASnapshot
from raft_store.disk.storage import Storage
from raft_store.engine import Index, MemberId, StateMachine
from raft_store.pacing import paced
from raft_store.raft.core import Core
from raft_store.raft.messages import Snapshot, SnapshotMark
from raft_store.saving import Saver

log = logging.getLogger(__name__)

LOG_BYTES = 128 << 20  # a log as large as this is long enough to be shortened, whatever few entries it has ...
KEEP_BYTES = 16 << 20  # ... and no more of it stays in memory behind a snapshot
LOG_SHARE = 2  # a snapshot is due when the log is as large as this part of the last one ...
MOST_PERIODS = 8  # ... or has so many times the entries that make the next one due
THREADS = 3  # one for our own, the others for what comes and goes

_T = TypeVar("_T")


class LogLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a log may become."""

    period_entries: int  # applied ones between two snapshots, if the state is not much larger than they are
    keep_entries: int  # left in memory behind a snapshot, for followers that lag a little


class Snapshots:
    """Those of one member, from its start until ``close``; ``fail`` is told why it cannot go on."""

    def __init__(
        self,
        limits: LogLimits,
        *,
        core: Core,
        storage: Storage,
        saver: Saver,
        machine: StateMachine,
        applied: Index,
        fail: Callable[[BaseException], None],
    ) -> None:
        """applied: by the machine so far; what is before it needs no snapshot any more."""
        self._limits = limits
        self._core = core
        self._storage = storage
        self._saver = saver
        self._machine = machine
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="snapshots")
        self._taking: asyncio.Task[None] | None = None
        self._index = applied  # of the newest that was taken or restored
        self._size_bytes = 0  # of our last one

    def halt(self) -> None:
        """Take none any more."""
        if self._taking is not None:
            self._taking.cancel()

    async def close(self) -> None:
        """End, after ``halt``; what the threads are at is finished first."""
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    # -- our own -----------------------------------------------------------------------------------------------------

    def take_if_due(self, applied: Index) -> None:
        """Shorten the log: what a snapshot holds need not be replayed nor kept.

        applied: by the machine, which is not being restored.
        """
        entries, enough = applied - self._index, self._limits.period_entries
        if self._taking or not entries:
            return
        log_bytes = self._storage.log_bytes
        if entries < enough and log_bytes < LOG_BYTES:
            return
        # A large state is not written anew for every little log, as long as that stays quick to replay.
        if log_bytes < self._size_bytes // LOG_SHARE and entries < MOST_PERIODS * enough:
            return
        if (mark := self._core.log.mark(applied)) is None:
            return
        # The state is fixed here, in the turn in which ``mark`` is what the machine has applied.
        chunks = self._machine.snapshot()
        self._taking = asyncio.create_task(self._take(mark, chunks))

    async def _take(self, mark: SnapshotMark, chunks: Iterator[bytes]) -> None:
        began = self._loop.time()
        try:
            growing = await self._beside(self._storage.begin_snapshot, mark)
            async for chunk in paced(chunks):
                if chunk:
                    await self._beside(growing.write, chunk)
            await self._beside(growing.finish)
            await self._saver.run(functools.partial(self._storage.let_go, mark))
        except Exception as exc:  # noqa: BLE001 - a disk that cannot take a snapshot cannot be trusted with the log
            self._fail(exc)
            return
        finally:
            self._taking = None
        self._index = Index(max(self._index, mark.index))
        self._size_bytes = growing.size_bytes
        self._core.compact(mark, keep=self._limits.keep_entries, keep_bytes=KEEP_BYTES)
        log.info(
            "took a snapshot member=%d index=%d bytes=%d seconds=%.1f",
            self._core.member,
            mark.index,
            growing.size_bytes,
            self._loop.time() - began,
        )

    # -- those that come and go --------------------------------------------------------------------------------------

    async def send(self) -> AsyncIterator[bytes]:
        """Yield the bytes of the newest snapshot on disk, for another member. Raises DiskError."""
        source = await self._beside(self._storage.open_snapshot)
        try:
            while data := await self._beside(source.read, READ_BYTES):
                yield data
        finally:
            source.close()

    def not_sent(self, to: MemberId) -> None:
        """One that the core wanted sent did not arrive."""
        self._core.snapshot_failed(to)

    async def receive(self, data: AsyncIterator[bytes]) -> Snapshot:
        """Take in another member's snapshot, for ``InstallSnapshot``; the state changes when the core wants it to.

        Raises NotASnapshot if that is not what came, DiskError if we cannot go on.
        """
        incoming = await self._beside(self._storage.receive_snapshot)
        try:
            async for portion in data:
                await self._beside(incoming.write, portion)
            return await self._beside(incoming.finish)
        except DiskError as exc:
            if not isinstance(exc, NotASnapshot):
                self._fail(exc)
                raise
            await self._beside(incoming.discard)
            raise
        except BaseException:
            # The sender hung up, or we are stopping; the loop does not wait for a write that is still under way.
            self._threads.submit(incoming.discard)
            raise

    # -- restoring ---------------------------------------------------------------------------------------------------

    def open(self, mark: SnapshotMark) -> "asyncio.Future[Iterator[bytes]]":
        """Open the snapshot at ``mark`` for ``restore``.

        In line with the saves: a later one may bring a newer snapshot, and remove this one's file.
        """
        return self._saver.run(functools.partial(self._storage.read_snapshot, mark))

    async def restore(self, mark: SnapshotMark, chunks: Iterator[bytes]) -> None:
        """Replace the machine's state by the one at ``mark``. Raises NotASnapshot, DiskError."""
        restoration = self._machine.begin_restore()
        while (chunk := await self._beside(next, chunks, None)) is not None:
            restoration.feed(chunk)
        restoration.finish()
        self._index = mark.index
        log.info("restored a snapshot member=%d index=%d", self._core.member, mark.index)

    async def _beside(self, call: Callable[..., _T], *arguments: object) -> _T:
        """Return what ``call`` returns, from a thread that may wait for the disk without holding up the log."""
        return await self._loop.run_in_executor(self._threads, call, *arguments)
