"""What one member encodes, another decodes to the same message."""

import pytest

from raft_store.engine import Entry
from raft_store.raft import messages as m
from raft_store.wire import Encoder, decode
from trireme_pb.raft import raft_pb2

BIG = (1 << 64) - 1

MESSAGES = [
    m.VoteRequest(1, 2, 3, last_index=4, last_term=5, pre=True, forced=False),
    m.VoteRequest(1, 2, 3, last_index=4, last_term=5, pre=False, forced=True),
    m.VoteReply(1, 2, 3, granted=True, pre=False),
    m.Append(1, 2, 3, prev_index=7, prev_term=2, entries=[], commit=6),
    m.Append(1, 2, 3, prev_index=7, prev_term=2, entries=[Entry(8, 2, b""), Entry(9, 3, b"\0x" * 99)], commit=6),
    m.AppendReply(1, 2, 3, rejected=True, index=9, hint_index=7, hint_term=2),
    m.Heartbeat(1, 2, 3, commit=9, read_round=11),
    m.HeartbeatReply(1, 2, 3, read_round=11),
    m.Commit(1, 2, 3, commit=9),
    m.TimeoutNow(1, 2, 3),
    m.ReadRequest(1, 2, 3, session=BIG, number=4),
    m.ReadReply(1, 2, 3, session=BIG, number=4, index=9),
    m.Forward(1, 2, 3, session=BIG, first=4, proposals=[b"", b"x"]),
    m.ForwardReply(1, 2, 3, session=BIG, accepted=4),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message):
    encoded = raft_pb2.Message.FromString(Encoder().encode(message).SerializeToString())
    assert decode(encoded, sender=1, to=2) == message


def test_every_message_travels():
    assert {type(message) for message in MESSAGES} == set(m.AnyMessage.__args__) - {m.InstallSnapshot}


def test_what_a_newer_member_says_is_passed_over():
    assert decode(raft_pb2.Message(term=3), sender=1, to=2) is None


def test_entries_that_are_cut_off_are_refused():
    blob = m.pack_entries([Entry(1, 1, b"abc")])
    for end in range(1, len(blob)):
        with pytest.raises(ValueError, match="entry 1"):
            m.unpack_entries(blob[:end], 1)
