"""From the API's objects to what the network is made of: nodes to peers, pods to ports of the node."""

from collections.abc import Iterable

from api.kinds.core import Node
from api.kinds.pods import PodSpec
from node_agent.network.host_ports import HostPort
from node_agent.network.routes import Peer


def peers_of(nodes: Iterable[Node]) -> tuple[Peer, ...]:
    """Return the nodes that can be reached already: those with a pod CIDR and an internal address."""
    peers = []
    for node in nodes:
        address = next((a.address for a in node.status.addresses if a.type == "InternalIP"), "")
        if address and node.spec.pod_cidr:
            peers.append(Peer(node.metadata.name, address, node.spec.pod_cidr))
    return tuple(peers)


def host_ports_of(spec: PodSpec) -> tuple[HostPort, ...]:
    """Return the node's ports that shall lead to the pod; in the host's network it opens them itself."""
    if spec.host_network:
        return ()
    return tuple(
        HostPort(port.host_port, port.container_port, port.protocol or "TCP", port.host_ip)
        for container in (*spec.init_containers, *spec.containers)
        for port in container.ports
        if port.host_port
    )
