"""What a replica wants done while its machine is being restored from a leader's snapshot.

The replica goes on following meanwhile, and what is to be applied waits in its log (``core.holds_back``). Only what it
cannot keep there stands in line here: further restores, and the answers that lie behind a restore.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from raft_store.raft.core import Core
from raft_store.raft.proposals import Proposal
from raft_store.raft.replica import Work
from raft_store.snapshots import Snapshots


class Restores:
    """The line of one replica, which is nearly always empty.

    apply: does the rest of what stood in line, once its restore is over.
    caught_up: is told when the line is empty again, and the replica hands out what came meanwhile.
    fail: is told why the member cannot go on.
    """

    def __init__(
        self,
        core: Core,
        snapshots: Snapshots,
        *,
        apply: Callable[[Work], None],
        caught_up: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._core = core
        self._snapshots = snapshots
        self._apply = apply
        self._caught_up = caught_up
        self._fail = fail
        # Few, for meanwhile the replica hands out no entries.
        self._line: deque[tuple[Work, asyncio.Future[Iterator[bytes]] | None]] = deque()
        self.task: asyncio.Task[None] | None = None  # while it works on the line; all other work has to stand there

    def put_in_line(self, work: Work) -> None:
        """Begin the restore that ``work`` wants, or let it wait for those before it."""
        if work.restore is not None:
            self._line.append((work, self._snapshots.open(work.restore.mark)))
            self._core.holds_back = True
            if self.task is None:
                self.task = asyncio.create_task(self._work_off())
        elif work.lost or work.changes:
            self._line.append((work, None))

    def halt(self) -> list[Proposal]:
        """Restore nothing any more; return the proposals in line, of which nobody will hear from here."""
        if self.task is not None:
            self.task.cancel()
        line, self._line = self._line, deque()
        return [proposal for work, _ in line for proposal in work.lost]

    async def close(self) -> None:
        """End, after ``halt``."""
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)

    async def _work_off(self) -> None:
        try:
            while self._line:
                work, opened = self._line[0]  # it stays in line: ``halt`` answers for it too
                if work.restore is not None and opened is not None:
                    await self._snapshots.restore(work.restore.mark, await opened)
                self._line.popleft()
                self._apply(work)
                await asyncio.sleep(0)
        except Exception as exc:  # noqa: BLE001 - our own error or the machine's: this state must not reach the disk
            self._fail(exc)
        finally:
            self.task = None
            self._core.holds_back = False
            self._caught_up()
