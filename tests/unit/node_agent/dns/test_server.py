"""The server over real sockets on the loopback, with a resolver of ours as the world outside."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.dns import upstream, wire
from node_agent.dns.answers import DnsEndpoint, DnsService, Snapshot, Zone
from node_agent.dns.server import DnsServer, ServerLimits
from node_agent.dns.upstream import Forwarder, ForwardLimits, HostResolvers, answers

ZONE = Zone("cluster.local", "10.96.0.10", ("10.96.0.0/16",))
BIG = DnsService("default", "big", endpoints=tuple(DnsEndpoint(f"10.244.1.{n}") for n in range(1, 101)))
SNAPSHOT = Snapshot(
    ZONE,
    [
        DnsService("default", "web", ("10.96.0.20",)),
        BIG,
        DnsService("default", "ext", external_name="example.com"),
        DnsService("default", "inner", external_name="web.default.svc.cluster.local"),
        DnsService("default", "round", external_name="round.default.svc.cluster.local"),
    ],
)
QUICK = ForwardLimits(try_s=0.2, rounds=1, under_way=4)

Behaviour = Callable[[dnslib.DNSRecord], dnslib.DNSRecord | None]


def world(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
    reply = query.reply()
    reply.add_answer(*dnslib.RR.fromZone(f"{query.q.qname} 60 A 198.51.100.7"))
    return reply


class Resolver(asyncio.DatagramProtocol):
    """The world outside, over UDP and TCP on one port."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked = 0
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        if (reply := self.behave(dnslib.DNSRecord.parse(data))) is not None:
            self.transport.sendto(bytes(reply.pack()), addr)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = dnslib.DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
        self.asked += 1
        packed = bytes(world(query).pack())
        writer.write(len(packed).to_bytes(2, "big") + packed)


@asynccontextmanager
async def resolver(behave: Behaviour) -> AsyncIterator[tuple[Resolver, int]]:
    loop = asyncio.get_running_loop()
    made = Resolver(behave)
    tcp = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    udp, _ = await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", port))
    try:
        yield made, port
    finally:
        udp.close()
        tcp.close()


@asynccontextmanager
async def serving(
    behave: Behaviour = world, limits: ServerLimits | None = None, servers: tuple[str, ...] = ("127.0.0.1",)
) -> AsyncIterator[tuple[DnsServer, int, Resolver]]:
    async with resolver(behave) as (outside, outside_port):
        forwarder = Forwarder(lambda: servers, port=outside_port, limits=QUICK)
        server = DnsServer(SNAPSHOT, forwarder, limits=limits, shuffler=random.Random(1))
        port = await server.start("127.0.0.1", 0)
        try:
            yield server, port, outside
        finally:
            await server.stop()


async def ask_raw(port: int, packet: bytes, timeout_s: float = 3) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, packet)
        return await asyncio.wait_for(loop.sock_recv(client, 65535), timeout_s)


async def ask(port: int, name: str, kind: str = "A", edns: int = 0) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    if edns:
        query.add_ar(dnslib.EDNS0(udp_len=edns))
    reply = dnslib.DNSRecord.parse(await ask_raw(port, bytes(query.pack())))
    assert reply.header.id == query.header.id
    return reply


