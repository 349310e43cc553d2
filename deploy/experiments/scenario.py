"""A round of an experiment: let clients work, strike, wait, repair, read everything back."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from deploy.errors import DeployError
from deploy.experiments.history import Mark, Operation, Round, Sample
from deploy.experiments.workload import ApiClients, StoreClients, Tls

WARM_UP_S = 2.0
API_CLIENTS = 6
CATCH_UP_S = 60.0
READ_BACK_S = 60.0


class Striker(Protocol):
    """Breaks one host and mends it; both return when it is done. Called in a thread."""

    def strike(self, host: str) -> None:
        """Break ``host``."""

    def mend(self, host: str) -> None:
        """Undo it."""


class Scenario(msgspec.Struct, frozen=True):
    """One kind of round: whom the fault hits, and which fault."""

    name: str
    what: str  # in words, for the report
    fault: str  # key of the striker
    victim: str  # "leader" or "follower"


SCENARIOS: Mapping[str, Scenario] = {
    each.name: each
    for each in (
        Scenario("leader-kill", "the leading master's host is killed (SIGKILL), and started again", "kill", "leader"),
        Scenario("leader-pause", "the leading master's host is frozen, and resumed", "pause", "leader"),
        Scenario(
            "leader-partition", "the leading master is cut off from all others, and healed", "partition", "leader"
        ),
        Scenario(
            "follower-kill", "a following master's host is killed (SIGKILL), and started again", "kill", "follower"
        ),
    )
}


class Target(msgspec.Struct, frozen=True):
    """Where the clients of an experiment connect."""

    members: dict[str, str]  # store endpoint "ip:port" -> master's name
    api_url: str  # "" leaves the API's clients out


class Timing(msgspec.Struct, frozen=True):
    """How long a round's phases last."""

    after_fault_s: float = 5.0  # the victim stays down, clients go on
    after_mend_s: float = 1.0


class _Watch:
    """What the samples say of the cluster right now."""

    def __init__(self, samples: list[Sample], members: int) -> None:
        self._samples = samples
        self._members = members

    def latest(self) -> dict[str, Sample]:
        """Return each member's newest sample of the last second."""
        since = time.monotonic() - 1.0
        return {each.member: each for each in self._samples[-200:] if each.at_s >= since}

    def leader(self) -> str:
        """Return whom a majority names leader at the highest term, or ""."""
        latest = self.latest().values()
        named = [each.leader for each in latest if each.term == max(other.term for other in latest)]
        best = max(set(named), key=named.count, default="")
        return best if named.count(best) * 2 > self._members else ""

    def caught_up(self, goal: int) -> bool:
        """Return whether every member has applied ``goal`` and all name the same leader."""
        latest = self.latest().values()
        leaders = {each.leader for each in latest}
        return (
            len(latest) == self._members
            and len(leaders) == 1
            and "" not in leaders
            and all(each.applied >= goal for each in latest)
        )

    def highest_commit(self) -> int:
        """Return the highest commit index that any member reported lately."""
        return max((each.commit for each in self.latest().values()), default=0)


async def _until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until ``condition`` holds; return whether it came to."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(0.01)
    return True


async def run_round(
    number: int, scenario: Scenario, target: Target, tls: Tls, striker: Striker, *, timing: Timing
) -> Round:
    """Run one round and return its record; the victim is mended and the clients are gone afterwards, come what may."""
    run = secrets.token_hex(4)
    store = StoreClients(list(target.members), tls, run=run)
    api = ApiClients(target.api_url, tls, run=run) if target.api_url else None
    try:
        return await _round(number, scenario, target, striker, store, api, timing=timing)
    finally:
        if api is not None:
            await api.clean_up()
            await api.close()
        await store.clean_up()
        await store.close()


async def _round(
    number: int,
    scenario: Scenario,
    target: Target,
    striker: Striker,
    store: StoreClients,
    api: ApiClients | None,
    *,
    timing: Timing,
) -> Round:
    operations: list[Operation] = []
    samples: list[Sample] = []
    marks: list[Mark] = []
    writing, sampling = True, True
    watch = _Watch(samples, len(target.members))

    def mark(what: str) -> float:
        marks.append(Mark(time.monotonic(), what))
        return marks[-1].at_s

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.sample(target.members, samples, until=lambda: not sampling))
        try:
            if not await _until(lambda: bool(watch.leader()), CATCH_UP_S):
                raise DeployError(
                    f"no leader was agreed on within {CATCH_UP_S:.0f} s, so round {number} cannot start",
                    hint="look at the masters: trireme status",
                )
            for endpoint in target.members:
                tasks.create_task(store.write(endpoint, operations, until=lambda: not writing))
            for client in range(API_CLIENTS if api is not None else 0):
                tasks.create_task(api.write(client, operations, until=lambda: not writing))  # type: ignore[union-attr]
            await asyncio.sleep(WARM_UP_S)
            leader = watch.leader()
            victim = leader if scenario.victim == "leader" else _follower(target, leader)
            mark(f"{scenario.fault} {victim}")
            with _mended_whatever_happens(striker, victim) as mended:
                await asyncio.to_thread(striker.strike, victim)
                fault = mark("fault complete")
                await asyncio.sleep(timing.after_fault_s)
                recover = mark(f"mend {victim}")
                await asyncio.to_thread(mended)
            goal = watch.highest_commit()
            caught_up = await _until(lambda: watch.caught_up(goal), CATCH_UP_S)
            redundant = mark("all members caught up") if caught_up else None
            await asyncio.sleep(timing.after_mend_s)
            writing = False
        finally:
            writing = sampling = False
    found = await store.read_back(timeout_s=READ_BACK_S)
    if api is not None:
        found |= await api.read_back(timeout_s=READ_BACK_S)
    return Round(
        number, victim, fault, recover, tuple(operations), tuple(samples), tuple(marks), found, redundant
    )  # fmt: skip


def _follower(target: Target, leader: str) -> str:
    return next(name for name in target.members.values() if name != leader)


@contextlib.contextmanager
def _mended_whatever_happens(striker: Striker, victim: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """Yield the function that mends; call it on the way out if nobody has."""
    done = False

    def mend() -> None:
        nonlocal done
        striker.mend(victim)
        done = True

    try:
        yield mend
    finally:
        if not done:
            mend()
