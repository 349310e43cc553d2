"""How long a silence has to last: quick to widen, slow to narrow, never below the floor nor beyond the ceiling."""

import random

import pytest

from raft_store.engine import MemberId, Term
from raft_store.raft.patience import MARGIN, NARROW_TICKS, Patience

HEARTBEAT, FLOOR, CEILING = 3, 9, 90
LEADER, TERM = MemberId(1), Term(1)


@pytest.fixture
def patience():
    patience = Patience(heartbeat_ticks=HEARTBEAT, floor_ticks=FLOOR, ceiling_ticks=CEILING)
    patience.heard(LEADER, TERM)
    return patience


def pass_time(patience, ticks):
    for _ in range(ticks):
        patience.tick()


def hear_after(patience, ticks, leader=LEADER, term=TERM):
    pass_time(patience, ticks)
    patience.heard(leader, term)


def test_usual_silences_leave_it_at_its_floor(patience):
    for silence in (3, 4, 6, 1, 0, 6):
        hear_after(patience, silence)
    assert patience.ticks == FLOOR


@pytest.mark.parametrize(
    ("silence", "ticks"),
    [(7, FLOOR + MARGIN), (10, FLOOR + 4 * MARGIN), (16, FLOOR + 10 * MARGIN), (17, CEILING), (CEILING, CEILING)],
)
def test_one_long_silence_widens_it_at_once(patience, silence, ticks):
    hear_after(patience, silence)
    assert patience.ticks == ticks


def test_what_no_time_out_could_have_outlasted_teaches_nothing(patience):
    hear_after(patience, CEILING + 1)
    assert patience.ticks == FLOOR
    assert patience.counts[-1] == 1


def test_the_longest_silence_counts(patience):
    hear_after(patience, 10)
    hear_after(patience, 8)
    assert patience.ticks == FLOOR + 4 * MARGIN


def test_only_silences_of_one_leader_in_its_term_are_measured(patience):
    hear_after(patience, 20, leader=MemberId(2))
    hear_after(patience, 20, leader=MemberId(2), term=Term(2))
    assert patience.ticks == FLOOR
    hear_after(patience, 0)
    assert patience.ticks == CEILING  # the first one was slow, not dead


def test_what_was_added_is_halved_again_and_again(patience):
    hear_after(patience, 14)
    added = []
    for _ in range(5):
        for _ in range(NARROW_TICKS // HEARTBEAT + 1):
            hear_after(patience, HEARTBEAT)
        added.append((patience.ticks - FLOOR) // MARGIN)
    assert added == [4, 2, 1, 0, 0]


def test_time_alone_does_not_narrow_it(patience):
    """Whoever plans how long it may sleep relies on that."""
    hear_after(patience, 12)
    wide = patience.ticks
    pass_time(patience, 5 * NARROW_TICKS)
    assert patience.ticks == wide


def test_silences_that_come_again_keep_it_wide(patience):
    hear_after(patience, 12)
    wide = patience.ticks
    for _ in range(5):
        pass_time(patience, NARROW_TICKS - 100)
        patience.heard(LEADER, TERM)
        hear_after(patience, 12)
        assert patience.ticks == wide


@pytest.mark.parametrize("seed", range(20))
def test_it_stays_within_its_bounds_whatever_happens(patience, seed):
    chance = random.Random(seed)
    widths = set()
    for _ in range(2000):
        pass_time(patience, int(chance.paretovariate(0.8)) % 5000)
        patience.heard(MemberId(chance.randrange(3)), Term(chance.randrange(2)))
        assert FLOOR <= patience.ticks <= CEILING
        widths.add(patience.ticks)
    assert {FLOOR, CEILING} <= widths
