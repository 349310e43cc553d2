"""Priority and fairness: who belongs where, whose turn it is, and who is told to come again."""

import asyncio
from collections import Counter

import pytest

from api.errors import TooManyRequests
from master.access import fairness
from master.access.fairness import Fairness, Seats
from master.access.flows import LEVEL, LEVELS, SCHEMAS, Level, classify
from master.access.rules import Request
from master.access.user import ANONYMOUS, AUTHENTICATED, User

NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
ADMIN = User("admin", ("system:masters", AUTHENTICATED))
OWN = User("system:master:m1", ("system:masters", AUTHENTICATED))
SCHEDULER = User("system:kube-scheduler", (AUTHENTICATED,))


def robot(namespace):
    return User(
        f"system:serviceaccount:{namespace}:r",
        ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED),
    )


@pytest.mark.parametrize(
    ("request_", "schema"),
    [
        (Request(OWN, "list", resource="pods"), "exempt"),
        (Request(ANONYMOUS, "get", path="/readyz"), "probes"),
        (Request(NODE, "update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1"), "system-node-high"),
        (Request(NODE, "patch", "", "nodes", "status", "", "n1"), "system-node-high"),
        (Request(NODE, "list", resource="pods"), "system-nodes"),
        (Request(SCHEDULER, "update", "coordination.k8s.io", "leases", "", "kube-system", "x"), "system-leader-election"),
        (Request(ADMIN, "list", resource="pods"), "administrators"),
        (Request(robot("kube-system"), "list", resource="pods"), "kube-system-service-accounts"),
        (Request(robot("shop"), "list", resource="pods"), "service-accounts"),
        (Request(User("bob", (AUTHENTICATED,)), "list", resource="pods"), "global-default"),
        (Request(ANONYMOUS, "list", resource="pods"), "catch-all"),
    ],
)  # fmt: skip
def test_where_requests_belong(request_, schema):
    assert classify(request_).schema.name == schema


def test_every_schema_has_its_level_and_every_uid_is_its_own():
    assert {each.level for each in SCHEMAS} == {each.name for each in LEVELS}
    uids = [each.uid for each in (*SCHEMAS, *LEVELS)]
    assert len(set(uids)) == len(uids)


def level(**limits):
    return Level("test", **{"seats": 2, "flows": 4, "waiting": 3, **limits})


async def turns(seats, *flows):
    """Begin waiting for a seat in this order; return the tasks."""
    tasks = []
    for flow in flows:
        tasks.append(asyncio.create_task(seats.take(flow)))
        await asyncio.sleep(0)
    return tasks


async def test_flows_take_turns():
    """Goal: a greedy flow delays another by one request at most. Method: one seat, five waiting of a before one of b."""
    seats, served = Seats(level(seats=1, waiting=9)), []
    await seats.take("a")
    tasks = await turns(seats, "a", "a", "a", "b", "a", "b")
    for number, task in enumerate(tasks):
        task.add_done_callback(lambda _, flow="aaabab"[number]: served.append(flow))
    for _ in tasks:
        seats.give_back()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert "".join(served) == "ababaa"
    seats.give_back()
    assert (seats.taken, seats.waiting) == (0, 0)


async def test_no_more_are_served_than_there_are_seats():
    seats, busy, most = Seats(level(seats=3, waiting=100)), 0, 0

    async def request(flow):
        nonlocal busy, most
        await seats.take(flow)
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        seats.give_back()

    await asyncio.gather(*(request("ab"[number % 2]) for number in range(40)))
    assert (most, seats.taken, seats.waiting) == (3, 0, 0)


async def test_waiting_is_bounded():
    seats = Seats(level(seats=1, flows=2, waiting=2))
    await seats.take("a")
    tasks = await turns(seats, "a", "a", "b")
    for flow in ("a", "c"):  # a has too many, c would be one flow too many
        with pytest.raises(TooManyRequests) as refused:
            await seats.take(flow)
        assert refused.value.retry_after_s == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert seats.waiting == 0
    seats.give_back()
    await seats.take("c")


async def test_who_waits_too_long_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(fairness, "PATIENCE_S", 0.0)
    seats = Seats(level(seats=1))
    await seats.take("a")
    with pytest.raises(TooManyRequests):
        await seats.take("b")
    assert seats.waiting == 0
    seats.give_back()
    assert seats.taken == 0


async def test_a_client_that_gives_up_leaves_no_seat_behind():
    seats = Seats(level(seats=1))
    await seats.take("a")
    (gone, stays) = await turns(seats, "b", "c")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    seats.give_back()
    await stays
    assert (seats.taken, seats.waiting) == (1, 0)


async def test_a_client_that_gives_up_when_its_turn_has_come():
    """The seat was given in the same moment: it must go on to the next."""
    seats = Seats(level(seats=1))
    await seats.take("a")
    (gone,) = await turns(seats, "b")
    seats.give_back()  # to b, who has not run yet
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert seats.taken == 0


async def test_lasting_requests_hold_no_seat():
    fair = Fairness()
    flow = classify(Request(ANONYMOUS, "watch", resource="pods"))
    async with fair.seat(flow, lasting=True), fair.seat(flow):
        assert fair.levels["catch-all"].taken == 1
    with pytest.raises(ZeroDivisionError):
        async with fair.seat(flow):
            raise ZeroDivisionError
    assert fair.levels["catch-all"].taken == 0


async def test_one_level_does_not_touch_another():
    fair = Fairness()
    greedy, beat = (
        classify(Request(ADMIN, "list", resource="pods")),
        classify(Request(NODE, "get", "", "nodes", "", "", "n1")),
    )
    async with asyncio.timeout(5):
        async with contextlib_stack(fair, greedy, LEVEL["administrators"].seats):
            waiting = asyncio.create_task(hold(fair, greedy))
            await asyncio.sleep(0)
            async with fair.seat(beat):
                assert not waiting.done()
        await waiting
    assert Counter(seats.taken for seats in fair.levels.values()) == {0: len(LEVELS)}


async def hold(fair, flow):
    async with fair.seat(flow):
        pass


def contextlib_stack(fair, flow, count):
    import contextlib

    @contextlib.asynccontextmanager
    async def held():
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(fair.seat(flow))
            yield

    return held()
