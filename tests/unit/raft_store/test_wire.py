"""What one member encodes, another decodes to the same message."""

import pytest

from raft_store.engine import Entry
from raft_store.raft import messages as m
from raft_store.wire import MAX_BATCH_BYTES, Encoder, batches, decode

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
