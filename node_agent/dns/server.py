"""The node-local DNS server: UDP and TCP on the cluster's DNS address.

A question about the cluster is answered at once from the current snapshot, without a task; everything
else is forwarded to the host's resolvers. The snapshot is replaced as a whole by ``publish``.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import NamedTuple

import dnslib
import msgspec

from node_agent.dns import wire
from node_agent.dns.answers import Answer, Record, Snapshot
from node_agent.dns.upstream import Forwarder

log = logging.getLogger(__name__)

ALIAS_HOPS = 8


class ServerLimits(msgspec.Struct, frozen=True):
    """Bounds of the server. tcp_idle_s: between two questions of one connection."""

    tcp_connections: int = 128
    tcp_idle_s: float = 10.0


class Outside(NamedTuple):
    """A question that others must answer. aliases: the way to it that we know, () if the client asked for it."""

    query: dnslib.DNSRecord
    wanted: str
    aliases: tuple[Record, ...]
    snapshot: Snapshot


class DnsServer:
    """Serves one snapshot after another until stopped."""

    def __init__(
        self,
        snapshot: Snapshot,
        forwarder: Forwarder,
        *,
        limits: ServerLimits | None = None,
        shuffler: random.Random | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._forwarder = forwarder
        self._limits = limits or ServerLimits()
        self._random = shuffler or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    def publish(self, snapshot: Snapshot) -> None:
        """Answer from ``snapshot`` from now on."""
        self._snapshot = snapshot

    async def start(self, address: str, port: int = 53) -> int:
        """Listen on UDP and TCP and return the port; 0 lets the system choose one.

        Raises OSError if the address is not on this host or the port is taken.
        """
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._accept, address, port)
        port = int(self._tcp.sockets[0].getsockname()[1])
        try:
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Listener(self), local_addr=(address, port))
        except OSError:
            await self.stop()
            raise
        log.info("DNS server listening address=%s port=%d", address, port)
        return port

    async def stop(self) -> None:
        """Close the sockets and end every task."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def answer_datagram(self, packet: bytes, client: tuple[str, int]) -> None:
        """Answer a question that came over UDP, now or, if it must be forwarded, later."""
        reply = self._answer_here(packet, over_tcp=False)
        if isinstance(reply, bytes):
            self._send(reply, client)
        else:
            # The forwarder refuses at once beyond its limit; so these tasks are bounded as well.
            self._spawn(self._answer_later(packet, reply, client))

    async def answer(self, packet: bytes, *, over_tcp: bool) -> bytes:
        """Return the reply to a question; b"" for what deserves none."""
        reply = self._answer_here(packet, over_tcp=over_tcp)
        return reply if isinstance(reply, bytes) else await self._forward(packet, reply, over_tcp=over_tcp)

    def _answer_here(self, packet: bytes, *, over_tcp: bool) -> bytes | Outside:
        """Answer without waiting, or say what must be asked outside."""
        query = wire.parse_query(packet)
        if query is None:
            return wire.render_failure(packet, None, wire.FORMERR)
        if rcode := wire.refusal_of(query):
            return wire.render_failure(packet, query, rcode)
        name, wanted = wire.question_of(query)
        snapshot = self._snapshot
        aliases: tuple[Record, ...] = ()
        for _ in range(ALIAS_HOPS):
            found = snapshot.answer(name, wanted)
            if found is None:
                return Outside(query, wanted, aliases, snapshot)
            target = _alias_target(found, wanted)
            if target is None:
                records = aliases + self._shuffled(found.records)
                found = msgspec.structs.replace(found, records=records)
                return wire.pack(query, wire.render_answer(query, found, snapshot), over_tcp=over_tcp)
            # Stub resolvers do not follow an alias themselves.
            aliases += found.records
            name = target
        return wire.render_failure(packet, query, wire.SERVFAIL)

    async def _forward(self, packet: bytes, outside: Outside, *, over_tcp: bool) -> bytes:
        if not outside.aliases:
            reply = await self._forwarder.ask(packet, over_tcp=over_tcp)
            return reply if reply is not None else wire.render_failure(packet, outside.query, wire.SERVFAIL)
        target = str(outside.aliases[-1].data)
        found = await self._look_up_outside(target, outside.wanted)
        rcode = wire.SERVFAIL if found is None else found.header.rcode
        reply = wire.render_answer(outside.query, Answer(rcode, outside.aliases), outside.snapshot)
        reply.add_answer(*(found.rr if found else ()))
        return wire.pack(outside.query, reply, over_tcp=over_tcp)

    async def _look_up_outside(self, name: str, wanted: str) -> dnslib.DNSRecord | None:
        question = bytes(dnslib.DNSRecord.question(name, wanted).pack())
        for over_tcp in (False, True):
            packet = await self._forwarder.ask(question, over_tcp=over_tcp)
            reply = None if packet is None else wire.parse_reply(packet)
            if reply is None or not reply.header.tc:
                return reply
        return None

    async def _answer_later(self, packet: bytes, outside: Outside, client: tuple[str, int]) -> None:
        self._send(await self._forward(packet, outside, over_tcp=False), client)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= self._limits.tcp_connections:
            writer.close()
        else:
            self._connections += 1
            self._spawn(self._serve_connection(reader, writer))

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer_stream(reader, writer)
        except (TimeoutError, EOFError, ConnectionError):
            log.debug("TCP client gone")
        finally:
            self._connections -= 1
            writer.close()

    async def _answer_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(self._limits.tcp_idle_s):
                size = int.from_bytes(await reader.readexactly(2), "big")
                packet = await reader.readexactly(size)
            reply = await self.answer(packet, over_tcp=True)
            if not reply:
                return
            writer.write(len(reply).to_bytes(2, "big") + reply)
            async with asyncio.timeout(self._limits.tcp_idle_s):
                await writer.drain()

    def _shuffled(self, records: tuple[Record, ...]) -> tuple[Record, ...]:
        """Another order each time: many clients take the first address."""
        return tuple(self._random.sample(records, len(records)))

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        if reply and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(reply, client)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.error("question not answered", exc_info=failure)


def _alias_target(found: Answer, wanted: str) -> str | None:
    """Return where an answer that is nothing but an alias leads, unless the alias itself was asked for."""
    if wanted in ("CNAME", "ANY") or len(found.records) != 1 or found.records[0].type != "CNAME":
        return None
    return str(found.records[0].data)


class _Listener(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.answer_datagram(data, addr)
