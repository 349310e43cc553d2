"""A change of the group, from whichever member is asked to the one that leads."""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from raft_store.driver import Driver
from raft_store.engine import Change, ChangeKind, ChangeRefused, Index, MemberId, NoLeader, Refusal
from raft_store.peers import Peers
from raft_store.raft.core import Core
from raft_store.raft.membership import Configuration, check_started

log = logging.getLogger(__name__)

RETRY_S = 0.05
_PASSING = (Refusal.NOT_LEADER, Refusal.CHANGE_UNDER_WAY)


class Regrouping:
    """One member's view of its group, and its way to change it (a ``peer_service.Group``)."""

    def __init__(
        self,
        core: Core,
        driver: Driver,
        *,
        started: Callable[[], Collection[MemberId]],
        on_removed: Callable[[str], None],
    ) -> None:
        self._core = core
        self._driver = driver
        self._peers: Peers | None = None
        self.started = started
        self.on_removed = on_removed

    def use(self, peers: Peers) -> None:
        """Reach other members by ``peers``."""
        self._peers = peers

    def configuration(self) -> Configuration:
        """See ``peer_service.Group``."""
        return self._core.configuration

    def has_removed(self, member: MemberId) -> bool:
        """See ``peer_service.Group``."""
        return member in self._core.gone_for_good

    async def change(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        """See ``peer_service.Group``."""
        index = await self._driver.change_members(changes, timeout_s=timeout_s, joint=joint, started=started)
        log.info("changed the group changes=%s", [f"{change.kind.name} {change.member:x}" for change in changes])
        return index

    async def change_anywhere(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> None:
        """See ``Engine.change_members``; tries again, while time is left, what was surely not made."""
        if started is not None:
            # A leader would say so, too; but where this is refused there may be none.
            impatient = [change for change in changes if change.kind is not ChangeKind.PROMOTE]
            check_started(self._core.configuration, impatient, frozenset(started))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                index = await self._change_once(changes, timeout_s=deadline - loop.time(), joint=joint, started=started)
                break
            except ChangeRefused as exc:
                if exc.refusal not in _PASSING:
                    raise
                if loop.time() + RETRY_S >= deadline:
                    if exc.refusal is Refusal.NOT_LEADER:
                        raise NoLeader("no leader was known within the time allowed; nothing was changed") from exc
                    raise
            await asyncio.sleep(RETRY_S)
        # Whoever asked us will look at us. A read barrier would wait for a member that may not run yet.
        while not self._knows_of(index) and loop.time() < deadline:  # noqa: ASYNC110 - rare and short
            await asyncio.sleep(RETRY_S / 10)

    def _knows_of(self, index: Index) -> bool:
        """Return whether we know of a change that is over, and stands in the log from ``index`` on.

        One of several voters is two entries: those who go belong to the group up to the second.
        """
        return self._core.log.committed >= index and not self._core.configuration.outgoing

    async def _change_once(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool, started: Collection[MemberId] | None
    ) -> Index:
        leader = self._core.leader
        if leader == self._core.member:
            return await self.change(changes, timeout_s=timeout_s, joint=joint, started=started)
        if self._peers is None or not leader:
            raise ChangeRefused(Refusal.NOT_LEADER)
        return await self._peers.reconfigure(leader, changes, timeout_s=timeout_s, joint=joint, started=started)
