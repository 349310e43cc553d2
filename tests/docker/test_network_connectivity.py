"""The whole of a node's network at once, and a real container in it."""

import asyncio
import io
import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import dnslib
import pytest

from api.kinds.core import Node, NodeAddress, NodeSpec, NodeStatus, Service, ServicePort, ServiceSpec
from api.meta import ObjectMeta
from node_agent.dns.answers import Snapshot, Zone
from node_agent.dns.model import dns_services
from node_agent.dns.server import DnsServer
from node_agent.dns.upstream import Forwarder
from node_agent.network.local_address import add_local_address, remove_local_address
from node_agent.network.masquerade import PodFirewall, render_pod_rules
from node_agent.network.model import peers_of
from node_agent.network.plumbing import PodNetwork
from node_agent.network.routes import Routes
from node_agent.proxy.iptables import Iptables
from node_agent.proxy.model import Backend, BackendPort, Key, service_ports
from node_agent.proxy.proxy import ServiceProxy
from node_agent.proxy.rules import ProxyConfig
from tests.docker.namespaces import EchoServer, Namespace, Place, ask

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

DNS = "10.96.0.10"
POD_CIDR = "10.244.1.0/24"
CLUSTER = "10.244.0.0/16"
WEB = Service(
    metadata=ObjectMeta(namespace="default", name="web"),
    spec=ServiceSpec(type="ClusterIP", cluster_ip="10.96.0.20", ports=(ServicePort(name="http", port=80),)),
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.fixture
def image() -> Iterator[str]:
    """An image of our own with nothing but a static busybox."""
    busybox = shutil.which("busybox")
    assert busybox, "this test needs the package busybox-static"
    name = f"trireme-test-network:{os.getpid()}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
    _docker("import", "-", name, stdin=archive.getvalue())
    yield name
    _docker("rmi", name)


def _docker(*args: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["docker", *args], input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def _namespace(stack: ExitStack, name: str) -> Namespace:
    made = Namespace(name)
    stack.callback(made.close)
    return made


class NodeNetwork:
    """The parts as a node agent puts them together."""

    def __init__(self, data_dir: Path) -> None:
        iptables = Iptables("nft")
        rules = render_pod_rules(pod_cidr=POD_CIDR, cluster_cidr=CLUSTER, service_cidr="10.96.0.0/16")
        firewall = PodFirewall(iptables, rules)
        self.pods = PodNetwork(data_dir=data_dir, pod_cidr=POD_CIDR, firewall=firewall)
        self.routes = Routes(own_name="node1", own_address="192.0.2.1", source_address="10.244.1.1")
        config = ProxyConfig("node1", CLUSTER, frozenset({DNS}))
        self.proxy = ServiceProxy(config, iptables, on_look=firewall.ensure)
        self._zone = Zone("cluster.local", DNS)
        self._dns = DnsServer(Snapshot(self._zone), Forwarder(lambda: ()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.pods.set_up()
        await add_local_address(DNS)
        await self._dns.start(DNS)
        watching = asyncio.create_task(self.proxy.run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._dns.stop()

    async def use(self, services: list[Service], backends: Mapping[Key, tuple[Backend, ...]]) -> None:
        self._dns.publish(Snapshot(self._zone, dns_services(services, backends)))
        await self.proxy.wait_synced(self.proxy.update(service_ports(services, backends)))

    async def clean_up(self) -> None:
        await self.proxy.clean_up()
        await self.routes.clean_up()
        await remove_local_address()
        await self.pods.clean_up()


def _node(name: str, address: str, pod_cidr: str) -> Node:
    return Node(
        metadata=ObjectMeta(name=name),
        spec=NodeSpec(pod_cidr=pod_cidr),
        status=NodeStatus(addresses=(NodeAddress(type="InternalIP", address=address),)),
    )


def _resolve(pod: Namespace, name: str) -> str:
    with pod.socket(socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(bytes(dnslib.DNSRecord.question(name).pack()), (DNS, 53))
        return str(dnslib.DNSRecord.parse(client.recv(2048)).short())


def test_a_pod_finds_a_service_by_name_and_reaches_it(stack: ExitStack, tmp_path: Path) -> None:
    host, lan = _namespace(stack, "host"), _namespace(stack, "lan")
    host.sh(f"ip link add eth0 type veth peer name eth0 netns {lan.name}")
    host.sh("ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.254")
    lan.sh("ip addr add 192.0.2.254/24 dev eth0; ip link set eth0 up")
    client, server = _namespace(stack, "client"), _namespace(stack, "server")
    stack.callback(EchoServer(server, "web", 8080).close)
    network = NodeNetwork(tmp_path)

    async def main() -> None:
        async with network.running():
            mine = await network.pods.attach(client.path, "client")
            backend = Backend(
                (await network.pods.attach(server.path, "server")).address, (BackendPort("http", "TCP", 8080),)
            )
            await network.use([WEB], {("default", "web"): (backend,)})
            nodes = [_node("node1", "192.0.2.1", "10.244.1.0/24"), _node("node2", "192.0.2.2", "10.244.2.0/24")]
            await network.routes.update(peers_of(nodes))
            found = await asyncio.to_thread(_resolve, client, "web.default.svc.cluster.local")
            assert found == "10.96.0.20"
            assert ask(client, "10.96.0.20", 80) == ("web", mine.address)
            assert "10.244.2.0/24 via 192.0.2.2" in host.sh("ip route")
        # The agent is gone for a moment: what was connected stays so.
        assert ask(client, "10.96.0.20", 80)[0] == "web"
        await network.clean_up()

    host.run(main)
    saved = host.sh("iptables-nft-save -t nat; iptables-nft-save -t filter")
    assert "KUBE" not in saved
    assert "TRIREME" not in saved
    links = host.sh("ip -br link")
    assert "tri" not in links
    assert "10.244" not in host.sh("ip route")


def test_a_real_container_is_plugged_in(image: str, stack: ExitStack, tmp_path: Path) -> None:
    name = f"trireme-test-{os.getpid()}-sandbox"
    _docker("run", "-d", "--network", "none", "--name", name, image, "/bin/busybox", "sleep", "60")
    stack.callback(_docker, "rm", "-f", name)
    pid = int(_docker("inspect", "-f", "{{.State.Pid}}", name))
    sandbox = Place(f"/proc/{pid}/ns/net")
    stack.callback(sandbox.close)
    stack.callback(EchoServer(sandbox, "container", 8080).close)
    host, client = _namespace(stack, "host"), _namespace(stack, "client")
    network = NodeNetwork(tmp_path)

    async def main() -> None:
        async with network.running():
            mine = await network.pods.attach(client.path, "client")
            plugged = await network.pods.attach(pid, "sandbox")
            assert ask(client, plugged.address, 8080) == ("container", mine.address)
            _docker("kill", name)
            # Whether the kernel has taken the pair away with the sandbox already or not.
            await network.pods.detach("sandbox")
            assert network.pods.address_of("sandbox") is None
        await network.clean_up()

    host.run(main)
