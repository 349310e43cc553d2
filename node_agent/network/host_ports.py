"""Ports of the node that lead to pods, as rules: pure.

What comes to one of the node's own addresses, or is sent to it by a process of the node, goes on to the pod. Two
senders would not understand the pod's answer and take the node's address: the node's loopback, and the pod itself.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from node_agent.proxy.conntrack import Flow
from node_agent.proxy.ruleset import ChainId, Jump, Ruleset

DISPATCH = ChainId("nat", "TRIREME-HOSTPORTS")
MASQUERADE = ChainId("nat", "TRIREME-HOSTPORTS-MASQ")
_LOOPBACK = "127.0.0.0/8"
_ANY = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - how pods say so
_PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})


class HostPort(msgspec.Struct, frozen=True):
    """A port of the node that leads to a pod. address: the node's address that it is open at, "" for all."""

    port: int
    pod_port: int
    protocol: str = "TCP"
    address: str = ""


OpenPorts = Mapping[str, Sequence[HostPort]]
"""Pod address -> the node's ports that lead there."""


def with_host_ports(rules: Ruleset, open_ports: OpenPorts) -> Ruleset:
    """Return ``rules`` with the chains that lead to these ports and no others.

    Both chains are there, and not empty, without any port too: an empty one looks like one that was flushed.
    """
    pods = sorted(address for address, ports in open_ports.items() if ports)
    chains = {
        DISPATCH: (*(_forward(pod, each) for pod in pods for each in _served(open_ports[pod])), "-j RETURN"),
        MASQUERADE: (*(f"-s {pod}/32 -d {pod}/32 -j MASQUERADE" for pod in pods), f"-s {_LOOPBACK} -j MASQUERADE"),
    }
    ways_in = (
        # A neighbour on the link can address 127.0.0.1, which nobody opened to him.
        Jump("nat", "PREROUTING", DISPATCH.name, f"! -d {_LOOPBACK} -m addrtype --dst-type LOCAL"),
        Jump("nat", "OUTPUT", DISPATCH.name, "-m addrtype --dst-type LOCAL"),
        # What the loopback sends to itself stays as it is.
        Jump("nat", "POSTROUTING", MASQUERADE.name, "-m addrtype ! --dst-type LOCAL"),
    )
    kept = tuple(jump for jump in rules.jumps if jump not in ways_in)
    return msgspec.structs.replace(rules, chains={**rules.chains, **chains}, jumps=(*kept, *ways_in))


def _served(ports: Iterable[HostPort]) -> list[HostPort]:
    """Return the ports at addresses of the family that pods have.

    Nobody before us has looked whether a pod's ``hostIP`` is an address: any other text would stand in the rules.
    """
    return [each for each in ports if each.protocol.upper() in _PROTOCOLS and _is_address(each.address)]


def _is_address(text: str) -> bool:
    if text in _ANY:
        return True
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _forward(pod: str, each: HostPort) -> str:
    protocol = each.protocol.lower()
    where = "" if each.address in _ANY else f"-d {each.address}/32 "
    match = f"{where}-p {protocol} -m {protocol} --dport {each.port}"
    return f"{match} -j DNAT --to-destination {pod}:{each.pod_port}"


def stale_flows(before: OpenPorts, after: OpenPorts) -> frozenset[Flow]:
    """Return the UDP flows that would go on as if the ports were still what they were ``before``."""
    old, new = _flows(before), _flows(after)
    opened = {Flow(flow.front, flow.front_port, "", 0) for flow in new - old}
    return frozenset((old - new) | opened)


def _flows(open_ports: OpenPorts) -> set[Flow]:
    return {
        Flow("" if each.address in _ANY else each.address, each.port, pod, each.pod_port)
        for pod, ports in open_ports.items()
        for each in _served(ports)
        if each.protocol.upper() == "UDP"
    }
