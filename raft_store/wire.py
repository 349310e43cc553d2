"""Messages of the core as bytes, and back. Translation only.

What members say to each other all day has a few known shapes. Each is packed at one go, and those of one round travel
one after the other in one batch: to build protobuf messages of them, and to take them apart again, cost more than
everything that the core thinks of them. The batch itself is one of protobuf's, of which two bytes or so are not theirs.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from raft_store.engine import Index, MemberId, Term
from raft_store.raft import messages as m
from trireme_pb.raft import raft_pb2

# Before every message: its kind, the length of what follows, the sender's term.
_HEAD = struct.Struct("<BIQ")
_LENGTH = struct.Struct("<I")

MAX_BATCH_BYTES = 8 << 20

_MORE = 128  # in a number of protobuf's: more bytes follow
_TAG = raft_pb2.Batch.MESSAGES_FIELD_NUMBER << 3 | 2
_FIELDS = [bytes([_TAG, length]) for length in range(_MORE)]


class _Row(msgspec.Struct, frozen=True):
    """One kind of message: fields of fixed size, and for some of them a tail behind these."""

    kind: int
    message: type[m.Message]
    fields: tuple[str, ...]
    layout: struct.Struct  # head and fields
    size_bytes: int  # of the fields
    pick: Callable[[Any], tuple[Any, ...]]


def _row(kind: int, message: type[m.Message], layout: str, *fields: str) -> _Row:
    getter = attrgetter(*fields) if len(fields) > 1 else None

    def pick(message: m.Message) -> tuple[Any, ...]:
        return (getattr(message, fields[0]),) if fields else ()

    whole = struct.Struct("<BIQ" + layout)
    return _Row(kind, message, fields, whole, whole.size - _HEAD.size, getter or pick)


# The numbers, and the order of the fields, are the members' protocol. A newer one may add kinds, and fields at an end.
_ROWS = (
    _row(1, m.VoteRequest, "QQ??", "last_index", "last_term", "pre", "forced"),
    _row(2, m.VoteReply, "??", "granted", "pre"),
    _row(3, m.Append, "QQQ", "prev_index", "prev_term", "commit"),  # then the entries, as ``pack_entries`` packs them
    _row(4, m.AppendReply, "?QQQ", "rejected", "index", "hint_index", "hint_term"),
    _row(5, m.Heartbeat, "QQ", "commit", "read_round"),
    _row(6, m.HeartbeatReply, "Q", "read_round"),
    _row(7, m.Commit, "Q", "commit"),
    _row(8, m.TimeoutNow, ""),
    _row(9, m.ReadRequest, "QQ", "session", "number"),
    _row(10, m.ReadReply, "QQQ", "session", "number", "index"),
    _row(11, m.Forward, "QQ", "session", "first"),  # then the proposals, each behind its length
    _row(12, m.ForwardReply, "QQ", "session", "accepted"),
)
_BY_CLASS = {row.message: row for row in _ROWS}
_APPEND = _BY_CLASS[m.Append]
_APPEND_REPLY = _BY_CLASS[m.AppendReply]
_FORWARD = _BY_CLASS[m.Forward]
_BY_KIND = {row.kind: row for row in _ROWS}


class Encoder:
    """Encodes one member's messages. Entries that go to several followers, in one round or in two, are packed once."""

    def __init__(self) -> None:
        # Which entries were packed last: term of their leader, index before them, how many; and what they came to. In
        # its term a leader replaces no entry of its log, so no other ones are named so.
        self._key = (0, 0, 0)
        self._packed = b""

    def encode(self, message: m.AnyMessage) -> bytes:
        """Return ``message`` for the wire; raises KeyError for a snapshot, which does not travel this way."""
        row = _BY_CLASS[type(message)]
        tail = b""
        if type(message) is m.Append:
            tail = self._pack(message)
        elif type(message) is m.Forward:
            tail = b"".join([part for data in message.proposals for part in (_LENGTH.pack(len(data)), data)])
        head = row.layout.pack(row.kind, row.size_bytes + len(tail), message.term, *row.pick(message))
        return head + tail if tail else head

    def _pack(self, append: m.Append) -> bytes:
        if not append.entries:
            return b""
        key = (append.term, append.prev_index, len(append.entries))
        if key != self._key:
            self._packed, self._key = m.pack_entries(append.entries), key
        return self._packed


