"""What one member encodes, another decodes to the same message."""

import pytest

from raft_store.engine import Entry
from raft_store.raft import messages as m
from raft_store.wire import MAX_BATCH_BYTES, Encoder, batches, decode, unwrap, wrap
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
    assert decode(Encoder().encode(message), sender=1, to=2) == [message]


def test_messages_of_a_round_travel_together():
    encoder = Encoder()
    (batch,) = batches([encoder.encode(message) for message in MESSAGES])
    assert decode(batch, sender=1, to=2) == MESSAGES


def test_appends_of_a_round_say_each_what_was_committed_then():
    """An answer may raise the mark between two of them; the leader remembers whom it told of what."""
    first, second = (
        m.Append(1, to, 3, prev_index=7, prev_term=2, entries=[Entry(8, 3, b"x")], commit=commit)
        for to, commit in ((2, 6), (3, 7))
    )
    encoder = Encoder()
    assert decode(encoder.encode(first), sender=1, to=2) == [first]
    assert decode(encoder.encode(second), sender=1, to=3) == [second]


def test_other_entries_are_packed_anew():
    """As many, but in another place, or there in another term; or fewer there; or none."""
    appends = [
        m.Append(
            1,
            2,
            term,
            prev_index=prev,
            prev_term=2,
            entries=[Entry(prev + i, term, b"%d" % (prev + i)) for i in more],
            commit=7,
        )
        for term, prev, more in ((3, 7, (1, 2)), (3, 9, (1, 2)), (4, 9, (1, 2)), (4, 9, (1,)), (4, 9, ()), (4, 9, (1,)))
    ]
    encoder = Encoder()
    assert [decode(encoder.encode(append), sender=1, to=2) for append in appends] == [[append] for append in appends]


def test_what_is_too_much_for_one_batch_is_split():
    small, large = bytes(MAX_BATCH_BYTES // 4), bytes(MAX_BATCH_BYTES + 1)
    sizes = [len(batch) for batch in batches([small, small, large, small])]
    assert sizes == [2 * len(small), len(large), len(small)]


def test_every_message_travels():
    assert {type(message) for message in MESSAGES} == set(m.AnyMessage.__args__) - {m.InstallSnapshot}


def test_what_a_newer_member_says_is_passed_over():
    commit = m.Commit(1, 2, 3, commit=9)
    encoded = Encoder().encode(commit)
    unknown = b"\xff" + encoded[1:]
    longer = encoded[:1] + (len(encoded) - 13 + 4).to_bytes(4, "little") + encoded[5:] + b"more"
    assert decode(unknown + longer + encoded, sender=1, to=2) == [commit, commit]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_that_are_cut_off_are_refused(message):
    encoded = Encoder().encode(message)
    for end in range(1, len(encoded)):
        with pytest.raises(ValueError, match=r"byte|cut off|too short"):
            decode(encoded[:end], sender=1, to=2)


WITH_FIELDS = [message for message in MESSAGES if not isinstance(message, m.TimeoutNow)]


@pytest.mark.parametrize("message", WITH_FIELDS, ids=lambda message: type(message).__name__)
def test_fields_that_do_not_fit_their_message_are_refused(message):
    encoded = Encoder().encode(message)
    with pytest.raises(ValueError, match=r"too short|no whole header|cut off|byte"):
        decode(encoded[:1] + b"\1\0\0\0" + encoded[5:14], sender=1, to=2)


def test_entries_that_are_cut_off_are_refused():
    blob = m.pack_entries([Entry(1, 1, b"abc")])
    for end in range(1, len(blob)):
        with pytest.raises(ValueError, match="entry 1"):
            m.unpack_entries(blob[:end], 1)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, (1 << 21) + 5])
def test_a_batch_is_one_of_protobufs(size):
    messages = bytes(range(256)) * (size // 256) + b"\x12" * (size % 256)
    if size:  # protobuf leaves out what is empty
        assert wrap(messages) == raft_pb2.Batch(messages=messages).SerializeToString()
    assert unwrap(wrap(messages)) == messages


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(b"", id="empty"),
        pytest.param(
            raft_pb2.Batch(greeting=raft_pb2.Greeting(sender=1), messages=b"abc").SerializeToString(), id="greets"
        ),
        pytest.param(b"\x12\x03abc\x1a\x01x", id="a field behind it that only a newer member knows"),
        pytest.param(b"\x12\x83\x80\x00abc", id="a length of more bytes than needed"),
        pytest.param(b"\x12\x85\x80\x00hello\x7a\x7c" + bytes(124), id="the same, and more behind it"),
        pytest.param(b"\x12\x01x\x12\x03abc", id="twice: the last one counts"),
    ],
)
def test_whatever_protobuf_reads_is_read(batch):
    assert unwrap(batch) == raft_pb2.Batch.FromString(batch).messages


@pytest.mark.parametrize(
    "batch",
    [b"\x12", b"\x12\x04abc", b"\x12\xff", b"\x12" + b"\xff" * 11, b"abc", b"\x12\x80\x80" + bytes(127)],
)
def test_what_protobuf_does_not_read_is_refused(batch):
    with pytest.raises(ValueError, match="no batch"):
        unwrap(batch)
