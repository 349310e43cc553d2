"""Partitions: who is cut off from whom, and where packets land in the rendered rules."""

import ipaddress
from collections.abc import Sequence

import pytest

from deploy import faults
from deploy.errors import UsageError
from deploy.lab import Lab

ROUTES = """\
default via 10.89.7.1 dev eth0
10.89.7.0/24 dev eth0 proto kernel scope link src 10.89.7.22
10.244.0.0/24 via 10.89.7.21 dev eth0
10.244.1.0/24 dev trireme0 proto kernel scope link src 10.244.1.1
10.244.2.0/24 via 10.89.7.23 dev eth0
"""


def sides(lab: Lab, *words: str) -> list[str]:
    groups = faults.parse_partition(lab, words)
    return [",".join(sorted(group)) for group in groups]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["master1 | master2,master3"], ["master1", "master2,master3"]),
        (["master1", "|", "master2,master3"], ["master1", "master2,master3"]),
        (["master1|master2 master3 | node1"], ["master1", "master2,master3", "node1"]),
        (["node1"], ["node1", "entry,master1,master2,master3,node2"]),
        (["master1,node1 | rest"], ["master1,node1", "entry,master2,master3,node2"]),
    ],
)
def test_partitions_are_read(lab: Lab, words: Sequence[str], expected: list[str]) -> None:
    assert sides(lab, *words) == expected


@pytest.mark.parametrize(
    "text",
    ["", "|", "master1 |", "master1 | master9", "master1 | master1", "entry,master1,master2,master3,node1,node2"],
)
def test_partitions_that_make_no_sense_are_refused(lab: Lab, text: str) -> None:
    with pytest.raises(UsageError):
        faults.parse_partition(lab, [text])


def test_every_host_of_a_side_is_cut_off_from_all_other_sides_and_nobody_else(lab: Lab) -> None:
    peers = faults.cut_off(lab, faults.parse_partition(lab, ["master1 | master2,master3"]))
    names = {name: [peer.name for peer in cut] for name, cut in peers.items()}
    assert names == {
        "master1": ["master2", "master3"],
        "master2": ["master1"],
        "master3": ["master1"],
    }


def test_cuts_are_symmetric(lab: Lab) -> None:
    peers = faults.cut_off(lab, faults.parse_partition(lab, ["master1,node1 | master2 | rest"]))
    for name, cut in peers.items():
        for peer in cut:
            assert name in [back.name for back in peers[peer.name]]


def test_pods_behind_a_cut_off_node_are_cut_off_too(lab: Lab) -> None:
    assert faults.routes_via(ROUTES, [lab.host("node1")]) == ["10.244.0.0/24"]
    assert faults.routes_via(ROUTES, [lab.host("master1")]) == []


def dropped(rules: str, *, source: str, destination: str) -> bool:
    """Walk a packet through the rendered chain."""
    for line in rules.splitlines():
        words = line.split()
        if words[:2] != ["-A", faults.CHAIN]:
            continue
        subject = source if words[2] == "-s" else destination
        if ipaddress.ip_address(subject) in ipaddress.ip_network(words[3]):
            assert words[4:] == ["-j", "DROP"]
            return True
    return False


@pytest.mark.parametrize(
    ("source", "destination", "lost"),
    [
        ("10.89.7.21", "10.89.7.22", True),
        ("10.89.7.22", "10.89.7.21", True),
        ("10.244.0.9", "10.244.1.4", True),
        ("10.89.7.11", "10.89.7.22", False),
        ("10.89.7.22", "10.89.7.211", False),
    ],
    ids=["in", "out", "pod in", "another host", "an address that begins alike"],
)
def test_packets(source: str, destination: str, *, lost: bool) -> None:
    rules = faults.render_rules(["10.89.7.21", "10.244.0.0/24"])
    assert dropped(rules, source=source, destination=destination) == lost


def test_no_peers_leave_an_empty_chain() -> None:
    assert not dropped(faults.render_rules([]), source="10.89.7.21", destination="10.89.7.22")
