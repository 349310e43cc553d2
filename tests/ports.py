"""Ports for what a test starts, stops and starts again at the same address."""

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 10_000


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at, below those that the kernel gives to outgoing connections.

    Of the others one may be taken while its owner is down: by anybody on the machine, and by whoever dials it again and
    again, for then the kernel will come to dial from that very port, connect it to itself, and keep its owner out.
    """
    below = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    assert below > LOWEST + 1000, f"outgoing connections begin at {below}: no ports are left for tests"
    chance = random.SystemRandom()  # workers that run side by side must not draw alike
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = chance.randrange(LOWEST, below)
            taken = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                taken.bind(("127.0.0.1", port))
                ports.append(port)
        return ports
