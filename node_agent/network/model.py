"""From the API's Node objects to the peers that routes are made for."""

from collections.abc import Iterable

from api.kinds.core import Node
from node_agent.network.routes import Peer


def peers_of(nodes: Iterable[Node]) -> tuple[Peer, ...]:
    """Return the nodes that can be reached already: those with a pod CIDR and an internal address."""
    peers = []
    for node in nodes:
        address = next((a.address for a in node.status.addresses if a.type == "InternalIP"), "")
        if address and node.spec.pod_cidr:
            peers.append(Peer(node.metadata.name, address, node.spec.pod_cidr))
    return tuple(peers)
