"""Names, sizes, addresses and networks of a lab."""

import ipaddress
import socket

import pytest

from deploy import state
from deploy.choices import Choices, parse_endpoints, parse_publish, parse_store_tls
from deploy.errors import DeployError, UsageError
from deploy.lab import Lab, check_name, pick_hosts, pick_subnet, plan_hosts, resize, routed_networks

PROC_NET_ROUTE = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
docker0	000011AC	00000000	0001	0	0	0	0000FFFF	0	0	0
br-lab	0000590A	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""


def test_hosts_have_distinct_fixed_addresses_inside_the_subnet() -> None:
    hosts = plan_hosts("10.89.7.0/24", masters=7, nodes=200)
    addresses = [ipaddress.ip_address(host.address) for host in hosts]
    network = ipaddress.ip_network("10.89.7.0/24")
    assert len(set(addresses)) == len(hosts) == 208
    assert all(address in network for address in addresses)
    assert network[1] not in addresses  # the gateway
    assert network.broadcast_address not in addresses


def test_more_nodes_leave_the_others_where_they_are(lab: Lab) -> None:
    larger = resize(lab, masters=None, nodes=5, engine=None)
    assert larger.hosts[: len(lab.hosts)] == lab.hosts
    assert [node.name for node in larger.nodes] == ["node1", "node2", "node3", "node4", "node5"]


@pytest.mark.parametrize(
    "change",
    [{"masters": 5}, {"nodes": 1}, {"engine": "raftos"}, {"nodes": 201}],
    ids=["masters", "fewer nodes", "engine", "too many nodes"],
)
def test_what_cannot_change_while_a_lab_lives_is_refused(lab: Lab, change: dict[str, object]) -> None:
    wanted = {"masters": None, "nodes": None, "engine": None} | change
    with pytest.raises(UsageError):
        resize(lab, **wanted)


@pytest.mark.parametrize("name", ["lab", "a", "lab-2", "0x"])
def test_names_that_docker_takes_are_accepted(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Lab", "-lab", "lab-", "a b", "../etc", "x" * 31, "lab\n", "ä"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


def test_a_subnet_keeps_clear_of_every_network_in_use() -> None:
    taken = [ipaddress.IPv4Network(text) for text in ("10.89.0.0/23", "10.89.2.128/25", "192.168.0.0/16")]
    assert pick_subnet(taken) == "10.89.3.0/24"


def test_no_subnet_left_is_said() -> None:
    with pytest.raises(UsageError, match="no free"):
        pick_subnet([ipaddress.IPv4Network("10.0.0.0/8")])


def test_routes_are_read_without_the_default_one() -> None:
    assert [str(network) for network in routed_networks(PROC_NET_ROUTE)] == ["172.17.0.0/16", "10.89.0.0/24"]


@pytest.mark.parametrize(("masters", "nodes"), [(0, 2), (8, 2), (3, -1), (3, 201)])
def test_impossible_sizes_are_refused(masters: int, nodes: int) -> None:
    with pytest.raises(UsageError):
        Choices("lab", masters=masters, nodes=nodes).new_lab("10.89.7.0/24")


def test_the_defaults_are_three_masters_two_nodes_and_an_entry(lab: Lab) -> None:
    names = [host.name for host in lab.hosts]
    assert names == ["entry", "master1", "master2", "master3", "node1", "node2"]
    assert lab.api_address == lab.host("entry").address


def test_an_unknown_host_is_answered_with_those_that_there_are(lab: Lab) -> None:
    with pytest.raises(UsageError) as caught:
        pick_hosts(lab, ["master1", "master9"])
    assert "master9" in str(caught.value)
    assert "master3" in caught.value.hint


def test_a_host_named_twice_is_done_once(lab: Lab) -> None:
    assert [host.name for host in pick_hosts(lab, ["node1", "node2", "node1"])] == ["node1", "node2"]


@pytest.mark.parametrize(
    ("text", "address"),
    [("", ""), ("8443", "127.0.0.1:8443"), ("0.0.0.0:8443", "0.0.0.0:8443")],
)
def test_publishing_is_local_unless_asked(text: str, address: str) -> None:
    assert parse_publish(text) == address


@pytest.mark.parametrize("text", ["0", "65536", "x", "host:80", "1.2.3.4:", "-1"])
def test_ports_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_publish(text)


def test_a_port_in_use_is_refused_before_anything_is_made() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        publish = f"127.0.0.1:{busy.getsockname()[1]}"
        with pytest.raises(UsageError, match="cannot be published"):
            Choices("lab", api_publish=publish).new_lab("10.89.7.0/24")


def test_store_endpoints_lose_their_scheme() -> None:
    assert parse_endpoints("https://192.0.2.1:2379/, etcd2:2379") == ("192.0.2.1:2379", "etcd2:2379")


@pytest.mark.parametrize("text", ["etcd", "etcd:", ":2379", "etcd:x"])
def test_endpoints_without_host_or_port_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_endpoints(text)


def test_an_external_store_excludes_an_engine() -> None:
    with pytest.raises(UsageError):
        Choices("lab", engine="raftos", store_endpoints=("etcd:2379",)).new_lab("10.89.7.0/24")


def test_store_certificates_come_all_or_none(tmp_path: object) -> None:
    assert parse_store_tls("", "", "") is None
    with pytest.raises(UsageError, match="belong together"):
        parse_store_tls("/ca", "", "")
    with pytest.raises(UsageError, match="no file"):
        parse_store_tls("/nowhere/ca", "/nowhere/cert", "/nowhere/key")


def test_a_saved_lab_is_found_again_as_it_was(lab: Lab) -> None:
    state.save(lab)
    assert state.load("lab") == lab
    assert state.names() == ["lab"]


def test_a_missing_lab_names_the_command_that_makes_it(lab: Lab) -> None:
    state.save(lab)
    with pytest.raises(UsageError) as caught:
        state.load("other")
    assert "up --name other" in caught.value.hint
    assert "lab" in caught.value.hint


def test_a_damaged_record_names_the_command_that_removes_it(lab: Lab) -> None:
    state.save(lab)
    (state.lab_folder("lab") / "lab.json").write_text("{")
    with pytest.raises(DeployError) as caught:
        state.load("lab")
    assert "down" in caught.value.hint
