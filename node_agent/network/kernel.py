"""The thin edge to the kernel: netlink sockets, other network namespaces, sysctls.

A network namespace belongs to a thread, not to a process. Work inside another namespace therefore
runs in a thread of its own that enters it and ends there: no thread has to find its way back.

The netlink library runs event loops of its own in the calling thread, made by the default policy. uvloop's
loops take no netlink socket, so a program may use ``uvloop.run`` but must not install uvloop as the policy.
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netns import setns

from node_agent.errors import KernelRefused

__all__ = ["NetlinkError"]  # handlers elsewhere need it, the library is imported here only
NO_SUCH_DEVICE = errno.ENODEV
NO_SUCH_ENTRY = errno.ENOENT
EXISTS = errno.EEXIST

Namespace = int | str
"""A network namespace: the id of a process in it, or the path of a namespace file."""

Socket = Any
"""A netlink socket; the library has no types."""

T = TypeVar("T")

# At debug level the library prints every netlink message, kilobytes each.
logging.getLogger("pyroute2").setLevel(logging.INFO)


def namespace_path(namespace: Namespace) -> str:
    """Return the file that names the network namespace."""
    return f"/proc/{namespace}/ns/net" if isinstance(namespace, int) else namespace


@contextmanager
def namespace_file(namespace: Namespace) -> Iterator[int]:
    """Hold the namespace open; it cannot vanish while the descriptor lives.

    Raises KernelRefused if there is none, as when the sandbox ended meanwhile.
    """
    path = namespace_path(namespace)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise KernelRefused(f"no network namespace at {path}: {exc.strerror}") from exc
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def netlink(what: str) -> Iterator[Any]:
    """Open a route netlink socket in the calling thread's namespace; ``what`` names the work in errors."""
    try:
        with IPRoute() as socket:
            yield socket
    except NetlinkError as exc:
        raise KernelRefused(f"{what}: {exc}") from exc


def run_inside(descriptor: int, work: Callable[[], T]) -> T:
    """Run ``work`` in the network namespace of an open namespace file and return its result."""
    results: list[T] = []
    failures: list[BaseException] = []

    def enter_and_work() -> None:
        try:
            setns(descriptor)
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 - carried to the waiting thread, raised there
            failures.append(exc)

    thread = threading.Thread(target=enter_and_work, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def link_index(socket: Any, name: str) -> int | None:
    """Return the index of the interface called ``name``, or None."""
    found = socket.link_lookup(ifname=name)
    return int(found[0]) if found else None


def write_sysctl(key: str, value: str) -> bool:
    """Set ``key`` (slashes, as in net/ipv4/ip_forward) unless it has that value; False if the kernel lacks it.

    Raises KernelRefused when it exists and cannot be set.
    """
    path = Path("/proc/sys") / key
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise KernelRefused(f"sysctl {key}={value}: {exc.strerror}") from exc
    return True


def uplink_mtu(default: int = 1500) -> int:
    """Return the MTU of the interface that the default route leaves by."""
    with netlink("find the uplink") as socket:
        for route in socket.get_default_routes():
            index = route.get("oif")
            if index:
                return int(socket.get_links(index)[0].get("mtu") or default)
    return default
