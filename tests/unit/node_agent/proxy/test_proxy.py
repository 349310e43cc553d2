"""The proxy's loop, over a model of the host's tables."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from node_agent.errors import KernelRefused
from node_agent.proxy import proxy as proxy_module
from node_agent.proxy.conntrack import Flow
from node_agent.proxy.iptables import Iptables
from node_agent.proxy.proxy import ProxyTiming, ServiceProxy
from node_agent.proxy.rules import Endpoint, ProxyConfig, ServicePort, render_rules
from node_agent.proxy.ruleset import ChainId
from tests.unit.node_agent.proxy.model_kernel import ModelHost, kernel

CONFIG = ProxyConfig(node="node1", cluster_cidr="10.244.0.0/16")
QUICK = ProxyTiming(min_interval_s=0, canary_s=0.002, full_check_s=0, retry_s=0.001, retry_max_s=0.002)


@pytest.fixture(autouse=True)
def _no_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_module, "open_loopback_node_ports", lambda: None)


def service(number: int = 1, endpoint: str = "10.244.1.5", protocol: str = "TCP") -> ServicePort:
    return ServicePort(
        "default",
        f"s{number}",
        80,
        protocol=protocol,
        cluster_ip=f"10.96.0.{number}",
        endpoints=(Endpoint(endpoint, 80, "node1"),) if endpoint else (),
    )


@asynccontextmanager
async def running(
    host: ModelHost,
    timing: ProxyTiming = QUICK,
    forget: Callable[[frozenset[Flow]], int] = len,
    on_look: Callable[[], object] = lambda: None,
) -> AsyncIterator[ServiceProxy]:
    proxy = ServiceProxy(CONFIG, Iptables("nft", host), forget=forget, timing=timing, on_look=on_look)
    task = asyncio.create_task(proxy.run())
    try:
        yield proxy
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def synced(proxy: ServiceProxy, *services: ServicePort) -> None:
    await asyncio.wait_for(proxy.wait_synced(proxy.update(services)), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the model kernel has no event to wait for
            await asyncio.sleep(0.001)


def holds(host: ModelHost, *services: ServicePort) -> bool:
    wanted = render_rules(services, CONFIG)
    ours = {c: tuple(r) for c, r in host.state.items() if c.name.startswith("KUBE-")}
    jumps = all(host.state[ChainId(j.table, j.origin)].count(j.rule) == 1 for j in wanted.jumps)
    return ours == wanted.chains and jumps


async def test_nothing_is_written_before_the_first_update() -> None:
    """A starting agent does not know the services yet; the rules of the one before must stay."""
    host = ModelHost()
    async with running(host):
        await asyncio.sleep(0.02)
    assert host.restores == []


async def test_the_first_write_is_whole_and_later_ones_are_changes() -> None:
    host = ModelHost()
    async with running(host) as proxy:
        await synced(proxy, service(1), service(2))
        assert holds(host, service(1), service(2))
        await synced(proxy, service(1), service(2, endpoint="10.244.1.6"))
        assert holds(host, service(1), service(2, endpoint="10.244.1.6"))
        assert len(host.restores[1]) < len(host.restores[0]) / 2
        await synced(proxy, service(1), service(2, endpoint="10.244.1.6"))
        assert len(host.restores) == 2, "an update that changes nothing writes nothing"


async def test_updates_during_a_write_are_merged_into_the_next() -> None:
    host, started, may_go = ModelHost(), threading.Event(), threading.Event()

    def slow(argv: list[str], stdin: str = "") -> str:
        if argv[0].endswith("-restore"):
            started.set()
            assert may_go.wait(5)
        return host(argv, stdin)

    async with running(slow) as proxy:
        proxy.update([service(1)])
        await asyncio.to_thread(started.wait, 5)
        for number in range(2, 40):
            last = proxy.update([service(number)])
        assert proxy.synced_revision == 0
        may_go.set()
        await asyncio.wait_for(proxy.wait_synced(last), 5)
    assert holds(host, service(39))
    assert len(host.restores) == 2


async def test_a_failed_write_is_repeated() -> None:
    host = ModelHost()
    async with running(host) as proxy:
        await synced(proxy, service(1))
        host.fail_next = 3
        await synced(proxy, service(2))
        assert holds(host, service(2))
        assert host.fail_next == 0


async def test_after_a_failure_the_write_starts_from_what_the_kernel_holds() -> None:
    """Somebody removed a chain that the change needs: repeating the same change would fail for ever."""
    host = ModelHost()
    timing = ProxyTiming(min_interval_s=0, canary_s=1000, retry_s=0.001)
    async with running(host, timing) as proxy:
        await synced(proxy, service(1))
        del host.state[ChainId("nat", "KUBE-MARK-MASQ")]
        await synced(proxy, service(1, endpoint="10.244.1.6"))
        assert holds(host, service(1, endpoint="10.244.1.6"))


@pytest.mark.parametrize("table", ["nat", "filter"])
async def test_the_canary_tells_that_a_table_was_flushed(table: str) -> None:
    host = ModelHost()
    # Long enough after the first that no second full check comes.
    timing = ProxyTiming(min_interval_s=0, canary_s=0.002, full_check_s=1000)
    async with running(host, timing) as proxy:
        await synced(proxy, service(1))
        await until(lambda: host.saves > 2)
        host.flush(table)
        await until(lambda: holds(host, service(1)))


async def test_the_full_check_sees_what_the_canary_misses() -> None:
    host = ModelHost()
    async with running(host) as proxy:
        await synced(proxy, service(1))
        await until(lambda: host.saves > 6)
        host.state[ChainId("nat", "PREROUTING")].clear()
        await until(lambda: holds(host, service(1)))


async def test_others_are_asked_to_look_at_their_chains_too() -> None:
    looks: list[int] = []
    async with running(ModelHost(), on_look=lambda: looks.append(1)):
        await until(lambda: len(looks) >= 2)


async def test_flows_to_vanished_udp_endpoints_are_forgotten() -> None:
    forgotten: list[frozenset[Flow]] = []
    async with running(ModelHost(), forget=lambda flows: forgotten.append(flows) or 0) as proxy:
        await synced(proxy, service(1, "10.244.1.5", "UDP"))
        await synced(proxy, service(1, "10.244.1.6", "UDP"))
        await synced(proxy, service(1, "10.244.1.6", "UDP"))
    assert Flow("10.96.0.1", 80, "10.244.1.5", 80) in forgotten[-1]
    assert len(forgotten) == 2


async def test_rules_are_right_even_if_flows_cannot_be_forgotten() -> None:
    def refuse(_: frozenset[Flow]) -> int:
        raise KernelRefused("conntrack: not in this kernel")

    host = ModelHost()
    async with running(host, forget=refuse) as proxy:
        await synced(proxy, service(1, "10.244.1.5", "UDP"))
        await synced(proxy, service(1, "10.244.1.6", "UDP"))
        assert holds(host, service(1, "10.244.1.6", "UDP"))


async def test_stopping_keeps_the_rules_and_clean_up_removes_them() -> None:
    host = ModelHost()
    async with running(host) as proxy:
        await synced(proxy, service(1))
    assert holds(host, service(1))
    await proxy.clean_up()
    assert host.state == kernel()
