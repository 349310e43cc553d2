"""What simulated clients do, as actions of a plan, and how a plan of them is drawn."""

from random import Random
from typing import TypeAlias

import msgspec

from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import (
    Compact,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    LeaseGrant,
    LeaseRenew,
    LeaseRevoke,
    Operation,
    Put,
    Range,
    Txn,
)
from raft_store.simulation.plan import Action, Mix, Plan, chance, draw_settings, draw_trouble, draw_weather

KEYS = (b"a", b"b", b"c", b"d", b"e")
RANGES = ((b"a", b"\0"), (b"b", b"d"), (b"c", b"\0"), (b"a", b""), (b"d", b""))
LEASES = (LeaseId(1), LeaseId(2), LeaseId(3))
CLIENTS, LISTENERS = 3, 3


class Swap(msgspec.Struct, frozen=True):
    """Write ``key`` if it is as this client saw it last."""

    key: bytes
    value: bytes


class ReadBack(msgspec.Struct, frozen=True):
    """Read a range as it was ``back`` revisions before the newest one that this client knows."""

    key: bytes
    end: bytes
    back: int


class CompactBack(msgspec.Struct, frozen=True):
    """Compact up to ``back`` revisions before the newest one that this client knows."""

    back: int


Request: TypeAlias = (
    Put | DeleteRange | Txn | Range | LeaseGrant | LeaseRenew | LeaseRevoke | Swap | ReadBack | CompactBack
)


class Ask(Action, frozen=True):
    """A client asks a member; it does one thing at a time and waits at most ``patience_ms`` for the answer."""

    client: int
    member: int
    patience_ms: float
    request: Request
    local: bool = False  # whatever this member knows will do

    def told(self) -> str:
        """See ``Action``."""
        how = " (local)" if self.local else ""
        return f"{self.at_ms / 1000:8.3f}  client {self.client} asks member {self.member}: {told(self.request)}{how}"


class Watch(Action, frozen=True):
    """A listener begins to watch a range, at a revision ``back`` from the newest it knows; None: from now on."""

    listener: int
    key: bytes
    end: bytes
    back: int | None
    puts: bool = True
    deletes: bool = True


class AskProgress(Action, frozen=True):
    """A listener asks how far its stream is."""

    listener: int


class Unwatch(Action, frozen=True):
    """A listener ends its oldest watch."""

    listener: int


class Move(Action, frozen=True):
    """A listener loses its connection and goes on elsewhere."""

    listener: int
    member: int


class _Values:
    """Every value is written once, so that it tells who wrote it."""

    def __init__(self) -> None:
        self._count = 0

    def next(self) -> bytes:
        self._count += 1
        return b"v%d" % self._count


def draw(seed: int, *, mix: Mix | None = None, asks: int = 130) -> Plan:
    """Return the plan of one seed."""
    members, duration_ms = (5 if seed % 4 == 0 else 3), 6000.0
    random = chance(seed, "plan of the store")
    weather = draw_weather(random)
    actions, spares = draw_trouble(random, mix or Mix(), members=members, duration_ms=duration_ms)
    values = _Values()
    for at_ms in sorted(random.uniform(0, duration_ms) for _ in range(asks)):
        request = draw_request(random, values)
        actions.append(
            Ask(
                at_ms=at_ms,
                client=random.randint(1, CLIENTS),
                member=random.randint(1, members),
                patience_ms=random.uniform(100, 2000),
                request=request,
                local=isinstance(request, Range | ReadBack) and random.random() < 0.25,
            )
        )
    actions += _draw_watching(random, members, duration_ms)
    actions.sort(key=lambda action: action.at_ms)
    return Plan(
        seed=seed,
        members=members,
        spares=spares,
        duration_ms=duration_ms,
        weather=weather,
        actions=tuple(actions),
        settings=draw_settings(seed),
    )


