"""Probes: ``Counter`` decides, ``Prober`` runs one task for each probe of each running instance.

A probe is due ``initialDelaySeconds`` after the container's start and then every period. Until it has succeeded once,
startup and readiness probes are also tried in between, ever more rarely: a server that listens after 50 ms is ready
after some 100 ms, not after the next period. Only tries that are due count as failures.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import Pod, Probe
from node_agent.errors import NodeError
from node_agent.pods.checks import Ask, Verdict
from node_agent.pods.containers import all_containers
from node_agent.pods.situation import Health
from node_agent.runtime.base import Container

log = logging.getLogger(__name__)

STARTUP, LIVENESS, READINESS = "startup", "liveness", "readiness"
_FIRST_EXTRA_S = 0.05
_EXTRA_GROWTH = 1.6


class Counter(msgspec.Struct, frozen=True):
    """Successes or failures in a row, and the verdict that they have led to. verdict None: none yet."""

    success_threshold: int
    failure_threshold: int
    verdict: bool | None = None
    last: bool | None = None
    run: int = 0

    def after(self, *, ok: bool) -> "Counter":
        """Return the counter after one more result."""
        run = self.run + 1 if ok == self.last else 1
        reached = run >= (self.success_threshold if ok else self.failure_threshold)
        return msgspec.structs.replace(self, last=ok, run=run, verdict=ok if reached else self.verdict)


def counter_of(probe: Probe) -> Counter:
    """Return the counter that a probe starts with."""
    return Counter(probe.success_threshold or 1, probe.failure_threshold or 3)


def extra_tries(period_s: float) -> Iterator[float]:
    """Yield pauses between tries within the first period: 50 ms, 80 ms, 130 ms ..."""
    pause_s, spent_s = _FIRST_EXTRA_S, 0.0
    while spent_s + pause_s < period_s:
        yield pause_s
        spent_s += pause_s
        pause_s *= _EXTRA_GROWTH


class _Watch:
    """The probes of one running instance and what they have found."""

    def __init__(self, spec: ContainerSpec, container: Container) -> None:
        self.spec = spec
        self.container = container
        self.counters: dict[str, Counter] = {}
        self.message = ""
        self.tasks: list[asyncio.Task[None]] = []

    def probe(self, kind: str) -> Probe | None:
        return {
            STARTUP: self.spec.startup_probe,
            LIVENESS: self.spec.liveness_probe,
            READINESS: self.spec.readiness_probe,
        }[kind]

    def verdict(self, kind: str) -> bool | None:
        counter = self.counters.get(kind)
        return counter.verdict if counter else None

    def health(self) -> Health:
        started = self.spec.startup_probe is None or self.verdict(STARTUP) is True
        ready = started and (self.spec.readiness_probe is None or self.verdict(READINESS) is True)
        failed = ""
        for kind in (STARTUP, LIVENESS):
            if self.probe(kind) is not None and self.verdict(kind) is False:
                failed = f"Container {self.spec.name} failed {kind} probe, will be restarted"
        return Health(started=started, ready=ready, failed=failed)


class Prober:
    """Keeps the probe tasks of one pod in step with its running containers.

    ask: runs one check. on_change: called when a verdict changes. record: takes (container, reason, message) of
    each failure and of what is odd.
    """

    def __init__(self, ask: Ask, *, on_change: Callable[[], None], record: Callable[[str, str, str], None]) -> None:
        self._ask = ask
        self._on_change = on_change
        self._record = record
        self._watches: dict[str, _Watch] = {}
        self._pod_ip = ""
        self._addressed = asyncio.Event()

    def sync(self, pod: Pod, running: Sequence[Container], pod_ip: str) -> None:
        """Probe exactly the containers that run. pod_ip: where, "" while the pod has no address."""
        self._pod_ip = pod_ip
        if pod_ip:
            self._addressed.set()
        specs = {spec.name: spec for spec in all_containers(pod.spec)}
        wanted = {each.id: each for each in running if each.name in specs}
        for container_id in self._watches.keys() - wanted.keys():
            self._end(self._watches.pop(container_id))
        for container_id in wanted.keys() - self._watches.keys():
            container = wanted[container_id]
            watch = self._watches[container_id] = _Watch(specs[container.name], container)
            first = STARTUP if watch.spec.startup_probe else ""
            for kind in [first] if first else [LIVENESS, READINESS]:
                self._launch(watch, kind)

    def health(self, running: Sequence[Container]) -> Mapping[str, Health]:
        """Return container id -> health, for what is being probed."""
        return {each.id: self._watches[each.id].health() for each in running if each.id in self._watches}

    def grace_override(self, container_id: str) -> int | None:
        """Return the grace period that the failed probe asks for, if it does."""
        watch = self._watches.get(container_id)
        if watch is None or not watch.health().failed:
            return None
        kind = STARTUP if watch.verdict(STARTUP) is False else LIVENESS
        probe = watch.probe(kind)
        return probe.termination_grace_period_seconds if probe else None

    def stop(self) -> None:
        """Cancel every probe."""
        for watch in self._watches.values():
            self._end(watch)
        self._watches.clear()

    def _end(self, watch: _Watch) -> None:
        for task in watch.tasks:
            task.cancel()

    def _launch(self, watch: _Watch, kind: str) -> None:
        probe = watch.probe(kind)
        if probe is not None:
            watch.counters[kind] = counter_of(probe)
            watch.tasks.append(asyncio.create_task(self._run(watch, kind, probe), name=f"{kind} {watch.spec.name}"))

    async def _run(self, watch: _Watch, kind: str, probe: Probe) -> None:
        try:
            await asyncio.sleep(probe.initial_delay_seconds or 0)
            if kind != LIVENESS and await self._until_first_success(watch, kind, probe):
                await asyncio.sleep(0 if watch.verdict(kind) and kind == STARTUP else probe.period_seconds or 10)
            while watch.verdict(STARTUP) is not True or kind != STARTUP:
                await self._due(watch, kind, probe)
                if kind == STARTUP and watch.verdict(kind) is not None:
                    break
                await asyncio.sleep(probe.period_seconds or 10)
        finally:
            log.debug("probe ended container=%s kind=%s", watch.container.id[:12], kind)
        if kind == STARTUP and watch.verdict(STARTUP):
            for following in (LIVENESS, READINESS):
                self._launch(watch, following)
            self._on_change()

    async def _until_first_success(self, watch: _Watch, kind: str, probe: Probe) -> bool:
        """Try often within the first period, where failures do not count; whether one try succeeded."""
        for pause_s in extra_tries(probe.period_seconds or 10):
            verdict = await self._try(watch, probe)
            if verdict.ok:
                self._take(watch, kind, verdict)
                return True
            await asyncio.sleep(pause_s)
        return False

    async def _due(self, watch: _Watch, kind: str, probe: Probe) -> None:
        self._take(watch, kind, await self._try(watch, probe))

    def _take(self, watch: _Watch, kind: str, verdict: Verdict) -> None:
        before = watch.counters[kind]
        watch.counters[kind] = after = before.after(ok=verdict.ok)
        if not verdict.ok:
            self._record(watch.spec.name, "Unhealthy", f"{kind.capitalize()} probe failed: {verdict.message}")
        elif verdict.warning:
            self._record(watch.spec.name, "ProbeWarning", f"{kind.capitalize()} probe warning: {verdict.warning}")
        if before.verdict != after.verdict:
            self._on_change()

    async def _try(self, watch: _Watch, probe: Probe) -> Verdict:
        timeout_s = probe.timeout_seconds or 1
        try:
            async with asyncio.timeout(timeout_s):
                return await self._check(watch, probe)
        except TimeoutError:
            return Verdict(ok=False, message=f"probe timed out after {timeout_s}s")
        except (NodeError, ValueError) as exc:
            return Verdict(ok=False, message=str(exc))

    async def _check(self, watch: _Watch, probe: Probe) -> Verdict:
        if probe.exec is None:
            await self._addressed.wait()
        return await self._ask(probe, watch.spec, watch.container.id, self._pod_ip)
