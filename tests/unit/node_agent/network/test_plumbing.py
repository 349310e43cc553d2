import contextlib
from pathlib import Path

import pytest

from node_agent.errors import CommandFailed
from node_agent.network import kernel, plumbing
from node_agent.network.host_ports import HostPort
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.plumbing import PodNetwork, host_interface_of, mac_of
from node_agent.proxy.iptables import Iptables
from tests.unit.node_agent.proxy.model_kernel import ModelHost
from tests.unit.node_agent.proxy.tracer import Packet, targets, trace

RULES = render_pod_rules(pod_cidr="10.244.1.0/24", cluster_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16")
POD, FAR_POD, WORLD = "10.244.1.5", "10.244.2.5", "198.51.100.1"


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        pytest.param(POD, WORLD, "yes", id="out of the cluster"),
        pytest.param(POD, FAR_POD, "no", id="to another pod"),
        pytest.param(POD, "224.0.0.251", "no", id="multicast"),
        pytest.param(FAR_POD, WORLD, "no", id="another node's pod is that node's business"),
        pytest.param(WORLD, POD, "no", id="into the cluster"),
    ],
)
def test_who_takes_the_node_s_address(source: str, target: str, expected: str) -> None:
    assert {o.masqueraded for o in trace(RULES, Packet(source, target, 80))} == {expected == "yes"}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        pytest.param(POD, WORLD, f"{WORLD}:80", id="a pod to the world"),
        pytest.param(WORLD, POD, f"{POD}:80", id="the world to a pod"),
        pytest.param(POD, FAR_POD, f"{FAR_POD}:80", id="a pod to a pod"),
        pytest.param(WORLD, "198.51.100.2", "DROP", id="what is not ours is left to the policy"),
        pytest.param(POD, "10.96.3.3", "DROP", id="a service address that no service has"),
    ],
)
def test_what_is_forwarded_where_docker_drops_the_rest(source: str, target: str, expected: str) -> None:
    assert targets(RULES, Packet(source, target, 80), forward_policy="DROP") == {expected: 1}


def test_the_firewall_is_written_once_and_again_after_damage() -> None:
    host = ModelHost()
    firewall = PodFirewall(Iptables("nft", host), RULES)
    assert firewall.ensure()
    assert not firewall.ensure()
    host.flush("filter")
    assert firewall.ensure()
    firewall.remove()
    assert not [c for c in host.state if c.name.startswith("TRIREME")]


def test_names_fit_the_kernel() -> None:
    assert len(host_interface_of("b7c1f3a2-9b1d-4b8e-8f5a-000000000000")) <= 15
    assert host_interface_of("a") != host_interface_of("b")
    assert mac_of("10.244.1.5") == "0a:58:0a:f4:01:05"


@pytest.mark.parametrize("key", ["", "two words", "x" * 129, "new\nline"])
async def test_a_key_that_an_alias_cannot_hold_is_refused(tmp_path: Path, key: str) -> None:
    firewall = PodFirewall(Iptables("nft", ModelHost()), RULES)
    network = PodNetwork(data_dir=tmp_path, pod_cidr="10.244.1.0/24", firewall=firewall)
    with pytest.raises(ValueError, match="pod key"):
        await network.attach(1, key)
    with pytest.raises(ValueError, match="pod key"):
        await network.detach(key)


async def test_ports_that_could_not_be_opened_are_opened_when_the_pod_is_plugged_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "namespace_file", lambda _: contextlib.nullcontext(0))
    host = ModelHost()
    network = PodNetwork(
        data_dir=tmp_path, pod_cidr="10.244.1.0/24", firewall=PodFirewall(Iptables("nft", host), RULES)
    )
    monkeypatch.setattr(network, "_plug", lambda *_: None)
    host.fail_next = 1
    with pytest.raises(CommandFailed):
        await network.attach(1, "pod", (HostPort(8080, 80),))
    assert network.address_of("pod") is None
    plugged = await network.attach(1, "pod", (HostPort(8080, 80),))
    assert f"--to-destination {plugged.address}:80" in host.restores[-1]


@pytest.mark.parametrize(
    ("loads", "modprobes", "warnings"),
    [
        pytest.param("already", 0, 0, id="the kernel has it"),
        pytest.param("works", 1, 0, id="a module that can be loaded"),
        pytest.param("fails", 1, 2, id="no such module"),
    ],
)
def test_iptables_is_made_to_see_the_bridge(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loads: str, modprobes: int, warnings: int
) -> None:
    called: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...]) -> str:
        called.append(tuple(argv))
        if loads == "fails":
            raise CommandFailed(argv, 1, "Module br_netfilter not found")
        return ""

    monkeypatch.setattr(plumbing, "run_command", run)
    monkeypatch.setattr(kernel, "write_sysctl", lambda *_: loads == "already" or (loads == "works" and bool(called)))
    plumbing._let_iptables_see_the_bridge()
    assert called == [("modprobe", "br_netfilter")] * modprobes
    assert len(caplog.records) == warnings
