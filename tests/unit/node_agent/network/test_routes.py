import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.kinds.core import Node, NodeAddress, NodeSpec, NodeStatus
from api.meta import ObjectMeta
from node_agent.network.model import peers_of
from node_agent.network.routes import (
    Add,
    Direct,
    Path,
    Peer,
    Remove,
    Tunnel,
    mac_of_host,
    plan_changes,
    plan_paths,
)

OWN = ("127.0.0.1/8", "10.89.7.21/24", "10.244.1.1/24")


def paths(*peers: Peer) -> set[Path]:
    return set(plan_paths(own_name="node1", own_networks=OWN, peers=peers))


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        pytest.param(
            Peer("node2", "10.89.7.22", "10.244.2.0/24"), Direct("10.244.2.0/24", "10.89.7.22"), id="same link"
        ),
        pytest.param(Peer("node2", "10.89.8.22", "10.244.2.0/24"), Tunnel("10.244.2.0/24", "10.89.8.22"), id="routed"),
        pytest.param(Peer("node1", "10.89.7.21", "10.244.1.0/24"), None, id="this node"),
        pytest.param(Peer("node2", "10.89.7.22", ""), None, id="no pods yet"),
        pytest.param(Peer("node2", "", "10.244.2.0/24"), None, id="no address yet"),
    ],
)
def test_how_a_peer_is_reached(peer: Peer, expected: Path | None) -> None:
    assert paths(peer) == ({expected} if expected else set())


def test_one_cidr_leads_to_one_node() -> None:
    twice = [Peer(name, f"10.89.7.{n}", "10.244.2.0/24") for n, name in ((33, "node3"), (22, "node2"))]
    assert paths(*twice) == {Direct("10.244.2.0/24", "10.89.7.22")}


def test_a_tunnel_s_far_side_is_known_without_asking() -> None:
    assert Tunnel("10.244.2.0/24", "10.89.8.22").gateway == "10.244.2.1"
    assert mac_of_host("10.89.8.22") == "0a:54:0a:59:08:16"


def test_a_cidr_that_moves_is_removed_before_it_is_added() -> None:
    old, new = Direct("10.244.2.0/24", "10.89.7.22"), Tunnel("10.244.2.0/24", "10.89.8.22")
    assert plan_changes({old}, {new}) == [Remove(old), Add(new)]
    assert plan_changes({new}, {new}) == []


some_paths = st.sets(
    st.builds(
        lambda cls, n, host: cls(f"10.244.{n}.0/24", f"10.89.7.{host}"),
        st.sampled_from([Direct, Tunnel]),
        st.integers(0, 5),
        st.integers(1, 3),
    )
)


@given(some_paths, some_paths)
def test_the_changes_lead_from_one_to_the_other(current: set[Path], wanted: set[Path]) -> None:
    held = set(current)
    for change in plan_changes(current, wanted):
        if isinstance(change, Remove):
            held.remove(change.path)
        else:
            assert change.path not in held
            held.add(change.path)
    assert held == wanted


def test_nodes_become_peers_once_they_can_be_reached() -> None:
    def node(name: str, cidr: str, *addresses: tuple[str, str]) -> Node:
        return Node(
            metadata=ObjectMeta(name=name),
            spec=NodeSpec(pod_cidr=cidr),
            status=NodeStatus(addresses=tuple(NodeAddress(type=t, address=a) for t, a in addresses)),
        )

    nodes = [
        node("a", "10.244.1.0/24", ("Hostname", "a"), ("InternalIP", "10.89.7.21")),
        node("b", "", ("InternalIP", "10.89.7.22")),
        node("c", "10.244.3.0/24", ("Hostname", "c")),
    ]
    assert peers_of(nodes) == (Peer("a", "10.89.7.21", "10.244.1.0/24"),)
