"""Exactly-once proposals across changes of leader, without waiting for time-outs.

Theory of operation
-------------------
Plain Raft leaves a proposer in the dark when the leader fails: its proposal may be in the new leader's log or not, and
to propose again may apply it twice. We close that gap with what every member has anyway, the order of the log.

1. A proposal belongs to the member where it was made, its *origin*, and is sent to a leader within one term, in
   a *flight*: (session, term, number). The session is random and new at every start, so that a restarted origin never
   takes an old life's entry for its own. Proposals that board together share an entry, a *batch*, for the price of one:
   one record, one append, one place in the log. Numbers count the entries, 1, 2, 3, ... within the flight, without
   gaps; a batch never changes once it has a number, so that it is known as a whole or not at all.
2. A leader puts forwarded entries into its log only if it leads in exactly the flight's term, and only the next
   number of the flight. What arrives again is skipped, what arrives early is ignored. So a flight's entries stand
   in the log of that term once each and in order, and a lost or repeated forward does no harm: the origin repeats
   what is not confirmed.
3. The origin applies the log like everybody. Its entry applied: the proposals in it are *settled*. An entry of a later
   term applied: nothing of an earlier term can follow, for terms never fall along a log; whatever is left of the
   earlier flight is *provably dead*, and its proposals board a new flight for the new term.

Hence no proposal is ever applied twice, and none waits for a clock: the no-op with which every leader begins its term
tells all origins what is dead. Two unknown outcomes are left: the caller's deadline passes while a proposal is in
flight, and a snapshot overtakes the origin (its entry may be within). A proposal that was never in flight is
surely not made.
"""

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

from raft_store.engine import Entry, Term

_NAME = struct.Struct("<QQ")  # session, number: before the callers' bytes in every entry but no-ops
_BATCH = 1 << 63  # this bit of the number: several proposals follow, as how many, their lengths, their bytes
_COUNT = struct.Struct("<I")
MAX_BATCH = 256  # proposals in one entry ...
MAX_BATCH_BYTES = (
    256 << 10
)  # ... and their bytes; a larger one, or larger ones made together, have an entry of their own
RESEND_TICKS = 8  # an unconfirmed forward is repeated after so long
WINDOW = 2048  # entries forwarded without confirmation
MAX_FORWARD_BYTES = 8 << 20  # of entries in one forward; a larger one travels alone


class Proposal:
    """One proposal on its way, or several that one owner made together; ``owner`` is the driver's business."""

    __slots__ = ("abandoned", "in_flight", "items", "owner", "size_bytes")

    def __init__(self, items: Sequence[bytes], owner: object, size_bytes: int) -> None:
        self.items = items
        self.size_bytes = size_bytes  # of the items
        self.owner = owner
        self.in_flight = False  # its fate is not ours to decide just now
        self.abandoned = False  # nobody waits any more: it is not proposed again

    def join(self, items: Sequence[bytes], size_bytes: int) -> bool:
        """Let more of the same owner share its entry; return False, and do nothing, if that has left or is full."""
        if self.in_flight or self.abandoned:
            return False
        if len(self.items) + len(items) > MAX_BATCH or self.size_bytes + size_bytes > MAX_BATCH_BYTES:
            return False
        self.items = [*self.items, *items]
        self.size_bytes += size_bytes
        return True

    @property
    def data(self) -> bytes:
        """Return the bytes of one that was made alone."""
        (data,) = self.items
        return data


Batch = Sequence[Proposal]  # what shares an entry


class _Flight:
    """What this origin sent to the leader of one term."""

    __slots__ = ("batches", "confirmed", "first", "quiet_ticks", "term")

    def __init__(self, term: Term) -> None:
        self.term = term
        self.first = 1  # number of batches[0]; lower ones are settled
        self.batches: deque[Batch] = deque()
        self.confirmed = 0  # highest number known to be in the leader's log
        self.quiet_ticks = 0  # since something was sent or confirmed

    @property
    def last(self) -> int:
        """Highest number given out."""
        return self.first + len(self.batches) - 1

    def confirm(self, number: int) -> None:
        if number > self.confirmed:
            self.confirmed = number
            self.quiet_ticks = 0


