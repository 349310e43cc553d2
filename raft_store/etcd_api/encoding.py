"""The answers that are given most often, written as protobuf without building messages first.

A message object costs as much as everything else in a call. And most bytes of most answers are versions of keys, which
never change: each is encoded when somebody first reads it, and the same bytes serve ranges, watches of all listeners,
and previous values. They all hold it in a field of number 2, so its tag is kept with it.
"""

from collections.abc import Callable, Sequence

from raft_store.mvcc.model import Event, KeyValue, Revision
from raft_store.mvcc.requests import DeleteResult, OperationResult, PutResult, RangeResult, TxnResult

CACHE_BYTES = 64 << 20
MOST_TOLD = 16  # responses of the same events
_OVERHEAD_BYTES = 200  # of a cached version, about
_MOST = (1 << 64) - 1
_SMALL = tuple(bytes((i,)) for i in range(128))
_CONTINUED = tuple(bytes((i | 128,)) for i in range(128))  # the first bytes of larger numbers
# What a ResponseOp of a put has before its revision, whose bytes are counted: a ResponseOp, a PutResponse, a header.
_WRITTEN = tuple(bytes((0x1A, size + 5, 0x12, size + 3, 0x0A, size + 1, 0x18)) for size in range(11))

Prev = Callable[[Event], KeyValue | None]


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it; a negative one takes ten bytes."""
    if 0 <= number < 128:
        return _SMALL[number]
    if 0 <= number < 1 << 21:  # revisions, for a long time
        if number < 1 << 14:
            return bytes((number & 127 | 128, number >> 7))
        return bytes((number & 127 | 128, number >> 7 & 127 | 128, number >> 14))
    number &= _MOST
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _bytes_field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, varint(len(value)), value))


def key_value_field(kv: KeyValue) -> bytes:
    """Return ``kv`` as field 2 of whatever holds it."""
    parts = [b"\x0a", varint(len(kv.key)), kv.key]
    if kv.create_revision:
        parts += (b"\x10", varint(kv.create_revision))
    if kv.mod_revision:
        parts += (b"\x18", varint(kv.mod_revision))
    if kv.version:
        parts += (b"\x20", varint(kv.version))
    if kv.value:
        parts += (b"\x2a", varint(len(kv.value)), kv.value)
    if kv.lease:
        parts += (b"\x30", varint(kv.lease))
    return _bytes_field(b"\x12", b"".join(parts))


class Versions:
    """Encoded versions of keys, the newest asked for of each key, as many as ``max_bytes`` hold."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: dict[bytes, tuple[KeyValue, bytes]] = {}

    def field(self, kv: KeyValue) -> bytes:
        """See ``key_value_field``."""
        known = self._known.get(kv.key)
        if known is not None and known[0] is kv:
            return known[1]
        field = key_value_field(kv)
        if known is not None:
            self._bytes -= len(known[1]) + _OVERHEAD_BYTES
        self._bytes += len(field) + _OVERHEAD_BYTES
        if self._bytes > self._max_bytes:
            # Whatever is read again comes back at once; an order of use would cost every read.
            self._known.clear()
            self._bytes = len(field) + _OVERHEAD_BYTES
        self._known[kv.key] = kv, field
        return field

    def fields(self, kvs: Sequence[KeyValue]) -> list[bytes]:
        """Return ``field`` of each."""
        known = self._known
        found = []
        for kv in kvs:
            entry = known.get(kv.key)
            found.append(entry[1] if entry is not None and entry[0] is kv else self.field(kv))
        return found


