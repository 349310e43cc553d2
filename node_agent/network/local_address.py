"""An address that only this node has, on an interface of its own: where the cluster DNS listens."""

import asyncio
import errno
import logging

from node_agent.network import kernel

log = logging.getLogger(__name__)

DNS_LINK = "trireme-dns"

# A dummy interface is what this is for; some small kernels lack it, and a bridge without ports does as well.
KINDS = ("dummy", "bridge")


async def add_local_address(address: str, name: str = DNS_LINK) -> None:
    """Make the interface with the address, unless it is there. Raises KernelRefused."""
    await asyncio.to_thread(_add, address, name)


async def remove_local_address(name: str = DNS_LINK) -> None:
    """Remove the interface; no error if it is not there."""
    await asyncio.to_thread(_remove, name)


def _add(address: str, name: str) -> None:
    with kernel.netlink(f"put {address} on {name}") as socket:
        index = kernel.link_index(socket, name)
        if index is None:
            _make_link(socket, name)
            index = kernel.link_index(socket, name)
        socket.link("set", index=index, state="up")
        present = {a.get("address") for a in socket.get_addr(index=index, family=2)}
        if address not in present:
            socket.addr("add", index=index, address=address, prefixlen=32)


def _make_link(socket: kernel.Socket, name: str) -> None:
    for kind in KINDS:
        try:
            socket.link("add", ifname=name, kind=kind)
        except kernel.NetlinkError as exc:
            if exc.code != errno.EOPNOTSUPP or kind == KINDS[-1]:
                raise
        else:
            log.info("local interface created name=%s kind=%s", name, kind)
            return


def _remove(name: str) -> None:
    with kernel.netlink(f"remove {name}") as socket:
        index = kernel.link_index(socket, name)
        if index is not None:
            socket.link("del", index=index)
