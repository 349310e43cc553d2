"""Keeps the kernel's service rules equal to the services that the node agent knows.

``update`` takes the whole wanted state and returns at once; one task writes. Updates that arrive while
a write runs, or within the minimal interval after it, are merged into the next write. Every few seconds
a canary chain tells whether somebody flushed the tables, more rarely every chain is counted; then, and
after a failed write, the next write starts from what the kernel really holds.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable

import msgspec

from node_agent.errors import NodeError
from node_agent.network import kernel
from node_agent.proxy.conntrack import Flow, FlowForgetter, forget_flows, stale_flows
from node_agent.proxy.iptables import TABLES, Iptables
from node_agent.proxy.rules import CANARY, OWNED_PREFIXES, Chains, ProxyConfig, ServicePort, assemble, render_parts
from node_agent.proxy.ruleset import Ruleset, missing_from

log = logging.getLogger(__name__)


class ProxyTiming(msgspec.Struct, frozen=True):
    """How often the proxy writes and looks.

    min_interval_s: from the end of one write to the start of the next; the first change after a quiet
    time is written at once. canary_s: between looks at the canary. full_check_s: between counts of all
    chains; longer where a count would use more than a hundredth of the time. retry_s: after a failed
    write, doubled up to retry_max_s.
    """

    min_interval_s: float = 0.05
    canary_s: float = 5.0
    full_check_s: float = 30.0
    retry_s: float = 0.5
    retry_max_s: float = 10.0


class ServiceProxy:
    """The service proxy of one node; ``run`` owns the writing.

    on_look: called in a worker thread whenever the tables are looked at; others who keep chains there
    (the pod firewall) repair theirs with it.
    """

    def __init__(
        self,
        config: ProxyConfig,
        iptables: Iptables,
        *,
        forget: FlowForgetter = forget_flows,
        timing: ProxyTiming | None = None,
        on_look: Callable[[], object] = lambda: None,
    ) -> None:
        self._config = config
        self._iptables = iptables
        self._forget = forget
        self._timing = timing or ProxyTiming()
        self._on_look = on_look
        self._wanted: tuple[ServicePort, ...] | None = None
        self._parts: dict[ServicePort, Chains] = {}
        self._written: tuple[ServicePort, ...] = ()
        self._programmed: Ruleset | None = None  # None: what the kernel holds is not known
        # Cancelling ``run`` does not stop a write that its thread has begun; clean_up waits for it here.
        self._kernel_lock = threading.Lock()
        self._changed = asyncio.Event()
        self._progress = asyncio.Condition()
        self._full_check_due = 0.0
        self.revision = 0
        """Number of the latest update."""
        self.synced_revision = 0
        """Number of the latest update that the kernel's rules reflect."""
        self.last_sync_s = 0.0
        """How long the latest write took."""

    def update(self, services: Iterable[ServicePort]) -> int:
        """Take ``services`` as the whole wanted state; returns its revision. Must run on the loop."""
        self._wanted = tuple(services)
        self.revision += 1
        self._changed.set()
        return self.revision

    async def wait_synced(self, revision: int) -> None:
        """Return when the kernel's rules reflect that update or a later one; bound it with a timeout."""
        async with self._progress:
            await self._progress.wait_for(lambda: self.synced_revision >= revision)

    async def run(self) -> None:
        """Write changes and repair damage until cancelled. The rules stay: pods go on being reached."""
        await asyncio.to_thread(open_loopback_node_ports)
        retry_s = self._timing.retry_s
        while True:
            await self._wait_for_work()
            try:
                await self._work()
            except NodeError as exc:
                self._programmed = None
                self._changed.set()
                log.warning("service rules not written retry_s=%.1f error=%s", retry_s, exc)
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, self._timing.retry_max_s)
            else:
                retry_s = self._timing.retry_s
                await asyncio.sleep(self._timing.min_interval_s)

    async def clean_up(self) -> None:
        """Remove every chain and jump of the proxy; call it when ``run`` has ended."""
        await asyncio.to_thread(self._clean_up)

    async def _wait_for_work(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), self._timing.canary_s)
        except TimeoutError:
            return

    async def _work(self) -> None:
        if not self._changed.is_set():
            await asyncio.to_thread(self._look)
        wanted, revision = self._wanted, self.revision
        self._changed.clear()
        if wanted is None or (self._programmed is not None and revision == self.synced_revision):
            return
        await asyncio.to_thread(self._write, wanted)
        async with self._progress:
            self.synced_revision = revision
            self._progress.notify_all()

    def _clean_up(self) -> None:
        with self._kernel_lock:
            self._iptables.remove(OWNED_PREFIXES)
            self._programmed = None

    def _look(self) -> None:
        """Forget what we believe the kernel holds if that is not there any more."""
        self._on_look()
        if self._programmed is None:
            return
        started = time.monotonic()
        if started >= self._full_check_due:
            damage = missing_from(self._iptables.present(), self._programmed)
            took_s = time.monotonic() - started
            self._full_check_due = started + max(self._timing.full_check_s, 100 * took_s)
        else:
            damage = [table for table in TABLES if not self._iptables.has_rules(table, CANARY)]
        if damage:
            log.warning("service rules damaged, writing all anew missing=%s", ",".join(damage[:5]))
            self._programmed = None

    def _write(self, services: tuple[ServicePort, ...]) -> None:
        with self._kernel_lock:
            stale = self._write_rules(services)
        if stale:
            self._forget_flows(stale)

    def _write_rules(self, services: tuple[ServicePort, ...]) -> frozenset[Flow]:
        """Write the rules and return the flows that must be forgotten now."""
        started = time.monotonic()
        self._parts = render_parts(services, self._config, self._parts)
        rules = assemble(self._parts.values())
        if self._programmed is None:
            self._iptables.replace(rules, OWNED_PREFIXES)
        else:
            self._iptables.change(self._programmed, rules)
        self._programmed = rules
        stale = stale_flows(self._written, services, self._config)
        self._written = services
        self.last_sync_s = time.monotonic() - started
        log.debug("service rules written services=%d seconds=%.4f", len(services), self.last_sync_s)
        return stale

    def _forget_flows(self, stale: frozenset[Flow]) -> None:
        try:
            count = self._forget(stale)
        except NodeError as exc:
            # The rules are right; only clients that keep a UDP source port go on sending to the old place.
            log.warning("stale UDP flows kept candidates=%d error=%s", len(stale), exc)
        else:
            log.debug("stale UDP flows forgotten count=%d", count)


def open_loopback_node_ports() -> None:
    """Let node ports answer on 127.0.0.1 too; KUBE-FIREWALL keeps others from using that. Blocks."""
    kernel.write_sysctl("net/ipv4/conf/all/route_localnet", "1")
