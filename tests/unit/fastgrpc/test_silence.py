"""Silence is the other end's, not our own absence."""

import pytest

from fastgrpc.silence import Silence


def looked_at(silence, *moments_s):
    return [silence.look(moment_s, every_s=1.0) for moment_s in moments_s]


def test_silence_is_counted_from_the_look_that_found_the_last_sign_of_life():
    silence = Silence(10.0)
    assert looked_at(silence, 11.0, 12.0, 13.0) == [0.0, 1.0, 2.0]
    silence.break_()
    assert looked_at(silence, 14.0, 15.0) == [0.0, 1.0]


@pytest.mark.parametrize("absence_s", [3.0, 100.0])
def test_who_looks_late_takes_it_for_two_looks_at_most(absence_s):
    silence = Silence(10.0)
    assert looked_at(silence, 11.0, 12.0) == [0.0, 1.0]
    assert looked_at(silence, 12.0 + absence_s, 13.0 + absence_s) == [3.0, 4.0]
