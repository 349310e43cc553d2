"""The pod network in a real kernel, hosts and pods being network namespaces."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from node_agent.errors import AddressesExhausted, KernelRefused
from node_agent.network.local_address import add_local_address, remove_local_address
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.plumbing import PodAddress, PodNetwork
from node_agent.network.routes import Peer, Routes
from node_agent.proxy.iptables import Iptables
from tests.docker.namespaces import EchoServer, Namespace, ask

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

CLUSTER = "10.244.0.0/16"
PORT = 8080


class Host:
    """A node: its namespace and its pod network."""

    def __init__(self, stack: ExitStack, tmp_path: Path, number: int, *, pod_cidr: str | None = None) -> None:
        self.name = f"node{number}"
        self.namespace = _namespace(stack, self.name)
        self.pod_cidr = pod_cidr or f"10.244.{number}.0/24"
        self.data_dir = tmp_path / self.name
        self.network = self.restarted()

    def restarted(self) -> PodNetwork:
        rules = render_pod_rules(pod_cidr=self.pod_cidr, cluster_cidr=CLUSTER, service_cidr="10.96.0.0/16")
        return PodNetwork(
            data_dir=self.data_dir, pod_cidr=self.pod_cidr, firewall=PodFirewall(Iptables("nft"), rules), mtu=1500
        )

    def set_up(self) -> None:
        self.namespace.run(self.network.set_up)

    def attach(self, pod: Namespace, key: str) -> PodAddress:
        return self.namespace.run(lambda: self.network.attach(pod.path, key))

    def detach(self, key: str) -> None:
        self.namespace.run(lambda: self.network.detach(key))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def _namespace(stack: ExitStack, name: str) -> Namespace:
    made = Namespace(name)
    stack.callback(made.close)
    return made


def _serve(stack: ExitStack, namespace: Namespace, name: str) -> None:
    stack.callback(EchoServer(namespace, name, PORT).close)


def _link(left: Namespace, right: Namespace, left_address: str, right_address: str, name: str = "eth0") -> None:
    left.sh(f"ip link add {name} type veth peer name {name} netns {right.name}")
    left.sh(f"ip addr add {left_address} dev {name} && ip link set {name} up")
    right.sh(f"ip addr add {right_address} dev {name} && ip link set {name} up")


def test_pods_of_one_node_reach_each_other_and_their_host(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    pods = [_namespace(stack, f"pod{i}") for i in range(2)]
    first, second = (host.attach(pod, f"uid{i}") for i, pod in enumerate(pods))
    _serve(stack, pods[1], "second")
    _serve(stack, host.namespace, "host")

    assert (first.address, second.address) == ("10.244.1.2", "10.244.1.3")
    assert ask(pods[0], second.address, PORT) == ("second", first.address)
    assert ask(pods[0], first.gateway, PORT) == ("host", first.address)
    assert ask(host.namespace, second.address, PORT) == ("second", first.gateway)
    assert ask(pods[1], "127.0.0.1", PORT) == ("second", "127.0.0.1")


def test_attach_and_detach_can_be_repeated(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    host.set_up()
    pod, again = _namespace(stack, "pod"), _namespace(stack, "again")
    assert host.attach(pod, "uid") == host.attach(pod, "uid")
    # The sandbox was made anew: the address moves along.
    before = host.network.address_of("uid")
    assert host.attach(again, "uid").address == before
    assert before in again.sh("ip -4 addr show eth0")
    assert "eth0" not in pod.sh("ip -4 addr")
    host.detach("uid")
    host.detach("uid")
    assert "tri" not in host.namespace.sh("ip -br link show type veth")
    assert host.network.address_of("uid") is None


def test_a_failed_attach_leaves_nothing(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1, pod_cidr="10.244.1.0/30")
    host.set_up()
    with pytest.raises(KernelRefused, match="no network namespace"):
        host.namespace.run(lambda: host.network.attach(f"{host.namespace.path}-gone", "lost"))
    taken = _namespace(stack, "taken")
    taken.sh("ip link add eth0 type bridge")
    with pytest.raises(KernelRefused, match="File exists"):
        host.attach(taken, "taken")
    pod = _namespace(stack, "pod")
    assert host.attach(pod, "uid").address == "10.244.1.2", "the failed ones must have given it back"
    with pytest.raises(AddressesExhausted, match="all 1 addresses"):
        host.attach(_namespace(stack, "late"), "late")
    assert host.namespace.sh("ip -br link show type veth").count("tri") == 1


def test_restart_keeps_running_pods_and_reclaims_the_rest(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    pods = {key: _namespace(stack, key) for key in ("stays", "vanished", "waits")}
    stays = host.attach(pods["stays"], "stays")
    host.attach(pods["vanished"], "vanished")
    host.attach(pods["waits"], "waits")
    waits = host.network.address_of("waits")
    pods["waits"].sh("ip link del eth0")  # its sandbox died with the agent

    host.network = host.restarted()
    host.set_up()
    plugged = host.namespace.run(lambda: host.network.recover({"stays", "waits"}))

    assert plugged == {"stays"}
    assert host.network.address_of("stays") == stays.address
    assert host.network.address_of("waits") == waits
    assert host.network.address_of("vanished") is None
    assert "eth0" not in pods["vanished"].sh("ip -4 addr")


def test_a_lost_address_book_is_rebuilt_from_the_kernel(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    old = host.attach(_namespace(stack, "old"), "old")
    book = host.data_dir / "network" / "addresses.json"
    book.write_bytes(b'{"cidr":"10.2')

    host.network = host.restarted()
    host.set_up()
    host.namespace.run(lambda: host.network.recover({"old"}))

    assert host.network.address_of("old") == old.address
    assert host.attach(_namespace(stack, "new"), "new").address != old.address
    assert book.with_suffix(".damaged").exists()


def test_pods_reach_the_world_under_their_node_s_address(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    world = _namespace(stack, "world")
    _link(host.namespace, world, "192.0.2.1/24", "192.0.2.9/24")
    # As Docker leaves it.
    host.namespace.sh("iptables-nft -P FORWARD DROP")
    host.set_up()
    pod = _namespace(stack, "pod")
    host.attach(pod, "uid")
    _serve(stack, world, "world")
    assert ask(pod, "192.0.2.9", PORT) == ("world", "192.0.2.1")


def test_pods_reach_each_other_across_hosts_on_one_link(stack: ExitStack, tmp_path: Path) -> None:
    one, two = Host(stack, tmp_path, 1), Host(stack, tmp_path, 2)
    _link(one.namespace, two.namespace, "192.0.2.1/24", "192.0.2.2/24")
    pods = _two_connected_hosts(stack, one, two, ("192.0.2.1", "192.0.2.2"))
    assert "trireme.vxlan" not in one.namespace.sh("ip -br link")
    _assert_connected(stack, one, two, pods)


def test_pods_reach_each_other_across_hosts_behind_a_router(stack: ExitStack, tmp_path: Path) -> None:
    one, two = Host(stack, tmp_path, 1), Host(stack, tmp_path, 2)
    router = _namespace(stack, "router")
    _link(router, one.namespace, "192.0.2.254/24", "192.0.2.1/24", "left")
    _link(router, two.namespace, "198.51.100.254/24", "198.51.100.2/24", "right")
    router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
    one.namespace.sh("ip route add default via 192.0.2.254")
    two.namespace.sh("ip route add default via 198.51.100.254")
    pods = _two_connected_hosts(stack, one, two, ("192.0.2.1", "198.51.100.2"))
    assert "trireme.vxlan" in one.namespace.sh("ip -br link")
    _assert_connected(stack, one, two, pods)

    routes = _routes(one, "192.0.2.1")
    gone = [Peer("node1", "192.0.2.1", one.pod_cidr)]
    assert one.namespace.run(lambda: routes.update(gone)) == 1
    assert two.pod_cidr not in one.namespace.sh("ip route")
    assert "198.51.100.2" not in one.namespace.sh("bridge fdb show dev trireme.vxlan")
    one.namespace.run(routes.clean_up)
    assert "trireme.vxlan" not in one.namespace.sh("ip -br link")


def test_a_tunnel_damaged_by_hand_is_made_again(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    world = _namespace(stack, "world")
    _link(host.namespace, world, "192.0.2.1/24", "192.0.2.254/24")
    host.namespace.sh("ip route add default via 192.0.2.254")
    host.set_up()
    routes = _routes(host, "192.0.2.1")
    peers = [Peer("node2", "198.51.100.2", "10.244.2.0/24"), Peer("node3", "192.0.2.3", "10.244.3.0/24")]
    assert host.namespace.run(lambda: routes.update(peers)) == 2
    assert host.namespace.run(lambda: routes.update(peers)) == 0
    host.namespace.sh("ip neigh del 10.244.2.1 dev trireme.vxlan")
    host.namespace.sh("ip route del 10.244.3.0/24")
    assert host.namespace.run(lambda: routes.update(peers)) >= 2
    assert host.namespace.run(lambda: routes.update(peers)) == 0
    assert "0a:54:c6:33:64:02" in host.namespace.sh("ip neigh show dev trireme.vxlan")


def test_unchanged_peers_are_not_looked_at_until_it_is_time(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.namespace.sh("ip link add eth0 type bridge; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up")
    now = [0.0]
    routes = Routes(
        own_name="node1", own_address="192.0.2.1", source_address="10.244.1.1", repair_s=30, clock=lambda: now[0]
    )
    peers = [Peer("node2", "192.0.2.2", "10.244.2.0/24")]
    assert host.namespace.run(lambda: routes.update(peers)) == 1
    host.namespace.sh("ip route del 10.244.2.0/24")
    assert host.namespace.run(lambda: routes.update(peers)) == 0
    more = [*peers, Peer("node3", "192.0.2.3", "10.244.3.0/24")]
    assert host.namespace.run(lambda: routes.update(more)) == 2, "a changed peer is seen to at once"
    host.namespace.sh("ip route del 10.244.2.0/24")
    now[0] = 30
    assert host.namespace.run(lambda: routes.update(more)) == 1


def test_clean_up_leaves_nothing(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    host.attach(_namespace(stack, "pod"), "uid")
    host.namespace.run(lambda: add_local_address("10.96.0.10"))
    host.namespace.run(lambda: add_local_address("10.96.0.10"))
    assert "10.96.0.10/32" in host.namespace.sh("ip -4 addr show trireme-dns")

    host.namespace.run(host.network.clean_up)
    host.namespace.run(remove_local_address)
    host.namespace.run(remove_local_address)

    assert host.namespace.sh("ip -o link").count("\n") == 1, "only the loopback is left"
    assert "TRIREME" not in host.namespace.sh("iptables-nft-save")


def test_the_firewall_is_repaired_after_a_flush(stack: ExitStack, tmp_path: Path) -> None:
    host = Host(stack, tmp_path, 1)
    host.set_up()
    ensure = host.network.ensure_firewall
    assert not host.namespace.call(ensure)
    before = _rules(host.namespace)
    host.namespace.sh("iptables-nft -t nat -F; iptables-nft -F; iptables-nft -X")
    assert host.namespace.call(ensure)
    assert _rules(host.namespace) == before


def _rules(namespace: Namespace) -> list[str]:
    saved = namespace.sh("iptables-nft-save -t nat; iptables-nft-save -t filter")
    return sorted(line for line in saved.splitlines() if line.startswith("-A"))


def _routes(host: Host, address: str) -> Routes:
    gateway = host.pod_cidr.replace("0/24", "1")
    return Routes(own_name=host.name, own_address=address, source_address=gateway, repair_s=0)


def _two_connected_hosts(
    stack: ExitStack, one: Host, two: Host, addresses: tuple[str, str]
) -> tuple[Namespace, Namespace]:
    hosts = (one, two)
    peers = [Peer(h.name, a, h.pod_cidr) for h, a in zip(hosts, addresses, strict=True)]
    pods = (_namespace(stack, "pod1"), _namespace(stack, "pod2"))
    for host, address, pod in zip(hosts, addresses, pods, strict=True):
        host.set_up()
        host.attach(pod, f"{host.name}-pod")
        routes = _routes(host, address)
        assert host.namespace.run(lambda routes=routes: routes.update(peers)) == 1
        assert host.namespace.run(lambda routes=routes: routes.update(peers)) == 0, "a second time changes nothing"
    return pods


def _assert_connected(stack: ExitStack, one: Host, two: Host, pods: tuple[Namespace, Namespace]) -> None:
    _serve(stack, pods[0], "pod1")
    _serve(stack, pods[1], "pod2")
    assert ask(pods[0], "10.244.2.2", PORT) == ("pod2", "10.244.1.2"), "the pod's own address is seen"
    assert ask(pods[1], "10.244.1.2", PORT) == ("pod1", "10.244.2.2")
    assert ask(one.namespace, "10.244.2.2", PORT)[0] == "pod2"
    assert ask(two.namespace, "10.244.1.2", PORT)[0] == "pod1"
