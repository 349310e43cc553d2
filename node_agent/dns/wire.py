"""Between DNS messages and our answers; pure."""

import dnslib

from node_agent.dns.answers import Answer, Record, Snapshot

FORMERR, SERVFAIL, NOTIMP, REFUSED = 1, 2, 4, 5
PLAIN_UDP_BYTES = 512
EDNS_UDP_BYTES = 1232
"""The largest answer over UDP: it crosses any link without being cut into fragments."""


def parse_query(packet: bytes) -> dnslib.DNSRecord | None:
    """Return the question, or None if these bytes are none (an answer is never answered)."""
    message = _parse(packet)
    return None if message is None or message.header.qr else message


def parse_reply(packet: bytes) -> dnslib.DNSRecord | None:
    """Return another server's answer, or None if these bytes are none."""
    message = _parse(packet)
    return message if message is not None and message.header.qr else None


def refusal_of(query: dnslib.DNSRecord) -> int:
    """Return the rcode for a question that nobody here can answer, 0 for a proper one."""
    if query.header.opcode != dnslib.OPCODE.QUERY:
        return NOTIMP
    if len(query.questions) != 1:
        return FORMERR
    return 0 if query.q.qclass == dnslib.CLASS.IN else REFUSED


def question_of(query: dnslib.DNSRecord) -> tuple[str, str]:
    """Return the name and the type asked for; a type without a name is written ``TYPE<number>``."""
    kind = dnslib.QTYPE.get(query.q.qtype)
    return str(query.q.qname), str(kind)


def render_failure(packet: bytes, query: dnslib.DNSRecord | None, rcode: int) -> bytes:
    """Return an answer that says why there is none.

    query: the packet, parsed; None if only its header may be readable. b"" if not even that is, or if the
    packet is itself an answer: two servers must never answer each other in a circle.
    """
    if query is not None and query.questions:
        reply = query.reply(ra=1, aa=0)
        reply.header.rcode = rcode
        return bytes(reply.pack())
    if len(packet) < 12 or packet[2] & 0x80:
        return b""
    flags = bytes([0x80 | (packet[2] & 0x79), 0x80 | rcode])
    return packet[:2] + flags + bytes(8)


def render_answer(query: dnslib.DNSRecord, answer: Answer, snapshot: Snapshot) -> dnslib.DNSRecord:
    """Return the reply with our answer in it."""
    reply = query.reply(ra=1, aa=1)
    reply.header.rcode = answer.rcode
    for record in answer.records:
        reply.add_answer(to_rr(record))
    if answer.negative:
        reply.add_auth(to_rr(snapshot.soa()))
    for record in answer.additional:
        reply.add_ar(to_rr(record))
    if _edns_bytes(query) is not None:
        reply.add_ar(dnslib.EDNS0(udp_len=EDNS_UDP_BYTES))
    return reply


def pack(query: dnslib.DNSRecord, reply: dnslib.DNSRecord, *, over_tcp: bool) -> bytes:
    """Return the reply's bytes; over UDP cut to nothing but the truncation flag if they are too many."""
    packed = bytes(reply.pack())
    if over_tcp or len(packed) <= _limit(query):
        return packed
    short = query.reply(ra=1, aa=1)
    short.header.rcode = reply.header.rcode
    short.header.tc = 1
    if _edns_bytes(query) is not None:
        short.add_ar(dnslib.EDNS0(udp_len=EDNS_UDP_BYTES))
    return bytes(short.pack())


def to_rr(record: Record) -> dnslib.RR:
    """Return the library's form of a record."""
    data = record.data
    if record.type == "SRV":
        rdata = dnslib.SRV(*data)
    elif record.type == "SOA":
        assert isinstance(data, str), data
        server, mailbox, *times = data.split()
        rdata = dnslib.SOA(server, mailbox, tuple(int(t) for t in times))
    else:
        rdata = {
            "A": dnslib.A,
            "AAAA": dnslib.AAAA,
            "CNAME": dnslib.CNAME,
            "NS": dnslib.NS,
            "PTR": dnslib.PTR,
            "TXT": dnslib.TXT,
        }[record.type](data)
    number = getattr(dnslib.QTYPE, record.type)
    return dnslib.RR(record.name, number, ttl=record.ttl_s, rdata=rdata)


def _parse(packet: bytes) -> dnslib.DNSRecord | None:
    try:
        return dnslib.DNSRecord.parse(packet)
    except (dnslib.DNSError, ValueError):
        return None


def _edns_bytes(query: dnslib.DNSRecord) -> int | None:
    """Return the largest UDP answer that the client takes, None if it did not say."""
    return next((int(rr.rclass) for rr in query.ar if rr.rtype == dnslib.QTYPE.OPT), None)


def _limit(query: dnslib.DNSRecord) -> int:
    return min(max(_edns_bytes(query) or 0, PLAIN_UDP_BYTES), EDNS_UDP_BYTES)