class Origin:
    """The proposals made at this member, from submission to settlement."""

    __slots__ = ("_applied_term", "_flights", "_under_way", "session", "waiting")

    def __init__(self, session: int) -> None:
        self.session = session
        self.waiting: deque[Proposal] = deque()  # in no flight; oldest first
        self._flights: deque[_Flight] = deque()  # one a term, terms rise
        self._under_way = 0  # batches in them
        self._applied_term = Term(0)

    def submit(self, items: Sequence[bytes], owner: object, size_bytes: int) -> Proposal:
        """Take what is proposed together, in an entry and with a fate in common; it waits for a leader."""
        proposal = Proposal(items, owner, size_bytes)
        self.waiting.append(proposal)
        return proposal

    def tick(self) -> None:
        """Let time pass for whatever is not confirmed."""
        for flight in self._flights:
            flight.quiet_ticks += 1
        while self.waiting and self.waiting[0].abandoned:
            self.waiting.popleft()

    @property
    def open(self) -> bool:
        """Whether any proposal is not settled."""
        return bool(self._under_way or self.waiting)  # asked after every event

    def embark(self, term: Term) -> list[bytes]:
        """We lead in ``term``: return all that waits, as entries; they must go into our log right now."""
        flight = self._flight(term)
        first, entries = self._board(flight, len(self.waiting))
        flight.confirm(first + len(entries) - 1)
        return entries

    def forward(self, term: Term) -> Iterator[tuple[int, list[bytes]]]:
        """Another member leads in ``term``: yield (number of the first, entries) to be sent there."""
        flight = self._flight(term)
        if flight.confirmed < flight.last and flight.quiet_ticks >= RESEND_TICKS:
            flight.quiet_ticks = 0
            resend_from = max(flight.confirmed + 1, flight.first)
            unconfirmed = list(flight.batches)[resend_from - flight.first :]
            again = (self._entry(number, batch) for number, batch in enumerate(unconfirmed, resend_from))
            # Not all of them: a leader that takes nothing just now would be flooded, again and again.
            yield next(_portions(resend_from, again))
        room = WINDOW - (flight.last - flight.confirmed)
        if self.waiting and room > 0:
            yield from _portions(*self._board(flight, room))

    def confirmed(self, term: Term, accepted: int) -> None:
        """The leader of ``term`` has our proposals up to ``accepted`` in its log."""
        if self._flights and self._flights[-1].term == term:
            self._flights[-1].confirm(accepted)

    def applied(self, entry: Entry) -> tuple[Sequence[bytes], Batch]:
        """An entry is applied: return the callers' bytes in it, and the proposals that they settle if they are ours."""
        if entry.term > self._applied_term:
            self._bury_before(entry.term)
        if entry.reconfigures or not entry.data:
            return (b"",), ()
        session, number = _NAME.unpack_from(entry.data)
        number &= ~_BATCH
        batch = self._settle(entry.term, number) if session == self.session else ()
        if not batch:
            return unpack(entry.data)[2], ()
        # They were made here: to pack them once more costs less than to read them, and shows more.
        items = batch[0].items if len(batch) == 1 else _items(batch)
        assert pack(session, number, items) == entry.data, f"number {number} of {entry.term} is not what was proposed"
        return items, batch

    def sole_batch(self, term: Term) -> Batch:
        """Return what shares the only entry of ours that is under way in ``term``; nothing if there are several."""
        if not self._flights or self._flights[-1].term != term:
            return ()
        batches = self._flights[-1].batches
        return batches[0] if len(batches) == 1 else ()

    def restored(self, term: Term) -> list[Proposal]:
        """A snapshot that ends in ``term`` replaced the machine: return the proposals whose fate nobody can tell."""
        lost: list[Proposal] = []
        for flight in self._flights:
            if flight.term <= term:
                left = [proposal for batch in flight.batches for proposal in batch]
                lost.extend(proposal for proposal in left if not proposal.abandoned)
                # Their numbers stay taken: the flight of the present term may go on.
                for proposal in left:
                    proposal.abandoned = True
        self._bury_before(term)
        return lost

    def _flight(self, term: Term) -> _Flight:
        if not self._flights or self._flights[-1].term != term:
            self._flights.append(_Flight(term))
        return self._flights[-1]

    def _board(self, flight: _Flight, room: int) -> tuple[int, list[bytes]]:
        """Move what waits into ``flight``, up to ``room`` entries; return the first one's number, and the entries."""
        first = flight.last + 1
        entries: list[bytes] = []
        while self.waiting and len(entries) < room and (batch := self._next_batch()):
            entries.append(self._entry(first + len(entries), batch))
            flight.batches.append(batch)
            self._under_way += 1
        if entries:
            flight.quiet_ticks = 0
        return first, entries

    def _next_batch(self) -> Batch:
        """Take what shares the next entry from those that wait; nothing if nobody does."""
        waiting, count, size = self.waiting, 0, 0
        if len(waiting) == 1 and not waiting[0].abandoned:  # who writes one thing after the other waits for this
            waiting[0].in_flight = True
            return (waiting.popleft(),)
        batch: list[Proposal] = []
        while waiting:
            proposal = waiting[0]
            if not proposal.abandoned:
                count += len(proposal.items)
                size += proposal.size_bytes
                if batch and (count > MAX_BATCH or size > MAX_BATCH_BYTES):
                    break
                proposal.in_flight = True
                batch.append(proposal)
            waiting.popleft()
        return batch

    def _entry(self, number: int, batch: Batch) -> bytes:
        return pack(self.session, number, batch[0].items if len(batch) == 1 else _items(batch))

    def _settle(self, term: Term, number: int) -> Batch:
        for flight in self._flights:
            if flight.term == term:
                break
        else:
            return ()  # buried by a snapshot
        flight.confirm(number)
        assert flight.first <= number <= flight.last, (
            f"number {number} of term {term} was applied twice, or was never ours: {flight.first} to {flight.last}"
        )
        batch: Batch = ()
        while flight.first <= number:
            skipped = [proposal for proposal in batch if not proposal.abandoned] if batch else ()
            assert not skipped, f"number {flight.first - 1} of {term} was skipped"
            batch = flight.batches.popleft()
            self._under_way -= 1
            flight.first += 1
        return batch

    def _bury_before(self, term: Term) -> None:
        """An entry of ``term`` is applied: what is left in earlier flights is dead, and waits for a new one."""
        self._applied_term = term
        dead: list[Proposal] = []
        while self._flights and self._flights[0].term < term:
            batches = self._flights.popleft().batches
            self._under_way -= len(batches)
            dead.extend(proposal for batch in batches for proposal in batch if not proposal.abandoned)
        for proposal in dead:
            proposal.in_flight = False
        self.waiting.extendleft(reversed(dead))


