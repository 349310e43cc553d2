"""Node IPAM: every node gets its own part of the pods' network, for as long as it is there."""

import logging
from collections.abc import Iterable
from ipaddress import IPv4Network

from api.errors import NotFound
from api.kinds.core import Node
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context

log = logging.getLogger(__name__)


def pick_range(network: IPv4Network, bits: int, taken: Iterable[str]) -> str | None:
    """Return the lowest part of ``network``, ``bits`` long, that overlaps no ``taken`` one; None if it is full."""
    used = {IPv4Network(each, strict=False) for each in taken}
    wider = [each for each in used if each.prefixlen < bits]
    narrower = {each.supernet(new_prefix=bits) for each in used if each.prefixlen >= bits}
    for part in network.subnets(new_prefix=bits):
        if part not in narrower and not any(part.subnet_of(each) for each in wider):
            return str(part)
    return None


class NodeIpamController:
    """Gives each node its podCIDR, one node at a time."""

    def __init__(self, context: Context) -> None:
        self._network = IPv4Network(context.config.pod_cidr)
        self._bits = context.config.node_cidr_bits
        self._nodes = context.informers.of(Node)
        self._recorder = context.recorder("cidrAllocator")
        self._given: dict[str, str] = {}  # node -> range that the cache may not show yet
        # One worker: two nodes that come at the same moment must not get the same range.
        self.runner = Runner(
            "nodeipam",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._nodes.subscribe(self.runner.queue.add)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Give one node its range; one it has already is never changed."""
        node = self._nodes.get(key)
        if node is None:
            self._given.pop(key, None)
            return None
        if node.spec.pod_cidr:
            self._given.pop(key, None)
            return None
        taken = [each.spec.pod_cidr for each in self._nodes if each.spec.pod_cidr]
        others = [part for name, part in self._given.items() if name != key]
        part = self._given.get(key) or pick_range(self._network, self._bits, [*taken, *others])
        if part is None:
            message = f"Node {key} status is now: CIDRNotAvailable"
            self._recorder.event(node, kind="Normal", reason="CIDRNotAvailable", message=message)
            log.warning("no range left for node=%s in %s", key, self._network)
            return 30.0
        # Remembered before the write: one with unknown outcome may have been carried out.
        self._given[key] = part
        patch = {
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"podCIDR": part, "podCIDRs": [part]},
        }
        try:
            await api.patch(Node, key, patch)
        except NotFound:
            self._given.pop(key, None)
        return None
