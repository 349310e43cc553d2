"""Messages of the core as protobuf, and back. Translation only."""

from collections.abc import Mapping, Sequence
from typing import Any

from raft_store.engine import Index, MemberId, Term
from raft_store.raft import messages as m
from trireme_pb.raft import raft_pb2

# Message class -> (its field in raft.Message, its protobuf class, the fields that bear the same name on both sides).
# Append and snapshots are not here: the one carries packed entries, the others travel on a stream of their own.
_ROWS: dict[type[m.Message], tuple[str, type, tuple[str, ...]]] = {
    m.VoteRequest: ("vote_request", raft_pb2.VoteRequest, ("last_index", "last_term", "pre", "forced")),
    m.VoteReply: ("vote_reply", raft_pb2.VoteReply, ("granted", "pre")),
    m.AppendReply: ("append_reply", raft_pb2.AppendReply, ("rejected", "index", "hint_index", "hint_term")),
    m.Heartbeat: ("heartbeat", raft_pb2.Heartbeat, ("commit", "read_round")),
    m.HeartbeatReply: ("heartbeat_reply", raft_pb2.HeartbeatReply, ("read_round",)),
    m.Commit: ("commit", raft_pb2.Commit, ("commit",)),
    m.TimeoutNow: ("timeout_now", raft_pb2.TimeoutNow, ()),
    m.ReadRequest: ("read_request", raft_pb2.ReadRequest, ("session", "number")),
    m.ReadReply: ("read_reply", raft_pb2.ReadReply, ("session", "number", "index")),
    m.Forward: ("forward", raft_pb2.Forward, ("session", "first", "proposals")),
    m.ForwardReply: ("forward_reply", raft_pb2.ForwardReply, ("session", "accepted")),
}
_BY_FIELD: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    field: (message_class, names) for message_class, (field, _, names) in _ROWS.items()
}


class Encoder:
    """Encodes the messages of one round; what goes to several followers is packed once."""

    def __init__(self) -> None:
        self._packed: dict[tuple[int, int], bytes] = {}

    def encode(self, message: m.AnyMessage) -> raft_pb2.Message:
        """Return ``message`` for the wire; raises KeyError for a snapshot, which does not travel this way."""
        if isinstance(message, m.Append):
            return raft_pb2.Message(
                term=message.term,
                append=raft_pb2.Append(
                    prev_index=message.prev_index,
                    prev_term=message.prev_term,
                    entries=self._pack(message),
                    commit=message.commit,
                ),
            )
        field, protobuf_class, names = _ROWS[type(message)]
        body = protobuf_class(**{name: getattr(message, name) for name in names})
        return raft_pb2.Message(term=message.term, **{field: body})

    def _pack(self, append: m.Append) -> bytes:
        # Within one round all appends show the same log: first index and count say which entries they carry.
        key = (append.prev_index, len(append.entries))
        if key not in self._packed:
            self._packed[key] = m.pack_entries(append.entries)
        return self._packed[key]


def decode(message: raft_pb2.Message, *, sender: MemberId, to: MemberId) -> m.AnyMessage | None:
    """Return the message; None if a newer member said something that we do not know."""
    field: str | None = message.WhichOneof("body")
    if field == "append":
        append = message.append
        return m.Append(
            sender,
            to,
            Term(message.term),
            prev_index=Index(append.prev_index),
            prev_term=Term(append.prev_term),
            entries=m.unpack_entries(append.entries, Index(append.prev_index + 1)),
            commit=Index(append.commit),
        )
    if field is None or field not in _BY_FIELD:
        return None
    message_class, names = _BY_FIELD[field]
    body = getattr(message, field)
    decoded: m.AnyMessage = message_class(
        sender, to, Term(message.term), **{name: _plain(getattr(body, name)) for name in names}
    )
    return decoded


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else _as_list(value)


def _as_list(value: Sequence[bytes]) -> list[bytes]:
    """Copy a repeated field, which otherwise keeps the whole batch alive."""
    return list(value)