def _draw_watching(random: Random, members: int, duration_ms: float) -> list[Action]:
    actions: list[Action] = []
    for listener in range(1, LISTENERS + 1):
        for _ in range(2):
            key, end = random.choice(RANGES)
            back = random.choice((None, None, 0, 3, 10, 30, -5))
            only = random.random()
            actions.append(
                Watch(
                    at_ms=random.uniform(0, duration_ms),
                    listener=listener,
                    key=key,
                    end=end,
                    back=back,
                    puts=only > 0.1,
                    deletes=only < 0.9,
                )
            )
        actions += [AskProgress(at_ms=random.uniform(0, duration_ms), listener=listener) for _ in range(3)]
        for _ in range(random.randint(0, 3)):
            at_ms, member = random.uniform(0, duration_ms), random.randint(1, members)
            actions.append(Move(at_ms=at_ms, listener=listener, member=member))
        if random.random() < 0.3:
            actions.append(Unwatch(at_ms=random.uniform(0, duration_ms), listener=listener))
    return actions


def draw_request(random: Random, values: _Values) -> Request:
    """Return one request."""
    key = random.choice(KEYS)
    first, end = random.choice(RANGES)
    kinds = {
        "put": 30,
        "leased": 10,
        "delete": 6,
        "txn": 10,
        "swap": 10,
        "range": 20,
        "back": 6,
        "compact": 5,
        "grant": 6,
        "renew": 8,
        "revoke": 2,
    }
    match random.choices(list(kinds), list(kinds.values()))[0]:
        case "put":
            return Put(key, values.next(), prev_kv=random.random() < 0.3)
        case "leased":
            return Put(key, values.next(), lease=random.choice(LEASES))
        case "delete":
            return DeleteRange(first, end, prev_kv=random.random() < 0.5)
        case "txn":
            return _draw_txn(random, values)
        case "swap":
            return Swap(key, values.next())
        case "range":
            return Range(first, end)
        case "back":
            return ReadBack(first, end, random.randint(-1, 25))
        case "compact":
            return CompactBack(random.randint(0, 20))
        case "grant":
            return LeaseGrant(random.choice(LEASES), random.randint(1, 3))
        case "renew":
            return LeaseRenew([random.choice(LEASES)])
        case _:
            return LeaseRevoke(random.choice(LEASES))


def _draw_txn(random: Random, values: _Values) -> Txn:
    key, other, third = random.sample(KEYS, 3)
    exists = CompareResult.GREATER if random.random() < 0.6 else CompareResult.EQUAL
    compare = Compare(key, b"", CompareTarget.VERSION, exists, 0)
    lease = random.choice((*LEASES, LeaseId(0)))
    success: list[Operation] = [Put(key, values.next()), Put(other, values.next(), lease=lease), Range(key)]
    failure: list[Operation] = [DeleteRange(other), Put(third, values.next()), Range(b"a", b"\0")]
    return Txn([compare], success, failure)


def told(request: object) -> str:
    """Return a request in the fewest words, for a transcript."""
    match request:
        case Put(key=key, value=value, lease=lease):
            return f"put {key.decode()}={value.decode()}" + (f" lease={lease}" if lease else "")
        case DeleteRange(key=key, end=end):
            return f"delete {_span(key, end)}"
        case Range(key=key, end=end, revision=revision):
            return f"read {_span(key, end)}" + (f" at revision {revision}" if revision else "")
        case Txn(compares=compares, success=success, failure=failure):
            held = ", ".join(
                f"{c.target.name.lower()}({c.key.decode()}) {c.result.name.lower()} {c.operand!r}" for c in compares
            )
            return f"if {held} ({', '.join(map(told, success))}) else ({', '.join(map(told, failure))})"
        case Compact(revision=revision):
            return f"compact up to {revision}"
        case LeaseGrant(lease=lease, ttl_s=ttl_s):
            return f"grant lease {lease} for {ttl_s} s"
        case LeaseRenew(leases=leases):
            return f"renew lease {', '.join(map(str, leases))}"
        case LeaseRevoke(lease=lease):
            return f"revoke lease {lease}"
        case Swap(key=key, value=value):
            return f"swap {key.decode()}={value.decode()}"
        case ReadBack(key=key, end=end, back=back):
            return f"read {_span(key, end)} {back} revisions back"
        case CompactBack(back=back):
            return f"compact {back} revisions back"
        case _:
            return str(request)


def _span(key: bytes, end: bytes) -> str:
    if not end:
        return key.decode()
    last = "end" if end == b"\0" else end.decode()
    return f"[{key.decode()}, {last})"