class Answers:
    """Encodes the answers of one member. ``sender``: its id and its term, asked for anew each time: both may change."""

    def __init__(self, *, cluster_id: int, sender: Callable[[], tuple[int, int]]) -> None:
        self._cluster_id = cluster_id
        self._sender = sender
        self._versions = Versions()
        self._told_of: Sequence[Event] = ()  # the changes encoded last, and what was made of them:
        self._told_events: dict[bool, bytes] = {}  # without prev -> the events
        self._told: dict[tuple[int, bool, Revision], bytes] = {}  # (watch, without prev, header's revision) -> response
        self._ends = ((-1, -1), b"", b"")  # the sender, and what it makes of a header
        self._newest = (-1, b"")  # the revision asked for last, and its header

    def header(self, revision: Revision) -> bytes:
        """Return the header, field 1 of every answer."""
        before, after = self._around()
        if revision != self._newest[0]:
            number = varint(revision)
            header = b"".join((b"\x0a", varint(len(before) + len(number) + len(after)), before, number, after))
            self._newest = revision, header
        return self._newest[1]

    def _around(self) -> tuple[bytes, bytes]:
        """Return what stands in a header before and behind the revision."""
        sender = self._sender()
        known, before, after = self._ends
        if sender != known:
            member, term = sender
            before = b"\x08" + varint(self._cluster_id) + b"\x10" + varint(member) + b"\x18"
            after = b"\x20" + varint(term) if term else b""
            self._ends = sender, before, after
            self._newest = -1, b""
        return before, after

    def range(self, result: RangeResult) -> bytes:
        """Return a RangeResponse."""
        return self.header(result.revision) + self._range(result)

    def newest(self, kv: KeyValue | None) -> bytes:
        """Return a RangeResponse about one key, behind its header."""
        return self._versions.field(kv) + b"\x20\x01" if kv is not None else b""

    def put(self, result: PutResult) -> bytes:
        """Return a PutResponse."""
        return self.header(result.revision) + self._put(result)

    def puts(self, results: Sequence[PutResult]) -> list[bytes]:
        """Return a PutResponse for each: nothing is asked anew, for puts are answered by the hundred."""
        headers = self._headers(results)
        if not [result for result in results if result.prev is not None]:
            return headers
        return [header + self._put(result) for header, result in zip(headers, results, strict=True)]

    def deletes(self, results: Sequence[DeleteResult]) -> list[bytes]:
        """Return a DeleteRangeResponse for each."""
        return [self.delete(result) for result in results]

    def txns(self, results: Sequence[TxnResult]) -> list[bytes]:
        """Return a TxnResponse for each."""
        headers = self._headers(results)
        return [header + self._txn(result) for header, result in zip(headers, results, strict=True)]

    def _headers(self, results: "Sequence[PutResult | TxnResult]") -> list[bytes]:
        """Return the header of each: of 128 revisions in a row they differ in one byte."""
        before, after = self._around()
        headers: list[bytes] = []
        row, begin, end = -1, b"", b""
        for result in results:
            revision = result.revision
            if revision >> 7 != row:
                row = revision >> 7
                number = varint(revision)
                begin = b"".join((b"\x0a", varint(len(before) + len(number) + len(after)), before))
                lowest, end = (_CONTINUED, number[1:] + after) if row else (_SMALL, after)
            headers.append(b"".join((begin, lowest[revision & 127], end)))
        return headers

    def delete(self, result: DeleteResult) -> bytes:
        """Return a DeleteRangeResponse."""
        return self.header(result.revision) + self._delete(result)

    def txn(self, result: TxnResult) -> bytes:
        """Return a TxnResponse."""
        return self.header(result.revision) + self._txn(result)

    def changes(self, watch_id: int, revision: Revision, events: Sequence[Event], prev: Prev | None = None) -> bytes:
        """Return a WatchResponse with events; ``prev`` finds the value before each, if that is wished.

        All watchers of the same changes are given one list of them, so what was made of the newest list is remembered:
        its events in bytes, and whole responses for those whose watches have the same number.
        """
        if events is not self._told_of:
            self._told_of = events
            self._told_events.clear()
            self._told.clear()
        place = watch_id, prev is None, revision
        told = self._told.get(place)
        if told is not None:
            return told
        encoded = self._told_events.get(prev is None)
        if encoded is None:
            encoded = b"".join([self._event(event, None if prev is None else prev(event)) for event in events])
            self._told_events[prev is None] = encoded
        number = b"\x10" + varint(watch_id) if watch_id else b""
        response = b"".join((self.header(revision), number, encoded))
        if len(self._told) < MOST_TOLD:
            self._told[place] = response
        return response

    def _event(self, event: Event, prev: KeyValue | None) -> bytes:
        parts = [b"\x08\x01" if event.is_delete else b"", self._versions.field(event.kv)]
        if prev is not None:
            parts.append(b"\x1a" + self._versions.field(prev)[1:])
        return _bytes_field(b"\x5a", b"".join(parts))

    def _range(self, result: RangeResult) -> bytes:
        parts = self._versions.fields(result.kvs)
        if result.more:
            parts.append(b"\x18\x01")
        if result.count:
            parts += (b"\x20", varint(result.count))
        return b"".join(parts)

    def _put(self, result: PutResult) -> bytes:
        return b"" if result.prev is None else self._versions.field(result.prev)

    def _delete(self, result: DeleteResult) -> bytes:
        parts = [b"\x10" + varint(result.deleted)] if result.deleted else []
        parts += [b"\x1a" + field[1:] for field in self._versions.fields(result.prevs)]
        return b"".join(parts)

    def _txn(self, result: TxnResult) -> bytes:
        parts = [b"\x10\x01" if result.succeeded else b""]
        for inner in result.results:
            if type(inner) is PutResult and inner.prev is None:
                number = varint(inner.revision)
                parts += (_WRITTEN[len(number)], number)
            else:
                parts.append(_bytes_field(b"\x1a", self._operation(inner)))
        return b"".join(parts)

    def _operation(self, result: OperationResult) -> bytes:
        """Return a ResponseOp; of a header, answers within a transaction have the revision alone, as in etcd."""
        bare = _bytes_field(b"\x0a", b"\x18" + varint(result.revision))
        match result:
            case RangeResult():
                return _bytes_field(b"\x0a", bare + self._range(result))
            case PutResult():
                return _bytes_field(b"\x12", bare + self._put(result))
            case DeleteResult():
                return _bytes_field(b"\x1a", bare + self._delete(result))
            case TxnResult():
                return _bytes_field(b"\x22", b"\x0a\x00" + self._txn(result))  # and here not even that
