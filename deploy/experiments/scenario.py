"""A round of an experiment: let clients work, strike, wait, repair, read everything back."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from deploy.experiments.history import Mark, Operation, Outcome, Round, Sample
from deploy.experiments.workload import ApiClients, StoreClients, Tls

LEADER_S = 60.0  # how long a round waits for a leader to strike


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


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What a round asks of a store: as much as its engine can do at all, and no more is measured of it."""

    one_writer: bool = False  # instead of one for each member: it stays with a member for as long as that answers
    api_clients: int = 6
    attempt_s: float = 2.0  # a client gives up on an attempt, not on the cluster
    warm_up_s: float = 2.0
    down_s: float = 5.0  # until the victim is mended, unless the caller says otherwise
    catch_up_s: float = 60.0
    read_back_s: float = 60.0
    linearizable: bool = True  # the first read that is answered is the truth
    control_plane: bool = True  # a lab made for the experiment runs the masters, which write as well
    words: str = ""  # for the report: how it differs from the ordinary one, and why


WORKLOADS: Mapping[str, Workload] = {
    "native": Workload(),
    "raftos": Workload(
        one_writer=True,
        api_clients=0,
        attempt_s=10.0,
        warm_up_s=5.0,
        down_s=25.0,
        catch_up_s=30.0,
        read_back_s=30.0,
        linearizable=False,
        control_plane=False,
        words=(
            "raftos stalls when several clients write at once and does not carry the API's transactions, so this is a "
            "smaller load than other engines get: one store client, at the leader first and at the next member when "
            "that fails, 10 s an attempt, no API clients. Its reads are not linearizable, so a write counts as lost "
            "only if no member shows it within 30 s of reading"
        ),
    ),
}


class Target(msgspec.Struct, frozen=True):
    """Where the clients of an experiment connect, and what they do there."""

    members: dict[str, str]  # store endpoint "ip:port" -> master's name
    api_url: str  # used if the workload has API clients
    workload: Workload = Workload()


class Timing(msgspec.Struct, frozen=True):
    """How long a round's phases last."""

    after_fault_s: float  # the victim stays down, clients go on
    after_mend_s: float = 1.0


class _Watch:
    """What the samples say of the cluster right now."""

    def __init__(self, samples: list[Sample], members: frozenset[str]) -> None:
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
        return best if named.count(best) * 2 > len(self._members) and best in self._members else ""

    def last_leader(self) -> str:
        """Return whom a member named leader last, or ""."""
        return next((each.leader for each in reversed(self._samples) if each.leader in self._members), "")

    def caught_up(self, goal: int) -> bool:
        """Return whether every member has applied ``goal`` and all name the same leader."""
        latest = self.latest().values()
        leaders = {each.leader for each in latest}
        return (
            len(latest) == len(self._members)
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
    """Run one round and return its record; the victim is mended and the clients are gone afterwards, come what may.

    A store that has lost its leader, its writes or its reads is a finding, and the record says so.
    """
    run, workload = secrets.token_hex(4), target.workload
    store = StoreClients(list(target.members), tls, run=run, attempt_s=workload.attempt_s)
    api = ApiClients(target.api_url, tls, run=run, attempt_s=workload.attempt_s) if workload.api_clients else None
    try:
        return await _Running(number, scenario, target, striker, store, api, timing).record()
    finally:
        if api is not None:
            await api.clean_up()
            await api.close()
        await store.clean_up()
        await store.close()


class _Running:
    """One round while it runs."""

    def __init__(
        self,
        number: int,
        scenario: Scenario,
        target: Target,
        striker: Striker,
        store: StoreClients,
        api: ApiClients | None,
        timing: Timing,
    ) -> None:
        self._number, self._scenario, self._target, self._timing = number, scenario, target, timing
        self._striker, self._store, self._api = striker, store, api
        self._operations: list[Operation] = []
        self._samples: list[Sample] = []
        self._marks: list[Mark] = []
        self._watch = _Watch(self._samples, frozenset(target.members.values()))
        self._over = False

    async def record(self) -> Round:
        """Let clients work, strike, mend, read everything back."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.sample(self._target.members, self._samples, until=lambda: self._over))
            try:
                if not await _until(lambda: bool(self._watch.leader()), LEADER_S):
                    return self._without_leader()
                victim, fault, recover, redundant = await self._work_and_strike(tasks)
            finally:
                self._over = True
        found, unread = await self._read_back()
        return Round(
            number=self._number,
            victim=victim,
            fault_s=fault,
            recover_s=recover,
            operations=tuple(self._operations),
            samples=tuple(self._samples),
            marks=tuple(self._marks),
            found=found,
            redundant_s=redundant,
            unread=unread,
        )

    def _without_leader(self) -> Round:
        at_s = self._mark("no leader to strike")
        problem = f"no leader was agreed on within {LEADER_S:.0f} s"
        samples, marks = tuple(self._samples), tuple(self._marks)
        return Round(self._number, "", at_s, at_s, (), samples, marks, frozenset(), None, problem=problem)

    async def _work_and_strike(self, tasks: asyncio.TaskGroup) -> tuple[str, float, float, float | None]:
        """Return the victim and when the fault was complete, its repair began and all members were caught up."""
        workload, scenario = self._target.workload, self._scenario
        self._start_clients(tasks)
        await asyncio.sleep(workload.warm_up_s)
        leader = self._watch.leader() or self._watch.last_leader()
        victim = leader if scenario.victim == "leader" else _follower(self._target, leader)
        self._mark(f"{scenario.fault} {victim}")
        with _mended_whatever_happens(self._striker, victim) as mended:
            await asyncio.to_thread(self._striker.strike, victim)
            fault = self._mark("fault complete")
            await asyncio.sleep(self._timing.after_fault_s)
            recover = self._mark(f"mend {victim}")
            await asyncio.to_thread(mended)
        goal = self._watch.highest_commit()
        caught_up = await _until(lambda: self._watch.caught_up(goal), workload.catch_up_s)
        redundant = self._mark("all members caught up") if caught_up else None
        await asyncio.sleep(self._timing.after_mend_s)
        return victim, fault, recover, redundant

    def _start_clients(self, tasks: asyncio.TaskGroup) -> None:
        for endpoints in writers(self._target, self._watch.leader()):
            tasks.create_task(self._store.write(endpoints, self._operations, until=lambda: self._over))
        if self._api is not None:
            for client in range(self._target.workload.api_clients):
                tasks.create_task(self._api.write(client, self._operations, until=lambda: self._over))

    async def _read_back(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """Return the keys that are there, and the targets that would not let them be read."""
        workload = self._target.workload
        if workload.linearizable:
            answers = {"store": await self._store.read_back(timeout_s=workload.read_back_s)}
        else:
            written = frozenset(each.key for each in self._operations if each.outcome is Outcome.ACKNOWLEDGED)
            answers = {"store": await self._store.search(written, timeout_s=workload.read_back_s)}
        if self._api is not None:
            answers["api"] = await self._api.read_back(timeout_s=workload.read_back_s)
        unread = tuple(target for target, found in answers.items() if found is None)
        return frozenset().union(*filter(None, answers.values())), unread

    def _mark(self, what: str) -> float:
        self._marks.append(Mark(time.monotonic(), what))
        return self._marks[-1].at_s


def writers(target: Target, leader: str) -> list[tuple[str, ...]]:
    """Return for each store client the endpoints that it uses, the leader's first where it has several."""
    if not target.workload.one_writer:
        return [(endpoint,) for endpoint in target.members]
    return [tuple(sorted(target.members, key=lambda endpoint: target.members[endpoint] != leader))]


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
