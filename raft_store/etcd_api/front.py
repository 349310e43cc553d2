"""What a front is: the door through which clients reach the services, whichever server stands behind it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from raft_store.engine import MemberStatus
from raft_store.tls import TlsFiles

from .call import CallContext
from .errors import NO_LEADER, RpcError

# For the log and snapshots, whose files must never be refused, and for the other members; as many as in etcd.
SPARE_FILES = 150

CallCounts = Counter[tuple[str, str, str]]  # (service, method, code) -> calls that ended so


class Front(Protocol):
    """Serves the rows of ``services``, besides the standard health and reflection services."""

    async def start(self, listen: str, tls: TlsFiles | None) -> int:
        """Let clients in at "host:port"; return the port. Raises OSError naming the address."""

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether this member can do something for clients."""

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let those under way finish for ``grace_s``, then end them."""


class LeaderGuard:
    """Ends the calls that asked for a leader (metadata ``hasleader``) while there is none."""

    def __init__(self, status: Callable[[], MemberStatus]) -> None:
        self._status = status
        self._streams: set[asyncio.Task[None]] = set()

    def check(self, call: CallContext) -> bool:
        """Return whether the call demands a leader. Raises RpcError if it does and there is none."""
        if not call.wants_leader:
            return False
        if not self._status().leader:
            raise RpcError(*NO_LEADER)
        return True

    async def run(self, call: Awaitable[None]) -> None:
        """Run a stream's handler until it ends or the leader is lost, which raises RpcError."""
        task = asyncio.ensure_future(call)
        self._streams.add(task)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise RpcError(*NO_LEADER) from None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        finally:
            self._streams.discard(task)

    def leader_lost(self) -> None:
        """End every guarded stream."""
        for task in self._streams:
            task.cancel()
