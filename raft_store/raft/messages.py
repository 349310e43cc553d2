"""What members say to each other, and what a core asks of its driver.

Everything here is a value. Messages carry the sender's term; a receiver that is behind catches up with it, one that
is ahead answers with its own. ``pack_entries`` is the one form of entries in bytes, on the wire and in the log file.
"""

import struct
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from raft_store.engine import Entry, Index, MemberId, Term
from raft_store.raft.membership import NO_MEMBERS, Configuration

NOBODY = MemberId(0)


class HardState(msgspec.Struct, frozen=True, gc=False):
    """What a member must never forget: its term and whom it voted for in it."""

    term: Term = Term(0)
    vote: MemberId = NOBODY


class SnapshotMark(msgspec.Struct, frozen=True, gc=False):
    """The last entry that a snapshot contains; index 0: the empty state before any entry.

    configuration: the newest one at or before that entry. It has to be kept wherever the snapshot is. sealed: so is its
    seal at or before that entry (``membership``); False in snapshots of an older program, too, which do not say.
    """

    index: Index = Index(0)
    term: Term = Term(0)
    configuration: Configuration = NO_MEMBERS
    sealed: bool = False


class Message(msgspec.Struct, frozen=True):
    """What every message carries."""

    sender: MemberId
    to: MemberId
    term: Term


class VoteRequest(Message, frozen=True, kw_only=True):
    """A candidate asks for a vote (thesis 3.4); ``pre``: would you vote for me in that term? (thesis 9.6)."""

    last_index: Index
    last_term: Term
    pre: bool
    forced: bool = False  # by the leader's own wish (thesis 3.10): holds even against its lease


class VoteReply(Message, frozen=True, kw_only=True):
    """The answer; a granted pre-vote carries the term that was asked for, everything else the voter's own."""

    granted: bool
    pre: bool


class Append(Message, frozen=True, kw_only=True):
    """Entries after ``prev_index``, in order and without gaps; none: a probe of where the logs agree."""

    prev_index: Index
    prev_term: Term
    entries: Sequence[Entry]
    commit: Index


class AppendReply(Message, frozen=True, kw_only=True):
    """How far the follower's disk agrees with the leader's log.

    index: accepted: the highest index known to agree; rejected: the ``prev_index`` that did not.
    hint_index, hint_term: rejected: the follower's last entry that may still agree (its term <= ``prev_term``).
    """

    rejected: bool
    index: Index
    hint_index: Index = Index(0)
    hint_term: Term = Term(0)


class Heartbeat(Message, frozen=True, kw_only=True):
    """I lead; ``commit`` is within what this follower confirmed; ``read_round`` is handed back in the reply."""

    commit: Index
    read_round: int


class HeartbeatReply(Message, frozen=True, kw_only=True):
    """I still follow you, as of your ``read_round``."""

    read_round: int


class Commit(Message, frozen=True, kw_only=True):
    """What is committed and within what this follower confirmed; wants no answer."""

    commit: Index


class InstallSnapshot(Message, frozen=True, kw_only=True):
    """The leader's log no longer reaches back to where this follower stands.

    A core names the snapshot and leaves ``data`` empty; the driver brings the newest one there, and fills it in then.
    """

    mark: SnapshotMark
    data: bytes = b""


class TimeoutNow(Message, frozen=True, kw_only=True):
    """Campaign at once (thesis 3.10): the sender, our leader, hands over."""


class ReadRequest(Message, frozen=True, kw_only=True):
    """What was committed anywhere when I asked? ``session`` and ``number`` name the question (thesis 6.4)."""

    session: int
    number: int


class ReadReply(Message, frozen=True, kw_only=True):
    """Every write acknowledged before the question was asked lies at or below ``index``."""

    session: int
    number: int
    index: Index


class Forward(Message, frozen=True, kw_only=True):
    """Proposals of the sender for the leader of exactly this term; see ``proposals``."""

    session: int
    first: int  # number of the first proposal; the others follow without gaps
    proposals: Sequence[bytes]


class ForwardReply(Message, frozen=True, kw_only=True):
    """The leader of this term has put every proposal up to number ``accepted`` into its log, and none after it."""

    session: int
    accepted: int


AnyMessage: TypeAlias = (
    VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | Commit
    | InstallSnapshot
    | TimeoutNow
    | ReadRequest
    | ReadReply
    | Forward
    | ForwardReply
)


class ReadState(msgspec.Struct, frozen=True):
    """The answer to a question that this member asked itself as the leader."""

    session: int
    number: int
    index: Index


class Snapshot(msgspec.Struct, frozen=True):
    """A whole state of the machine, and the entry after which it was taken."""

    mark: SnapshotMark
    data: bytes  # what the driver finds the state by (``disk.storage``); a core only hands it on


class Save(msgspec.Struct, frozen=True):
    """One step for the disk, to be synced as a whole before the core is told that it is saved."""

    hard_state: HardState
    entries: Sequence[Entry]  # replace whatever the disk holds from the first one's index on
    snapshot: Snapshot | None  # replaces the whole log; entries come after it


class Ready(msgspec.Struct, frozen=True):
    """What a core wants done, in this order; empty parts want nothing."""

    messages: Sequence[AnyMessage]  # send now: none of them promises what is not on disk
    save: Save | None  # begin; call ``Core.saved`` when it is synced
    restore: Snapshot | None  # replace the machine's state by this, which is on disk already
    committed: Sequence[Entry]  # then apply these
    reads: Sequence[ReadState]  # answers to our own questions


_ENTRY = struct.Struct("<QI")  # term, length of the data that follows; its highest bit: the entry reconfigures
_RECONFIGURES = 1 << 31


def pack_entries(entries: Sequence[Entry]) -> bytes:
    """Return consecutive entries as bytes; the index of the first has to travel beside them."""
    pack = _ENTRY.pack
    if len(entries) == 1 and not entries[0].reconfigures:  # whoever writes one thing after the other waits for this
        return pack(entries[0].term, len(entries[0].data)) + entries[0].data
    parts: list[bytes] = []
    for entry in entries:
        length = len(entry.data)
        parts.append(pack(entry.term, length | _RECONFIGURES if entry.reconfigures else length))
        parts.append(entry.data)
    return b"".join(parts)


def unpack_entries(blob: bytes, first: Index) -> list[Entry]:
    """Return what ``pack_entries`` packed; raises ValueError if ``blob`` does not end with an entry's end."""
    entries: list[Entry] = []
    offset, index, size = 0, int(first), len(blob)
    header = _ENTRY.size
    if size >= header:
        term, length = _ENTRY.unpack_from(blob)
        if header + length == size:  # one, of callers, as nearly always
            return [Entry(first, term, blob[header:])]
    while offset < size:
        if offset + header > size:
            raise ValueError(f"entry {index} has no whole header at byte {offset} of {size}")
        term, length = _ENTRY.unpack_from(blob, offset)
        offset += header
        reconfigures = length >= _RECONFIGURES
        if reconfigures:
            length -= _RECONFIGURES
        if offset + length > size:
            raise ValueError(f"entry {index} of {length} bytes is cut off at byte {size}")
        entries.append(Entry(Index(index), Term(term), blob[offset : offset + length], reconfigures))
        offset += length
        index += 1
    return entries
