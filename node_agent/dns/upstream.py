"""Forwards questions about the rest of the world to the resolvers that the host itself uses.

A question is passed on as it came, with another id; the answer goes back as it came. Every wait and
the number of questions under way are bounded.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import msgspec

from node_agent.dns.resolv_conf import parse_resolv_conf

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
REREAD_S = 5.0


class ForwardLimits(msgspec.Struct, frozen=True):
    """Bounds of forwarding. try_s: wait for one resolver; rounds: times the whole list is tried."""

    try_s: float = 2.0
    rounds: int = 2
    under_way: int = 256


class HostResolvers:
    """The nameservers of the host's ``resolv.conf``, read again when it changed.

    own_addresses: where we listen ourselves; asking there would ask in a circle.
    """

    def __init__(
        self,
        own_addresses: Collection[str],
        path: Path = RESOLV_CONF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = frozenset(own_addresses)
        self._path = path
        self._clock = clock
        self._read_at = float("-inf")
        self._servers: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        """Return the addresses to ask, in order."""
        if self._clock() - self._read_at >= REREAD_S:
            self._read_at = self._clock()
            try:
                text = self._path.read_text()
            except OSError as exc:
                log.warning("resolv.conf not readable path=%s error=%s", self._path, exc.strerror)
                text = ""
            self._servers = tuple(n for n in parse_resolv_conf(text).nameservers if n not in self._own)
        return self._servers


class Forwarder:
    """Asks upstream resolvers."""

    def __init__(
        self,
        servers: Callable[[], tuple[str, ...]],
        *,
        port: int = 53,
        limits: ForwardLimits | None = None,
    ) -> None:
        self._servers = servers
        self._port = port
        self._limits = limits or ForwardLimits()
        self._under_way = 0

    async def ask(self, query: bytes, *, over_tcp: bool) -> bytes | None:
        """Return the answer to a wire-format question, with its id; None if nobody answers in time.

        None at once when too many questions are under way: a flood must not starve everyone.
        """
        if self._under_way >= self._limits.under_way:
            log.warning("question not forwarded, too many under way limit=%d", self._limits.under_way)
            return None
        self._under_way += 1
        try:
            for server in self._servers() * self._limits.rounds:
                answer = await self._ask_one(server, query, over_tcp=over_tcp)
                if answer is not None:
                    return answer
            return None
        finally:
            self._under_way -= 1

    async def _ask_one(self, server: str, query: bytes, *, over_tcp: bool) -> bytes | None:
        disguised = secrets.token_bytes(2) + query[2:]
        exchange = _ask_tcp if over_tcp else _ask_udp
        try:
            answer = await asyncio.wait_for(exchange(server, self._port, disguised), self._limits.try_s)
        except (OSError, TimeoutError, EOFError) as exc:
            log.debug("resolver does not answer server=%s error=%r", server, exc)
            return None
        return query[:2] + answer[2:]


def answers(query: bytes, reply: bytes) -> bool:
    """Whether ``reply`` answers ``query``: same id, and the same question without regard to case."""
    question = query[12 : _end_of_question(query)]
    return (
        len(reply) >= 12
        and reply[:2] == query[:2]
        and bool(reply[2] & 0x80)
        and reply[12 : 12 + len(question)].lower() == question.lower()
    )


def _end_of_question(query: bytes) -> int:
    at = 12
    while at < len(query) and query[at]:
        at += query[at] + 1
    return at + 5  # the root's length byte, type, class


class _Exchange(asyncio.DatagramProtocol):
    """One question and its answer over UDP."""

    def __init__(self, query: bytes, answer: "asyncio.Future[bytes]") -> None:
        self._query = query
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask as soon as the socket is there."""
        cast("asyncio.DatagramTransport", transport).sendto(self._query)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take the answer; anything else that comes to this port is somebody's guess."""
        del addr
        if not self._answer.done() and answers(self._query, data):
            self._answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """Give up on a resolver whose host refuses."""
        if not self._answer.done():
            self._answer.set_exception(exc)


async def _ask_udp(server: str, port: int, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Exchange(query, answer), remote_addr=(server, port))
    try:
        return await answer
    finally:
        transport.close()


async def _ask_tcp(server: str, port: int, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = await reader.readexactly(size)
        if not answers(query, reply):
            raise EOFError("the reply is for another question")
        return reply
    finally:
        writer.close()