def batches(encoded: Sequence[bytes]) -> Iterator[bytes]:
    """Put messages together, as few batches as MAX_BATCH_BYTES allow; a larger message travels alone."""
    batch: list[bytes] = []
    size = 0
    for message in encoded:
        if batch and size + len(message) > MAX_BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
        batch.append(message)
        size += len(message)
    yield b"".join(batch)


def wrap(messages: bytes) -> bytes:
    """Return the protobuf message ``Batch`` that has nothing but these, as protobuf itself would write it."""
    length = len(messages)
    if length < _MORE:
        return _FIELDS[length] + messages
    if length < _MORE * _MORE:
        return bytes((_TAG, length % _MORE + _MORE, length // _MORE)) + messages
    return raft_pb2.Batch(messages=messages).SerializeToString()


def unwrap(batch: bytes) -> bytes:
    """Return the messages of a ``Batch``, whoever wrote it; raises ValueError if it is none."""
    size = len(batch)
    if size > 2 and batch[0] == _TAG:
        # What is said all day is short: its length has one byte, or two.
        first, second = batch[1], batch[2]
        if first < _MORE:
            if 2 + first == size:
                return batch[2:]
        elif second < _MORE and 3 + first - _MORE + (second << 7) == size:
            return batch[3:]
    try:
        return raft_pb2.Batch.FromString(batch).messages
    except DecodeError as exc:
        raise ValueError(f"no batch: {exc}") from exc


def decode(batch: bytes, *, sender: MemberId, to: MemberId) -> list[m.AnyMessage]:
    """Return the messages of a batch, but for what only a newer member knows to say.

    Raises ValueError if the batch does not end with a message's end.
    """
    messages: list[m.AnyMessage] = []
    at, end = 0, len(batch)
    try:
        while at < end:
            kind, size, term = _HEAD.unpack_from(batch, at)
            at, begin = at + _HEAD.size + size, at
            if at > end:
                raise ValueError(f"a message of {size} bytes is cut off at byte {end} of its batch")
            if (row := _BY_KIND.get(kind)) is not None:
                if size < row.size_bytes:
                    raise ValueError(f"a {row.message.__name__} of {at - begin} bytes is too short")
                messages.append(_read(row, batch, begin, at, sender, to, term))
    except struct.error as exc:
        raise ValueError(f"a message at byte {at} of its batch has too few bytes") from exc
    return messages


def _read(row: _Row, batch: bytes, begin: int, end: int, sender: MemberId, to: MemberId, term: Term) -> m.AnyMessage:
    """Return the message that lies at [begin, end) of a batch, head and all."""
    # What they say all day, by less.
    if row is _APPEND:
        _, _, _, prev_index, prev_term, commit = _APPEND.layout.unpack_from(batch, begin)
        entries = m.unpack_entries(batch[begin + row.layout.size : end], Index(prev_index + 1))
        return m.Append(sender, to, term, prev_index=prev_index, prev_term=prev_term, entries=entries, commit=commit)
    if row is _APPEND_REPLY:
        _, _, _, rejected, index, hint_index, hint_term = _APPEND_REPLY.layout.unpack_from(batch, begin)
        return m.AppendReply(
            sender, to, term, rejected=rejected, index=index, hint_index=hint_index, hint_term=hint_term
        )
    _, _, _, *values = row.layout.unpack_from(batch, begin)
    fields: dict[str, Any] = dict(zip(row.fields, values, strict=True))
    if row is _FORWARD:
        fields["proposals"] = list(_proposals(batch, begin + row.layout.size, end))
    message: m.AnyMessage = row.message(sender, to, term, **fields)  # type: ignore[assignment]  # the rows' are of it
    return message


def _proposals(batch: bytes, at: int, end: int) -> Iterator[bytes]:
    while at < end:
        (length,) = _LENGTH.unpack_from(batch, at)
        at, begin = at + _LENGTH.size + length, at + _LENGTH.size
        if at > end:
            raise ValueError(f"a proposal of {length} bytes is cut off")
        yield batch[begin:at]
