"""Was there one order of all operations, within real time, that explains every answer?

Theory of operation
-------------------
A history is a set of operations, each with the moment of its call and of its return. It is linearizable if each can be
thought to happen at one moment between the two, such that a single store, doing one after the other, gives the same
answers (Herlihy and Wing, 1990).

- An operation that surely did not happen is left out. One whose fate is unknown has no return: it may happen at any
  time after its call, or never.
- *Locality*: a history is linearizable if its part for each key is. Keys that a transaction ties together are one part.
- *Fast path*: the store numbers its changes, and answers tell the number. Sorted by it, the operations are nearly
  always in the right order already; to replay them proves it. Nothing is concluded if that fails.
- *Search* (Wing and Gong 1993, improved by Lowe 2017): take any operation that no other one has to precede, go on with
  the rest, go back when stuck, and never visit the same (set of operations done, state) twice. It is exponential at
  worst, so it has a time limit, and says so when that is reached.

Everything a client can ask is a transaction here: a put is one without conditions that puts.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import TypeAlias

import msgspec


class Compare(msgspec.Struct, frozen=True):
    """A condition: the key was changed last at ``mod_revision`` (0: it does not exist)."""

    key: str
    mod_revision: int


class Put(msgspec.Struct, frozen=True, tag=True):
    """Write a value; every value is written once in a history."""

    key: str
    value: str


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Remove a key, if it is there."""

    key: str


class Get(msgspec.Struct, frozen=True, tag=True):
    """Read a key."""

    key: str


Step: TypeAlias = Put | Delete | Get


