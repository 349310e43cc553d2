"""The checker against a twin that tries every order, and against histories that are wrong on purpose."""

import itertools
import math
import random

import msgspec
import pytest

from deploy.experiments.linearizability import (
    UNKNOWN_REVISION,
    Compare,
    Delete,
    Found,
    Get,
    Operation,
    Put,
    Request,
    Response,
    Verdict,
    _Search,
    apply,
    check,
    explained_by_revisions,
)

KEYS = ("a", "b")


def judged(operations, limit_s=1e9):
    return check(operations, now=lambda: 0.0, limit_s=limit_s).verdict


def searched(operations):
    """The search alone, over all keys at once."""
    keys = frozenset(key for operation in operations for key in operation.request.keys)
    return _Search(keys, operations, now=lambda: 0.0, deadline_s=math.inf).run().verdict


def brute(operations):
    """Every subset of the pending operations, in every order."""
    keys = sorted({key for operation in operations for key in operation.request.keys})
    certain = [operation for operation in operations if operation.response is not None]
    pending = [operation for operation in operations if operation.response is None]
    for count in range(len(pending) + 1):
        for chosen in itertools.combinations(pending, count):
            for order in itertools.permutations([*certain, *chosen]):
                if _in_time(order) and _explains(order, keys):
                    return Verdict.LINEARIZABLE
    return Verdict.VIOLATED


def _in_time(order):
    return all(
        later.returned_s >= earlier.called_s for place, earlier in enumerate(order) for later in order[place + 1 :]
    )


def _explains(order, keys):
    states = [(None,) * len(keys)]
    for operation in order:
        revision = operation.response.revision if operation.response else UNKNOWN_REVISION
        states = [
            after for state in states for after in apply(state, keys, operation.request, operation.response, revision)
        ]
    return bool(states)


class Store:
    """A right store, to make right histories with."""

    def __init__(self):
        self.revision = 1
        self.state = {}

    def do(self, request):
        held = all(
            (self.state[c.key].mod_revision if c.key in self.state else 0) == c.mod_revision for c in request.compares
        )
        found, wrote = [], False
        for step in request.success if held else request.failure:
            match step:
                case Put(key=key, value=value):
                    version = self.state[key].version + 1 if key in self.state else 1
                    self.state[key] = Found(value, version, self.revision + 1)
                    wrote = True
                case Delete(key=key):
                    wrote |= self.state.pop(key, None) is not None
                case Get(key=key):
                    found.append(self.state.get(key))
        self.revision += wrote
        return Response(self.revision, held, tuple(found))


def history(seed, *, count, clients, lost=0.15, keys=KEYS):
    """A right history: each operation takes effect at one moment between its call and its return."""
    chance = random.Random(seed)
    store, values = Store(), itertools.count(1)
    free_at = dict.fromkeys(range(clients), 0.0)
    drafts = []
    for _ in range(count):
        client = min(free_at, key=lambda each: (free_at[each], each))
        called = free_at[client] + chance.random()
        effect = called + chance.random() * 2
        returned = effect + chance.random()
        free_at[client] = returned
        drafts.append((effect, client, called, returned, chance.random() < lost))
    operations = []
    for _, client, called, returned, is_lost in sorted(drafts):
        key, other = chance.sample(keys, 2) if len(keys) > 1 else (keys[0], keys[0])
        seen = store.state[key].mod_revision if key in store.state else 0
        request = chance.choice(
            (
                Request((Put(key, f"v{next(values)}"),)),
                Request((Get(key),)),
                Request((Get(key),)),
                Request((Delete(key),)),
                Request((Put(key, f"v{next(values)}"),), (Compare(key, chance.choice((seen, seen, 1))),), (Get(key),)),
                Request((Put(key, f"v{next(values)}"), Put(other, f"w{next(values)}"), Get(key)))
                if chance.random() < 0.3 and other != key
                else Request((Get(key),)),
            )
        )
        if is_lost and chance.random() < 0.5:
            operations.append(Operation(str(client), called, math.inf, request, None))  # and never happens
            continue
        response = store.do(request)
        if is_lost:
            operations.append(Operation(str(client), called, math.inf, request, None))
        else:
            operations.append(Operation(str(client), called, returned, request, response))
    chance.shuffle(operations)
    return operations


def spoiled(operations, chance):
    """The same, with one answer or one time changed; it may still be right, by luck."""
    operations = list(operations)
    certain = [place for place, operation in enumerate(operations) if operation.response is not None]
    place = chance.choice(certain)
    operation = operations[place]
    response = operation.response
    match chance.randrange(4):
        case 0 if response.found:
            others = [f for o in operations if o.response for f in o.response.found]
            found = (chance.choice([None, *others]), *response.found[1:])
            response = msgspec.structs.replace(response, found=found)
        case 1:
            response = msgspec.structs.replace(response, succeeded=not response.succeeded)
        case 2:
            length = operation.returned_s - operation.called_s
            called = chance.uniform(0, 6)
            operation = msgspec.structs.replace(operation, called_s=called, returned_s=called + length)
        case _:
            response = msgspec.structs.replace(response, revision=response.revision + chance.choice((-1, 1)))
    operations[place] = msgspec.structs.replace(operation, response=response)
    return operations


