"""How this member, while it leads, hands over: to one that is named, or to one of the best before it stops."""

import asyncio
import contextlib

from raft_store.driver import Driver
from raft_store.engine import EngineError, MemberId, ProposalTimedOut
from raft_store.raft.core import Core, Role
from raft_store.raft.messages import NOBODY

STEP_ASIDE_S = 0.5  # a leader that stops spends at most so long on handing over to one ...
HEIRS = 2  # ... of the best followers


class HandOver:
    """One member's way to give leadership away; the core tries, and this waits for what comes of it."""

    def __init__(self, core: Core, driver: Driver, *, tick_s: float) -> None:
        self._core = core
        self._driver = driver
        self._look_s = tick_s / 4  # between two looks at who leads

    async def give_to(self, to: MemberId, *, timeout_s: float) -> None:
        """See ``Engine.transfer_leadership``."""
        core = self._core
        self._driver.check_running()
        if core.leader == to:
            return
        if core.leader != core.member:
            raise EngineError(f"member {core.member} does not lead; ask member {core.leader}")
        if not core.transfer(to):
            raise EngineError(f"member {to} is not in this group")
        self._driver.wake()
        now = asyncio.get_running_loop().time
        deadline = now() + timeout_s
        while core.leader != to:
            self._driver.check_running()
            given_up = core.leader == core.member and core.transferee != to
            if given_up or now() > deadline:
                raise ProposalTimedOut(f"member {to} did not take over")
            if core.leader not in (NOBODY, core.member):
                raise EngineError(f"member {core.leader} took over, not {to}")
            await asyncio.sleep(self._look_s)

    async def step_aside(self) -> None:
        """See ``Engine.step_aside``."""
        core = self._core
        if core.role is not Role.LEADER:
            return
        followers = {peer: view for peer, view in core.progress().items() if peer in core.configuration.voters}
        best = sorted(followers, key=lambda peer: (followers[peer].silent_ticks, -followers[peer].matched))
        for heir in best[:HEIRS]:
            with contextlib.suppress(EngineError):
                await self.give_to(heir, timeout_s=STEP_ASIDE_S)
                return