class Request(msgspec.Struct, frozen=True):
    """If every condition holds, ``success``, else ``failure``; all at one moment."""

    success: tuple[Step, ...]
    compares: tuple[Compare, ...] = ()
    failure: tuple[Step, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """Return every key that the request concerns."""
        return frozenset(each.key for each in (*self.compares, *self.success, *self.failure))


class Found(msgspec.Struct, frozen=True):
    """What a read found."""

    value: str
    version: int
    mod_revision: int


class Response(msgspec.Struct, frozen=True):
    """What a client was told: the store's revision, which branch was taken, and what each read of it found."""

    revision: int
    succeeded: bool
    found: tuple[Found | None, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """One operation; ``returned_s`` is infinite, and ``response`` absent, if nobody knows what became of it."""

    client: str
    called_s: float
    returned_s: float
    request: Request
    response: Response | None


class Verdict(Enum):
    """What was found out."""

    LINEARIZABLE = "linearizable"
    VIOLATED = "not linearizable"
    UNDECIDED = "not decided in the time allowed"


class Finding(msgspec.Struct, frozen=True):
    """The verdict; if it is not good: about which keys, and the operations that no order could get past."""

    verdict: Verdict
    keys: frozenset[str] = frozenset()
    stuck: tuple[Operation, ...] = ()


UNKNOWN_REVISION = -1

# What is known of a key: absent, or (value, version, mod revision, which may be unknown).
_Known: TypeAlias = tuple[str, int, int] | None
_State: TypeAlias = tuple[_Known, ...]  # by key, in order


def check(operations: Sequence[Operation], *, now: Callable[[], float], limit_s: float) -> Finding:
    """Judge a history; ``now`` is a clock in seconds, and ``limit_s`` what all searching may take by it.

    Raises ValueError if two operations write the same value: then the history says too little.
    """
    _check_values(operations)
    deadline_s = now() + limit_s
    undecided: Finding | None = None
    for keys, part in _parts(operations):
        if explained_by_revisions(part):
            continue
        finding = _Search(keys, part, now=now, deadline_s=deadline_s).run()
        if finding.verdict is Verdict.VIOLATED:
            return finding
        if finding.verdict is Verdict.UNDECIDED:
            undecided = finding
    return undecided or Finding(Verdict.LINEARIZABLE)


def _check_values(operations: Iterable[Operation]) -> None:
    seen: set[str] = set()
    for operation in operations:
        for value in {step.value for step in _puts(operation.request)}:
            if value in seen:
                raise ValueError(f"value {value!r} is written twice; give every write its own")
            seen.add(value)


def _puts(request: Request) -> Iterator[Put]:
    return (step for step in (*request.success, *request.failure) if isinstance(step, Put))


def _parts(operations: Iterable[Operation]) -> list[tuple[frozenset[str], list[Operation]]]:
    """Split a history by keys; keys that one operation touches together stay together."""
    home: dict[str, frozenset[str]] = {}
    operations = list(operations)
    for operation in operations:
        together = operation.request.keys.union(*(home.get(key, frozenset()) for key in operation.request.keys))
        for key in together:
            home[key] = together
    parts: dict[frozenset[str], list[Operation]] = {keys: [] for keys in home.values()}
    for operation in operations:
        parts[home[next(iter(operation.request.keys))]].append(operation)
    return list(parts.items())


# -- the store ---------------------------------------------------------------------------------------------------------


def apply(
    state: _State, keys: Sequence[str], request: Request, response: Response | None, revision: int
) -> list[_State]:
    """Return every state in which the store may be after ``request``, if it answers ``response``; none: it cannot.

    revision: of what the request writes; UNKNOWN_REVISION if nobody told.
    """
    places = {key: place for place, key in enumerate(keys)}
    after: list[_State] = []
    for succeeded in (True, False):
        if response is not None and response.succeeded is not succeeded:
            continue
        known = _assume(state, places, request.compares, holds=succeeded)
        if known is not None:
            branch = request.success if succeeded else request.failure
            found = response.found if response is not None else None
            changed = _run(known, places, branch, found, revision)
            if changed is not None:
                after.append(changed)
    return after


def _assume(state: _State, places: dict[str, int], compares: Sequence[Compare], *, holds: bool) -> list[_Known] | None:
    """Return what is known if all of ``compares`` hold, or not all of them; None if that cannot be."""
    known = list(state)
    doubtful = False
    for compare in compares:
        now = known[places[compare.key]]
        if now is not None and now[2] == UNKNOWN_REVISION and compare.mod_revision:
            doubtful = True
            if holds:
                known[places[compare.key]] = (now[0], now[1], compare.mod_revision)
        elif (0 if now is None else now[2]) != compare.mod_revision:
            return None if holds else known
    return known if holds or doubtful else None


def _run(
    known: list[_Known],
    places: dict[str, int],
    steps: Sequence[Step],
    found: Sequence[Found | None] | None,
    revision: int,
) -> _State | None:
    reads = iter(found) if found is not None else None
    for step in steps:
        place = places[step.key]
        now = known[place]
        match step:
            case Put(value=value):
                known[place] = (value, 1 if now is None else now[1] + 1, revision)
            case Delete():
                known[place] = None
            case Get() if reads is not None:
                seen = next(reads, None)
                if (seen is None) != (now is None):
                    return None
                if seen is not None and now is not None:
                    if now[:2] != (seen.value, seen.version) or now[2] not in (seen.mod_revision, UNKNOWN_REVISION):
                        return None
                    known[place] = (seen.value, seen.version, seen.mod_revision)
            case Get():
                pass
    return tuple(known)


# -- the fast path -----------------------------------------------------------------------------------------------------


def explained_by_revisions(operations: Sequence[Operation]) -> bool:
    """Return whether the order of revisions explains everything; False says nothing."""
    placed = _by_revision(operations)
    latest_call = -math.inf
    keys = sorted({key for operation in operations for key in operation.request.keys})
    state: _State = (None,) * len(keys)
    for revision, operation in placed:
        if operation.returned_s < latest_call:
            return False
        latest_call = max(latest_call, operation.called_s)
        states = apply(state, keys, operation.request, operation.response, revision)
        if not states:
            return False
        state = states[0]
    return True


def _by_revision(operations: Sequence[Operation]) -> list[tuple[int, Operation]]:
    """Order operations as their revisions say: writes, then what read the result. Unseen writes are left out."""
    seen = {
        found.value: found.mod_revision
        for operation in operations
        if operation.response is not None
        for found in operation.response.found
        if found is not None
    }
    rows: list[tuple[int, bool, float, Operation]] = []
    for operation in operations:
        response = operation.response
        if response is None:
            revisions = [seen[put.value] for put in _puts(operation.request) if put.value in seen]
            if revisions:
                rows.append((revisions[0], False, operation.called_s, operation))
        else:
            branch = operation.request.success if response.succeeded else operation.request.failure
            reads_only = all(isinstance(step, Get) for step in branch)
            rows.append((response.revision, reads_only, operation.called_s, operation))
    rows.sort(key=lambda row: row[:3])
    return [(revision, operation) for revision, _, _, operation in rows]


# -- the search --------------------------------------------------------------------------------------------------------


class _Event:
    """A call or a return, in a list linked both ways; ``match`` of a call is its return."""

    __slots__ = ("after", "before", "match", "place")

    def __init__(self, place: int) -> None:
        self.place = place
        self.match: _Event | None = None
        self.before: _Event | None = None
        self.after: _Event | None = None


class _Search:
    """Depth first, over one part of a history."""

    def __init__(
        self, keys: frozenset[str], operations: Sequence[Operation], *, now: Callable[[], float], deadline_s: float
    ) -> None:
        self._keys = sorted(keys)
        self._operations = operations
        self._now = now
        self._deadline_s = deadline_s
        self._head = _linked(operations)
        self._certain = sum(operation.response is not None for operation in operations)

    def run(self) -> Finding:
        done = certain = best = tries = 0
        state: _State = (None,) * len(self._keys)
        seen: set[tuple[int, _State]] = set()
        stack: list[tuple[_Event, _State, list[_State]]] = []  # (call, state before it, states after it left to try)
        stuck: set[int] = set()
        event = self._head.after
        while certain < self._certain:
            tries += 1
            if tries % 1000 == 0 and self._now() >= self._deadline_s:
                return self._found(Verdict.UNDECIDED, stuck)
            if event is not None and event.match is not None:
                operation = self._operations[event.place]
                fresh = [each for each in self._after(state, operation) if (done | 1 << event.place, each) not in seen]
                if fresh:
                    stack.append((event, state, fresh))
                    done |= 1 << event.place
                    certain += operation.response is not None
                    state = fresh.pop()
                    seen.add((done, state))
                    _lift(event)
                    event = self._head.after
                else:
                    event = event.after
                continue
            # A return whose call is not placed: some earlier choice was wrong.
            if event is not None and certain >= best:
                stuck = {event.place} if certain > best else stuck | {event.place}
                best = certain
            while True:
                if not stack:
                    return self._found(Verdict.VIOLATED, stuck)
                call, before, fresh = stack[-1]
                if fresh:
                    state = fresh.pop()
                    seen.add((done, state))
                    event = self._head.after
                    break
                stack.pop()
                done &= ~(1 << call.place)
                certain -= self._operations[call.place].response is not None
                state = before
                _put_back(call)
                event = call.after
                break
        return Finding(Verdict.LINEARIZABLE)

    def _after(self, state: _State, operation: Operation) -> list[_State]:
        response = operation.response
        revision = UNKNOWN_REVISION if response is None else response.revision
        return apply(state, self._keys, operation.request, response, revision)

    def _found(self, verdict: Verdict, stuck: set[int]) -> Finding:
        return Finding(verdict, frozenset(self._keys), tuple(self._operations[place] for place in sorted(stuck)))


def _linked(operations: Sequence[Operation]) -> _Event:
    """Return the head of the list of all calls and returns, in order of time; of one moment, calls come first."""
    rows: list[tuple[float, bool, _Event]] = []
    for place, operation in enumerate(operations):
        call, back = _Event(place), _Event(place)
        call.match = back
        rows.append((operation.called_s, False, call))
        rows.append((operation.returned_s, True, back))
    rows.sort(key=lambda row: row[:2])
    head = last = _Event(-1)
    for _, _, event in rows:
        last.after, event.before = event, last
        last = event
    return head


def _lift(call: _Event) -> None:
    """Take a call and its return out of the list; they remember where they were."""
    assert call.match is not None
    for event in (call, call.match):
        assert event.before is not None
        event.before.after = event.after
        if event.after is not None:
            event.after.before = event.before


def _put_back(call: _Event) -> None:
    """Undo ``_lift``; the latest lift has to be undone first."""
    assert call.match is not None
    for event in (call.match, call):
        assert event.before is not None
        event.before.after = event
        if event.after is not None:
            event.after.before = event