@pytest.mark.parametrize("seed", range(150))
def test_small_histories_are_judged_as_by_trying_every_order(seed):
    chance = random.Random(seed)
    right = history(seed, count=6, clients=3)
    for operations in (right, spoiled(right, chance), spoiled(spoiled(right, chance), chance)):
        expected = brute(operations)
        assert judged(operations) is expected
        assert searched(operations) is expected
        if explained_by_revisions(operations):
            assert expected is Verdict.LINEARIZABLE
    assert brute(right) is Verdict.LINEARIZABLE


def test_both_verdicts_are_reached():
    """Goal: the comparison above compares something. Method: count what the twin says of the spoiled ones."""
    verdicts = [judged(spoiled(history(seed, count=6, clients=3), random.Random(seed))) for seed in range(150)]
    assert verdicts.count(Verdict.VIOLATED) > 40
    assert verdicts.count(Verdict.LINEARIZABLE) > 40


@pytest.mark.parametrize("seed", range(5))
def test_long_histories_are_explained_by_their_revisions_or_found(seed):
    operations = history(seed, count=1500, clients=8, lost=0.01, keys=tuple("abcdefgh"))
    assert judged(operations) is Verdict.LINEARIZABLE


def op(client, called, returned, request, response):
    return Operation(client, called, returned, request, response)


def put(client, called, returned, value, revision):
    return op(client, called, returned, Request((Put("k", value),)), Response(revision, True))


def lost_put(client, called, value):
    return op(client, called, math.inf, Request((Put("k", value),)), None)


def get(client, called, returned, found, revision):
    return op(client, called, returned, Request((Get("k"),)), Response(revision, True, (found,)))


WRONG = {
    "a stale read": [
        put("1", 0, 1, "x", 2),
        put("1", 2, 3, "y", 3),
        get("2", 4, 5, Found("x", 1, 2), 2),
    ],
    "a lost write": [put("1", 0, 1, "x", 2), get("2", 2, 3, None, 2)],
    "a read that goes back": [
        put("1", 0, 1, "x", 2),
        lost_put("1", 2, "y"),
        get("2", 3, 4, Found("y", 2, 3), 3),
        get("2", 5, 6, Found("x", 1, 2), 2),
    ],
    "a write that happens before it is asked for": [get("2", 0, 1, Found("x", 1, 2), 2), put("1", 2, 3, "x", 2)],
    "two winners of one compare": [
        op("1", 0, 1, Request((Put("k", "x"),), (Compare("k", 0),)), Response(2, True)),
        op("2", 0, 1, Request((Put("k", "y"),), (Compare("k", 0),)), Response(3, True)),
    ],
    "half a transaction": [
        op("1", 0, 1, Request((Put("k", "x"), Put("l", "y"))), Response(2, True)),
        op("2", 2, 3, Request((Get("k"), Get("l"))), Response(2, True, (Found("x", 1, 2), None))),
    ],
    "a write that took effect twice": [
        lost_put("1", 0, "x"),
        get("2", 1, 2, Found("x", 1, 2), 2),
        put("2", 3, 4, "y", 3),
        get("2", 5, 6, Found("x", 3, 4), 4),
    ],
    "a version that is skipped": [put("1", 0, 1, "x", 2), get("1", 2, 3, Found("x", 2, 2), 2)],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_histories_are_refused(name):
    assert judged(WRONG[name]) is Verdict.VIOLATED


RIGHT = {
    "an unknown write that is seen much later": [
        lost_put("1", 0, "x"),
        get("2", 1, 2, None, 1),
        get("2", 9, 10, Found("x", 1, 2), 2),
    ],
    "an unknown write that never happens": [lost_put("1", 0, "x"), get("2", 1, 2, None, 1)],
    "concurrent reads of two values": [
        put("1", 0, 10, "x", 2),
        get("2", 1, 2, None, 1),
        get("2", 3, 4, Found("x", 1, 2), 2),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_strange_but_right_histories_are_accepted(name):
    assert judged(RIGHT[name]) is Verdict.LINEARIZABLE


def test_what_could_not_be_placed_is_named():
    finding = check(WRONG["a stale read"], now=lambda: 0.0, limit_s=1.0)
    assert finding.keys == {"k"}
    assert WRONG["a stale read"][2] in finding.stuck


def test_a_search_that_takes_too_long_says_so():
    """Many concurrent unknown writes, and one answer that none of them explains."""
    clock = itertools.count()
    operations = [lost_put(str(n), 0, f"v{n}") for n in range(20)] + [get("r", 1, 2, Found("other", 1, 5), 5)]
    finding = check(operations, now=lambda: float(next(clock)), limit_s=3.0)
    assert finding.verdict is Verdict.UNDECIDED


def test_values_have_to_tell_their_writer():
    with pytest.raises(ValueError, match="written twice"):
        judged([put("1", 0, 1, "x", 2), put("2", 0, 1, "x", 3)])