def _items(batch: Batch) -> Sequence[bytes]:
    return [data for proposal in batch for data in proposal.items]


def _portions(first: int, entries: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Cut entries, numbered from ``first`` on, into what one forward may carry each."""
    portion: list[bytes] = []
    size = 0
    for entry in entries:
        if portion and size + len(entry) > MAX_FORWARD_BYTES:
            yield first, portion
            first, portion, size = first + len(portion), [], 0
        portion.append(entry)
        size += len(entry)
    if portion:
        yield first, portion


def pack(session: int, number: int, proposed: Sequence[bytes]) -> bytes:
    """Return the entry that holds these proposals."""
    if len(proposed) == 1:
        return _NAME.pack(session, number) + proposed[0]
    count = len(proposed)
    lengths = struct.pack(f"<I{count}I", count, *map(len, proposed))
    return b"".join((_NAME.pack(session, number | _BATCH), lengths, *proposed))


def unpack(data: bytes) -> tuple[int, int, Sequence[bytes]]:
    """Return the session, the number and the callers' bytes of an entry that holds proposals; raises ValueError."""
    try:
        session, number = _NAME.unpack_from(data)
        if number < _BATCH:
            return session, number, (data[_NAME.size :],)
        (count,) = _COUNT.unpack_from(data, _NAME.size)
        lengths = struct.unpack_from(f"<{count}I", data, _NAME.size + _COUNT.size)
    except struct.error as exc:
        raise ValueError(f"{len(data)} bytes are too few for a proposal") from exc
    at = _NAME.size + _COUNT.size * (1 + count)
    ends = list(accumulate(lengths, initial=at))
    if ends[-1] != len(data):
        raise ValueError(f"a batch of {count} proposals ends at byte {ends[-1]} of {len(data)}")
    return session, number - _BATCH, [data[begin:end] for begin, end in pairwise(ends)]


class Arrivals:
    """As a leader: how far the flights of the present term have come. Forgotten with the term."""

    __slots__ = ("_accepted", "_term")

    def __init__(self) -> None:
        self._term = Term(0)
        self._accepted: dict[int, int] = {}  # session -> highest number in our log

    def accept(self, term: Term, session: int, first: int, entries: Sequence[bytes]) -> tuple[Sequence[bytes], int]:
        """Return those of ``entries`` that belong into our log now, and the highest number that is then in it."""
        if term != self._term:
            self._term, self._accepted = term, {}
        accepted = self._accepted.get(session, 0)
        if first > accepted + 1:
            return (), accepted  # something before it got lost
        fresh = entries[accepted + 1 - first :]
        self._accepted[session] = accepted + len(fresh)
        return fresh, accepted + len(fresh)
