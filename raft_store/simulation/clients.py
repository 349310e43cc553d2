"""Simulated clients: each asks one thing at a time and remembers what it saw."""

from collections import deque
from enum import Enum

import msgspec

from raft_store.engine import Index
from raft_store.machine import Machine, encode
from raft_store.mvcc.model import Compacted, FutureRevision, KeyValue, Revision, StoreError
from raft_store.mvcc.requests import (
    Command,
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteResult,
    Put,
    PutResult,
    Range,
    RangeResult,
    Txn,
    TxnResult,
)
from raft_store.mvcc.txn import read
from raft_store.raft.proposals import Proposal
from raft_store.simulation.host import Host
from raft_store.simulation.promises import Promises
from raft_store.simulation.requests import Ask, CompactBack, ReadBack, Swap, told
from raft_store.simulation.world import World


class Outcome(Enum):
    """What a client knows in the end."""

    ANSWERED = "answered"  # also: refused by the store itself
    NOT_MADE = "not made"  # surely
    UNKNOWN = "unknown"


class Operation(msgspec.Struct):
    """One request and what became of it; times in ms."""

    client: int
    request: Command | Range
    local: bool
    sent_ms: float
    floor: Index  # what was acknowledged to anybody when it was sent
    done_ms: float | None = None
    outcome: Outcome = Outcome.UNKNOWN
    answer: object = None
    position: Index = Index(0)  # after which entry it took effect, or read


