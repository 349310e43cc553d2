"""Elections stay calm: delays that grow do not depose a leader that lives; a leader that dies is replaced in time."""

import random

import msgspec
import pytest

from raft_store.simulation import plan as p
from raft_store.simulation import values
from raft_store.simulation.runs import KINDS, simulate

pytestmark = pytest.mark.timeout(300)  # of a machine that has other things to do

MEMBERS = 3
SETTINGS = p.Settings(election_stretch=10, resets=True)
FLOOR_MS = SETTINGS.tick_ms * SETTINGS.election_ticks
CEILING_MS = FLOOR_MS * SETTINGS.election_stretch
SLOWEST_TICK = (1 + p.TICK_JITTER) / (1 - 0.05)  # tick jitter and a slow clock
SETTLED_MS = 3000.0  # long after the first election
FIRST_MS = 70.0  # a pause that the shortest time-out bears, with the heartbeat that was due and its way
GROWTH = 1.5  # of one delay over the longest before it
MOST_MS = 0.8 * CEILING_MS


def draw_stalls(seed, *, count=24):
    """Return pauses, and when they are over: each of one member, of two at once, or of the whole machine.

    A member learns from what it feels itself: only a leader feels that both others stand still, nobody that everybody
    does. So the delays of each of these grow by themselves.
    """
    chance = random.Random(f"stalls {seed}")
    pauses, at_ms = [], SETTLED_MS
    longest_ms = dict.fromkeys(((p.LEADER,), (1,), (2,), (1, 2), (1, 2, 3)), FIRST_MS / GROWTH)
    for _ in range(count):
        victims = chance.choices(list(longest_ms), (3, 1, 1, 3, 1))[0]
        for_ms = min(MOST_MS, longest_ms[victims] * chance.uniform(1.2, GROWTH))
        longest_ms[victims] = max(longest_ms[victims], for_ms)
        pauses += [p.Pause(at_ms=at_ms, who=who, for_ms=for_ms) for who in victims]
        at_ms += for_ms + chance.uniform(200, 600)
    return pauses, at_ms


def run(seed, actions, until_ms, *, settings=SETTINGS, weather=p.CALM):
    weather = msgspec.structs.replace(weather, slow_sync=0)
    proposals = [
        values.Propose(at_ms=at_ms, member=1 + number % MEMBERS, patience_ms=60_000)
        for number, at_ms in enumerate(range(0, int(until_ms), 40))
    ]
    plan = p.Plan(
        seed=seed,
        members=MEMBERS,
        duration_ms=until_ms,
        weather=weather,
        actions=tuple(sorted((*actions, *proposals), key=lambda action: action.at_ms)),
        settings=settings,
    )
    return simulate(KINDS["raft"], plan)


def elected_after(world, at_ms):
    return sorted(moment_ms for moment_ms in world.judge.elected_ms.values() if moment_ms > at_ms)


@pytest.mark.parametrize("seed", range(40))
def test_delays_that_grow_depose_nobody(seed):
    """Goal: whoever bore a delay bears half as much again, up to four fifths of the ceiling. Method: members stand still."""
    pauses, over_ms = draw_stalls(seed)
    assert elected_after(run(seed, pauses, over_ms), SETTLED_MS) == []


def test_the_same_delays_depose_leaders_where_time_outs_do_not_adapt():
    """Goal: the test above can fail. Method: its plans, under time-outs that stay what they are."""
    fixed = msgspec.structs.replace(SETTINGS, election_stretch=1)
    elections = 0
    for seed in range(10):
        pauses, over_ms = draw_stalls(seed)
        elections += len(elected_after(run(seed, pauses, over_ms, settings=fixed), SETTLED_MS))
    assert elections >= 10


@pytest.mark.parametrize("delayed", [False, True], ids=["quiet", "after delays"])
@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_dies_is_replaced_in_time(seed, delayed):
    """Goal: two time-outs at most, the shortest ones where nothing was late. Method: it crashes, and stays away."""
    pauses, over_ms = draw_stalls(seed) if delayed else ([], SETTLED_MS)
    died_ms = over_ms + 500
    world = run(
        seed, [*pauses, p.Crash(at_ms=died_ms, who=p.LEADER, down_ms=60_000, noticed=0)], died_ms + 3 * CEILING_MS
    )
    (replaced_ms, *_) = elected_after(world, died_ms)
    time_out_ms = CEILING_MS if delayed else FLOOR_MS
    votes_ms = 2 * SETTINGS.tick_ms + 50  # the tick that ends it, two rounds of votes, and the disk
    assert replaced_ms - died_ms <= 2 * time_out_ms * SLOWEST_TICK + votes_ms
    assert not delayed or replaced_ms - died_ms > FLOOR_MS  # it had learned something


@pytest.mark.parametrize("delayed", [False, True], ids=["quiet", "after delays"])
@pytest.mark.parametrize("seed", range(20))
def test_a_leader_whose_end_is_noticed_is_replaced_without_a_time_out(seed, delayed):
    """Goal: whatever time-outs have come to, nobody waits for one. Method: it crashes, and connections to it are reset."""
    pauses, over_ms = draw_stalls(seed) if delayed else ([], SETTLED_MS)
    died_ms = over_ms + 500
    world = run(seed, [*pauses, p.Crash(at_ms=died_ms, who=p.LEADER, down_ms=60_000, noticed=1)], died_ms + CEILING_MS)
    (replaced_ms, *later) = elected_after(world, died_ms)
    noticed_ms, votes_ms = 30, 50
    assert replaced_ms - died_ms <= noticed_ms + 3 * SETTINGS.tick_ms * SLOWEST_TICK + votes_ms
    assert later == []


@pytest.mark.parametrize("seed", range(10))
def test_a_leader_is_found_where_votes_are_slower_than_the_shortest_campaign(seed):
    """Goal: no campaign after the other comes to nothing. Method: every message takes up to 400 ms."""
    slow = p.Weather(drop=0, repeat=0, straggle=1)
    world = run(seed, [], 12_000, weather=slow)
    assert len(elected_after(world, 6000)) == 0