async def ask_tcp(port: int, *packets: bytes) -> list[bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for packet in packets:
            writer.write(len(packet).to_bytes(2, "big") + packet)
        return [await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")) for _ in packets]
    finally:
        writer.close()


def addresses(reply: dnslib.DNSRecord) -> list[str]:
    return [str(rr.rdata) for rr in reply.rr if rr.rtype == dnslib.QTYPE.A]


async def test_cluster_names_are_answered_here_and_others_outside() -> None:
    async with serving() as (_, port, outside):
        inside = await ask(port, "web.default.svc.cluster.local")
        assert (addresses(inside), inside.header.aa, inside.header.ra) == (["10.96.0.20"], 1, 1)
        assert outside.asked == 0
        assert addresses(await ask(port, "example.com")) == ["198.51.100.7"]
        assert outside.asked == 1


async def test_negative_answers_carry_the_soa() -> None:
    async with serving() as (_, port, _outside):
        for name, rcode in (("no.default.svc.cluster.local", "NXDOMAIN"), ("default.svc.cluster.local", "NOERROR")):
            reply = await ask(port, name)
            assert dnslib.RCODE[reply.header.rcode] == rcode
            assert [rr.rtype for rr in reply.auth] == [dnslib.QTYPE.SOA]


async def test_a_new_snapshot_replaces_the_old_one() -> None:
    async with serving() as (server, port, _outside):
        server.publish(Snapshot(ZONE, [DnsService("default", "web", ("10.96.0.99",))]))
        assert addresses(await ask(port, "web.default.svc.cluster.local")) == ["10.96.0.99"]
        assert (await ask(port, "big.default.svc.cluster.local")).header.rcode == dnslib.RCODE.NXDOMAIN


async def test_too_large_an_answer_is_cut_over_udp_and_whole_over_tcp() -> None:
    name = "big.default.svc.cluster.local"
    async with serving() as (_, port, _outside):
        for edns in (0, 1232, 65535):
            reply = await ask(port, name, edns=edns)
            assert (reply.header.tc, reply.rr) == (1, [])
        packet = bytes(dnslib.DNSRecord.question(name).pack())
        whole = dnslib.DNSRecord.parse((await ask_tcp(port, packet))[0])
        assert len(addresses(whole)) == 100


async def test_edns_lets_a_larger_answer_through() -> None:
    thirty = DnsService("default", "big", endpoints=BIG.endpoints[:30])
    async with serving() as (server, port, _outside):
        server.publish(Snapshot(ZONE, [thirty]))
        assert (await ask(port, "big.default.svc.cluster.local")).header.tc == 1
        reply = await ask(port, "big.default.svc.cluster.local", edns=4096)
        assert len(addresses(reply)) == 30
        assert [rr.rtype for rr in reply.ar] == [dnslib.QTYPE.OPT]


async def test_addresses_come_in_another_order_each_time() -> None:
    few = DnsService("default", "few", endpoints=BIG.endpoints[:4])
    async with serving() as (server, port, _outside):
        server.publish(Snapshot(ZONE, [few]))
        first = {addresses(await ask(port, "few.default.svc.cluster.local"))[0] for _ in range(40)}
    assert len(first) == 4


async def test_external_names_are_followed_inside_and_outside() -> None:
    async with serving() as (_, port, outside):
        reply = await ask(port, "inner.default.svc.cluster.local")
        assert [rr.rtype for rr in reply.rr] == [dnslib.QTYPE.CNAME, dnslib.QTYPE.A]
        assert addresses(reply) == ["10.96.0.20"]
        assert outside.asked == 0
        reply = await ask(port, "ext.default.svc.cluster.local")
        assert [rr.rtype for rr in reply.rr] == [dnslib.QTYPE.CNAME, dnslib.QTYPE.A]
        assert addresses(reply) == ["198.51.100.7"]


async def test_an_external_name_that_leads_to_itself_ends() -> None:
    async with serving() as (_, port, _outside):
        reply = await ask(port, "round.default.svc.cluster.local")
        assert reply.header.rcode == dnslib.RCODE.SERVFAIL


async def test_an_external_name_whose_answer_was_cut_is_asked_for_over_tcp() -> None:
    def cut(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
        reply = query.reply()
        reply.header.tc = 1
        return reply

    async with serving(cut) as (_, port, _outside):
        assert addresses(await ask(port, "ext.default.svc.cluster.local")) == ["198.51.100.7"]


async def test_a_silent_or_absent_resolver_means_servfail() -> None:
    async with serving(lambda _: None) as (_, port, outside):
        assert (await ask(port, "example.com")).header.rcode == dnslib.RCODE.SERVFAIL
        assert outside.asked == 1
        reply = await ask(port, "ext.default.svc.cluster.local")
        assert reply.header.rcode == dnslib.RCODE.SERVFAIL
    async with serving(servers=()) as (_, port, _outside):
        assert (await ask(port, "example.com")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_the_next_resolver_is_asked() -> None:
    async with serving(servers=("127.0.0.77", "127.0.0.1")) as (_, port, _outside):
        assert addresses(await ask(port, "example.com")) == ["198.51.100.7"]


async def test_forged_answers_are_ignored() -> None:
    def forge(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
        other = dnslib.DNSRecord.question("other.example")
        other.header.id = query.header.id
        return world(other)

    async with serving(forge) as (_, port, _outside):
        assert (await ask(port, "example.com")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_a_flood_of_questions_for_outside_does_not_stop_the_inside() -> None:
    async with serving(lambda _: None) as (_, port, outside):
        flood = [asyncio.create_task(ask(port, f"n{n}.example")) for n in range(12)]
        assert addresses(await ask(port, "web.default.svc.cluster.local")) == ["10.96.0.20"]
        replies = await asyncio.gather(*flood)
        assert {r.header.rcode for r in replies} == {dnslib.RCODE.SERVFAIL}
        assert outside.asked <= QUICK.under_way, "the rest was refused at once"


async def test_a_tcp_connection_serves_many_questions() -> None:
    packets = [bytes(dnslib.DNSRecord.question(n).pack()) for n in ("web.default.svc.cluster.local", "example.com")]
    async with serving() as (_, port, _outside):
        replies = [addresses(dnslib.DNSRecord.parse(r)) for r in await ask_tcp(port, *packets)]
        assert replies == [["10.96.0.20"], ["198.51.100.7"]]


async def test_idle_and_too_many_tcp_connections_are_closed() -> None:
    async with serving(limits=ServerLimits(tcp_connections=2, tcp_idle_s=0.2)) as (_, port, _outside):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(0.15):
            assert await reader.read() == b"", "the third is closed before the idle ones are"
        for idle, _ in held:
            async with asyncio.timeout(3):
                assert await idle.read() == b""
        for _, open_writer in (*held, (reader, writer)):
            open_writer.close()


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        pytest.param(lambda q: setattr(q.header, "opcode", 5), "NOTIMP", id="an update"),
        pytest.param(lambda q: q.add_question(dnslib.DNSQuestion("b.example")), "FORMERR", id="two questions"),
        pytest.param(lambda q: setattr(q.q, "qclass", 3), "REFUSED", id="another class"),
    ],
)
async def test_what_nobody_here_can_answer(change: Callable[[dnslib.DNSRecord], None], rcode: str) -> None:
    query = dnslib.DNSRecord.question("web.default.svc.cluster.local")
    change(query)
    async with serving() as (_, port, _outside):
        reply = dnslib.DNSRecord.parse(await ask_raw(port, bytes(query.pack())))
    assert dnslib.RCODE[reply.header.rcode] == rcode
    assert reply.header.id == query.header.id


async def test_answers_and_rubbish_get_no_answer() -> None:
    answer = dnslib.DNSRecord.question("web.default.svc.cluster.local").reply()
    async with serving() as (server, _, _outside):
        for packet in (bytes(answer.pack()), b"", b"short"):
            assert await server.answer(packet, over_tcp=False) == b""


GOOD = bytes(dnslib.DNSRecord.question("web.default.svc.cluster.local").pack())


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=64),
        st.builds(
            lambda at, what, end: (GOOD[:at] + what + GOOD[at + len(what) :])[:end],
            st.integers(0, len(GOOD)),
            st.binary(max_size=6),
            st.integers(0, len(GOOD)),
        ),
    )
)
def test_no_packet_breaks_the_server(packet: bytes) -> None:
    server = DnsServer(SNAPSHOT, Forwarder(lambda: ()))
    reply = asyncio.run(server.answer(packet, over_tcp=False))
    if reply:
        assert reply[:2] == packet[:2]
        assert dnslib.DNSRecord.parse(reply).header.qr == 1


def test_only_the_answer_to_the_question_is_taken() -> None:
    query = bytes(dnslib.DNSRecord.question("Example.com").pack())
    reply = bytes(world(dnslib.DNSRecord.parse(query)).pack())
    assert answers(query, reply)
    assert answers(query, reply.replace(b"Example", b"eXAMPLE")), "case may change"
    assert not answers(query, query), "a question is no answer"
    assert not answers(query, b"\0\0" + reply[2:])
    assert not answers(query, reply.replace(b"Example", b"Fxample"))
    assert not answers(query, reply[:11])


def test_the_host_s_resolvers_are_read_again_and_never_ourselves(tmp_path: Path) -> None:
    path, now = tmp_path / "resolv.conf", [0.0]
    resolvers = HostResolvers({"10.96.0.10"}, path, clock=lambda: now[0])
    assert resolvers() == ()
    path.write_text("nameserver 10.96.0.10\nnameserver 192.0.2.53\n")
    assert resolvers() == (), "not read for every question"
    now[0] += upstream.REREAD_S
    assert resolvers() == ("192.0.2.53",)


async def test_an_address_that_is_not_here_is_an_error_and_leaves_no_socket() -> None:
    server = DnsServer(SNAPSHOT, Forwarder(lambda: ()))
    with pytest.raises(OSError, match="address"):
        await server.start("203.0.113.1", 0)
    await server.stop()


def test_a_failure_repeats_the_question_if_it_could_be_read() -> None:
    query = dnslib.DNSRecord.parse(GOOD)
    query.add_ar(dnslib.EDNS0(udp_len=1232))
    failure = dnslib.DNSRecord.parse(wire.render_failure(bytes(query.pack()), query, wire.SERVFAIL))
    assert (failure.header.qr, failure.header.rcode, failure.q) == (1, 2, query.q)
    mangled = dnslib.DNSRecord.parse(wire.render_failure(GOOD[:12] + b"\xff", None, wire.FORMERR))
    assert (mangled.header.id, mangled.header.rcode, mangled.questions) == (query.header.id, 1, [])