class Client:
    """One client; ``done`` operations are its history."""

    def __init__(self, number: int, world: World, promises: Promises) -> None:
        self.number = number
        self.history: list[Operation] = []
        self._world = world
        self._promises = promises
        self._chance = world.plan.chance(f"client {number}")
        self._backlog: deque[Ask] = deque()
        self._busy: Operation | None = None
        self._revision = 1  # newest seen
        self._mods: dict[bytes, int] = {}

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing."""
        return self._busy is None and not self._backlog

    def act(self, ask: Ask) -> None:
        """Ask as soon as the last question is answered."""
        self._backlog.append(ask)
        self._go_on()

    def _go_on(self) -> None:
        if self._busy is not None or not self._backlog:
            return
        ask = self._backlog.popleft()
        world = self._world
        operation = Operation(self.number, self._concrete(ask), ask.local, world.timeline.now_ms, self._promises.floor)
        self.history.append(operation)
        self._busy = operation
        host = world.reachable(ask.member)
        world.tell(f"client {self.number} asks member {host.id if host else '-'}: {told(operation.request)}")
        world.timeline.after(ask.patience_ms + 300, lambda: self._finish(operation, Outcome.UNKNOWN, None, Index(0)))
        if host is not None and not self._is_lost():
            host.soon(self._hop_ms(), lambda: self._arrive(host, operation, ask.patience_ms))

    def _concrete(self, ask: Ask) -> Command | Range:
        match ask.request:
            case Swap(key=key, value=value):
                compare = Compare(key, b"", CompareTarget.MOD, CompareResult.EQUAL, self._mods.get(key, 0))
                return Txn([compare], [Put(key, value, prev_kv=True)], [Range(key)])
            case ReadBack(key=key, end=end, back=back):
                return Range(key, end, revision=Revision(max(1, self._revision - back)))
            case CompactBack(back=back):
                return Compact(Revision(max(1, self._revision - back)))
            case _ as concrete:
                return concrete

    # -- at the member -----------------------------------------------------------------------------------------------

    def _arrive(self, host: Host, operation: Operation, patience_ms: float) -> None:
        if isinstance(operation.request, Range):
            if operation.local:
                self.readable(host, operation)
            else:
                host.replica.read((self, operation))
                host.serve()
            return
        proposal = host.replica.propose(encode(operation.request), (self, operation))
        host.soon(patience_ms, lambda: self._give_up(proposal, operation))
        host.serve()

    def _give_up(self, proposal: Proposal, operation: Operation) -> None:
        """The member's deadline: what is in flight is unknown, anything else was surely not made."""
        if operation.done_ms is None and not proposal.abandoned:
            proposal.abandoned = True
            self._answer(Outcome.UNKNOWN if proposal.in_flight else Outcome.NOT_MADE, operation, None, Index(0))

    def readable(self, host: Host, operation: Operation) -> None:
        """The member may read now."""
        request, machine = operation.request, host.machine
        assert isinstance(request, Range)
        assert isinstance(machine, Machine)
        answer: object
        try:
            answer = read(machine.store, request)
        except (Compacted, FutureRevision) as exc:
            answer = exc
        position = host.applied
        floor = None if operation.local else operation.floor
        self._promises.read(host.id, request, answer, position=position, floor=floor)
        self._answer(Outcome.ANSWERED, operation, answer, position)

    def applied(self, operation: Operation, answer: object, position: Index) -> None:
        """The member applied what was asked."""
        self._answer(Outcome.ANSWERED, operation, answer, position)

    def _answer(self, outcome: Outcome, operation: Operation, answer: object, position: Index) -> None:
        if not self._is_lost():
            self._world.timeline.after(self._hop_ms(), lambda: self._finish(operation, outcome, answer, position))

    # -- at home -----------------------------------------------------------------------------------------------------

    def _finish(self, operation: Operation, outcome: Outcome, answer: object, position: Index) -> None:
        if operation.done_ms is not None:
            return
        operation.done_ms = self._world.timeline.now_ms
        operation.outcome, operation.answer, operation.position = outcome, answer, position
        self._world.tell(f"client {self.number} hears: {_brief(outcome, answer)}")
        if outcome is Outcome.ANSWERED:
            self._learn(answer)
            self._promises.lease_answered(operation.request, answer, position=position, sent_ms=operation.sent_ms)
            if not operation.local:
                wrote = not isinstance(operation.request, Range)
                self._promises.acknowledged(position, floor=operation.floor, wrote=wrote)
        elif outcome is Outcome.NOT_MADE:
            for value in _values(operation.request):
                self._promises.refused(value)
        self._busy = None
        self._go_on()

    def _learn(self, answer: object) -> None:
        match answer:
            case PutResult() | DeleteResult() | TxnResult() | RangeResult():
                self._revision = max(self._revision, answer.revision)
            case _:
                pass
        kvs: list[KeyValue] = []
        match answer:
            case RangeResult(kvs=found):
                kvs.extend(found)
            case TxnResult(results=results):
                kvs.extend(kv for result in results if isinstance(result, RangeResult) for kv in result.kvs)
            case _:
                pass
        for kv in kvs:
            self._mods[kv.key] = kv.mod_revision

    def _hop_ms(self) -> float:
        return self._chance.uniform(0.2, 3)

    def _is_lost(self) -> bool:
        return not self._world.calm and self._chance.random() < 0.02


def _values(request: Command | Range) -> list[bytes]:
    match request:
        case Put(value=value):
            return [value]
        case Txn():
            return [op.value for op in (*request.success, *request.failure) if isinstance(op, Put)]
        case _:
            return []


def _brief(outcome: Outcome, answer: object) -> str:
    if outcome is not Outcome.ANSWERED:
        return str(outcome.value)
    if isinstance(answer, StoreError):
        return f"{type(answer).__name__}({answer})"
    if isinstance(answer, RangeResult):
        found = ", ".join(f"{kv.key.decode()}={kv.value.decode()}@{kv.mod_revision}" for kv in answer.kvs)
        return f"revision {answer.revision}: {found or 'nothing'}"
    if isinstance(answer, PutResult | DeleteResult):
        return f"done at revision {answer.revision}"
    if isinstance(answer, TxnResult):
        return f"{'then' if answer.succeeded else 'else'} at revision {answer.revision}"
    return str(answer)
