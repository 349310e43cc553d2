"""What all connections of a server share."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from .calls import CallFailed, Status
from .serving import Method, ServerConfig
from .visits import Web


class Guest(Protocol):
    """A connection, as its server treats it; see ``peer``."""

    def drain(self) -> None:
        """Let the client know that it should go elsewhere, and finish what it has begun."""

    def abandon(self) -> list[asyncio.Task[None]]:
        """End every call with UNAVAILABLE; return the tasks that are ending."""

    def hang_up(self) -> None:
        """Close the connection once everything is written."""

    def cut(self) -> None:
        """Close the connection at once."""

    def check_alive(self, keepalive_s: float, timeout_s: float, *, every_s: float) -> None:
        """Ask a silent client for a sign of life, or give it up; called every ``every_s``."""


class Hosting:
    """One server's methods and connections."""

    def __init__(
        self,
        methods: dict[str, Method],
        config: ServerConfig,
        on_end: Callable[[str, Status, int], None] | None,
        other_protocol: Callable[[], asyncio.Protocol] | None,
        web: Web | None,
    ) -> None:
        self.methods = methods
        self.config = config
        self.on_end = on_end
        self.other_protocol = other_protocol
        self.web = web
        self.peers: set[Guest] = set()
        self.deserted = asyncio.Event()  # no connection is open
        self.deserted.set()
        self._services = {path.rpartition("/")[0] for path in methods}

    def arrived(self, peer: Guest) -> None:
        """Note a connection."""
        self.peers.add(peer)
        self.deserted.clear()

    def left(self, peer: Guest) -> None:
        """Forget one."""
        self.peers.discard(peer)
        if not self.peers:
            self.deserted.set()

    def unknown(self, path: str) -> CallFailed:
        """Return how a call of a method that does not exist ends."""
        service, _, method = path.rpartition("/")
        if service in self._services:
            return CallFailed(Status.UNIMPLEMENTED, f"unknown method {method} for service {service[1:]}")
        return CallFailed(Status.UNIMPLEMENTED, f"unknown service {service[1:]}")
