"""The text between two rulesets: applied to a model of iptables-restore, it must get from one to the other."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.proxy.rules import OWNED_PREFIXES, Endpoint, ProxyConfig, ServicePort, render_rules
from node_agent.proxy.ruleset import (
    ChainId,
    Jump,
    Ruleset,
    missing_from,
    parse_save,
    render_change,
    render_full,
    render_removal,
)
from tests.unit.node_agent.proxy.model_kernel import State, kernel, restore, save
from tests.unit.node_agent.proxy.tracer import Packet, targets

BOUNDED = settings(deadline=None, max_examples=50)  # no deadline: the machine may be busy
CONFIG = ProxyConfig(node="node1", cluster_cidr="10.244.0.0/16")


def holds(state: State, rules: Ruleset) -> bool:
    """Whether the kernel has exactly these rules of ours."""
    ours = {c: tuple(lines) for c, lines in state.items() if c.name.startswith(OWNED_PREFIXES)}
    jumps: dict[ChainId, list[str]] = {}
    for jump in rules.jumps:
        jumps.setdefault(ChainId(jump.table, jump.origin), []).append(jump.rule)
    in_order = all(state[c][: len(lines)] == lines for c, lines in jumps.items())
    return ours == dict(rules.chains) and in_order


endpoints = st.builds(
    Endpoint,
    ip=st.sampled_from(["10.244.1.5", "10.244.1.6", "10.244.2.5", "10.244.3.5"]),
    port=st.sampled_from([80, 8080]),
    node=st.sampled_from(["node1", "node2"]),
    ready=st.booleans(),
    serving=st.booleans(),
)
ports = st.builds(
    ServicePort,
    namespace=st.just("default"),
    name=st.sampled_from(["a", "b", "c"]),
    port=st.sampled_from([80, 81]),
    port_name=st.sampled_from(["", "http"]),
    protocol=st.sampled_from(["TCP", "UDP"]),
    cluster_ip=st.sampled_from(["10.96.0.1", "10.96.0.2"]),
    node_port=st.sampled_from([0, 30001, 30002]),
    external_ips=st.sampled_from([(), ("203.0.113.5",)]),
    load_balancer_ips=st.sampled_from([(), ("203.0.113.6",)]),
    source_ranges=st.sampled_from([(), ("198.51.100.0/24",)]),
    affinity_s=st.sampled_from([0, 60]),
    external_local=st.booleans(),
    internal_local=st.booleans(),
    endpoints=st.lists(endpoints, max_size=5).map(tuple),
)
services = st.lists(ports, max_size=5, unique_by=lambda s: (s.label, s.protocol))


@BOUNDED
@given(st.lists(services, min_size=1, max_size=4))
def test_changes_in_a_row_end_where_a_full_write_ends(history: list[list[ServicePort]]) -> None:
    """Goal: writing only what changed is never wrong. Method: a model kernel takes both ways."""
    state = kernel(FOREIGN=["-j RETURN"])
    programmed: Ruleset | None = None
    for wanted in history:
        rules = render_rules(wanted, CONFIG)
        if programmed is None:
            text = render_full(parse_save(save(state)), rules, OWNED_PREFIXES)
        else:
            text = render_change(programmed, rules)
        state = restore(state, text)
        programmed = rules
        assert holds(state, rules)
        assert missing_from(parse_save(save(state)), rules) == []
    assert state[ChainId("nat", "FOREIGN")] == ["-j RETURN"]


@BOUNDED
@given(services, services)
def test_a_full_write_takes_over_whatever_is_there(before: list[ServicePort], after: list[ServicePort]) -> None:
    state = kernel()
    for wanted in (before, after):
        rules = render_rules(wanted, CONFIG)
        state = restore(state, render_full(parse_save(save(state)), rules, OWNED_PREFIXES))
        assert holds(state, rules)


@BOUNDED
@given(services)
def test_removal_leaves_what_was_there_before(wanted: list[ServicePort]) -> None:
    before = kernel(FOREIGN=["-s 10.0.0.1 -j RETURN"])
    before[ChainId("nat", "PREROUTING")] = ["-j FOREIGN"]
    rules = render_rules(wanted, CONFIG)
    state = restore(before, render_full(parse_save(save(before)), rules, OWNED_PREFIXES))
    assert restore(state, render_removal(parse_save(save(state)), OWNED_PREFIXES)) == before
    assert render_removal(parse_save(save(before)), OWNED_PREFIXES) == ""


@BOUNDED
@given(services)
def test_an_unchanged_state_writes_nothing(wanted: list[ServicePort]) -> None:
    assert render_change(render_rules(wanted, CONFIG), render_rules(list(reversed(wanted)), CONFIG)) == ""


@BOUNDED
@given(st.lists(endpoints, min_size=1, max_size=60).map(tuple), st.sampled_from([0, 60]))
def test_all_usable_endpoints_are_reached_equally(found: tuple[Endpoint, ...], affinity_s: int) -> None:
    service = ServicePort("default", "web", 80, cluster_ip="10.96.0.1", endpoints=found, affinity_s=affinity_s)
    usable = {f"{e.ip}:{e.port}" for e in found if e.ready} or {f"{e.ip}:{e.port}" for e in found if e.serving}
    reached = targets(render_rules([service], CONFIG), Packet("10.244.1.9", "10.96.0.1", 80))
    if usable:
        assert reached.keys() == usable
        assert list(reached.values()) == pytest.approx([1 / len(usable)] * len(usable), abs=1e-6)
    else:
        assert reached == {"REJECT": 1}


@BOUNDED
@given(services)
def test_every_packet_lands_somewhere_with_certainty(wanted: list[ServicePort]) -> None:
    rules = render_rules(wanted, CONFIG)
    for source in ("10.244.1.9", "198.51.100.1", "192.0.2.1"):
        for target in ("10.96.0.1", "10.96.0.2", "203.0.113.5", "203.0.113.6", "192.0.2.1"):
            for port in (80, 81, 30001):
                reached = targets(rules, Packet(source, target, port))
                assert sum(reached.values()) == pytest.approx(1)


def test_only_the_chains_of_a_changed_endpoint_are_written() -> None:
    many = [
        ServicePort("default", f"s{i}", 80, cluster_ip=f"10.96.1.{i}", endpoints=(Endpoint("10.244.1.5", 80),))
        for i in range(50)
    ]
    changed = [*many[:-1], msgspec.structs.replace(many[-1], endpoints=(Endpoint("10.244.1.6", 80),))]
    text = render_change(render_rules(many, CONFIG), render_rules(changed, CONFIG))
    declared = [line for line in text.splitlines() if line.startswith(":")]
    assert len(declared) == 3, "the service's chain, the new endpoint's and the old one's"


def test_lost_jumps_go_before_what_others_put_there() -> None:
    state = kernel(FOREIGN=[])
    state[ChainId("nat", "PREROUTING")] = ["-j FOREIGN"]
    rules = Ruleset({ChainId("nat", "KUBE-SERVICES"): ("-j RETURN",)}, (Jump("nat", "PREROUTING", "KUBE-SERVICES"),))
    state = restore(state, render_full(parse_save(save(state)), rules, OWNED_PREFIXES))
    assert state[ChainId("nat", "PREROUTING")] == ["-j KUBE-SERVICES", "-j FOREIGN"]


DAMAGE: Mapping[str, tuple[str, str]] = {
    "a chain is gone": (":KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -j RETURN\n", ""),
    "a chain was emptied": ("-A KUBE-SERVICES -j RETURN\n", ""),
    "a rule was added": ("-A KUBE-SERVICES -j RETURN\n", "-A KUBE-SERVICES -j RETURN\n-A KUBE-SERVICES -j DROP\n"),
    "a jump is gone": ("-A PREROUTING -m comment --comment x -j KUBE-SERVICES\n", ""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_seen(damage: str) -> None:
    rules = Ruleset({ChainId("nat", "KUBE-SERVICES"): ("-j RETURN",)}, (Jump("nat", "PREROUTING", "KUBE-SERVICES"),))
    whole = (
        "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n"
        "-A KUBE-SERVICES -j RETURN\n-A PREROUTING -m comment --comment x -j KUBE-SERVICES\nCOMMIT\n"
    )
    assert missing_from(parse_save(whole), rules) == []
    old, new = DAMAGE[damage]
    assert old in whole
    assert missing_from(parse_save(whole.replace(old, new)), rules) != []
