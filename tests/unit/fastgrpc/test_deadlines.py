"""Time that is looked at in steps."""

import pytest

from fastgrpc.deadlines import until_beat_s


@pytest.mark.parametrize("now_s", [0.0, 0.1, 0.4999, 0.5, 12_345.678, 1e7 + 0.3])
def test_whoever_waits_for_a_beat_meets_the_others_there(now_s):
    """A keep-alive every half second wakes nobody whom a pulse every quarter of a second wakes anyway."""
    long_s, short_s = (until_beat_s(now_s, period_s) for period_s in (0.5, 0.25))
    assert 0 < short_s <= long_s <= 0.5
    assert short_s == pytest.approx(long_s) or long_s - short_s == pytest.approx(0.25)


def test_a_beat_that_is_now_has_been():
    assert until_beat_s(7.0, 0.5) == 0.5
