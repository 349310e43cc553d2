"""When followers hear of commits that no append takes along."""

from types import SimpleNamespace

import pytest

from raft_store.commit_marks import ENTRY_DELAY_S, MARK_DELAY_S, CommitMarks


class Loop:
    """An event loop's clock and its timers, of which the marks never need two."""

    def __init__(self):
        self.now_s = 0.0
        self.timers = []  # (when, call), those that wait
        self.set = 0

    def time(self):
        return self.now_s

    def call_later(self, delay_s, call):
        timer = (self.now_s + delay_s, call)
        self.timers.append(timer)
        self.set += 1
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

    def ring(self):
        ((self.now_s, call),) = self.timers
        self.timers.clear()
        call()


@pytest.fixture
def leader():
    loop = Loop()
    core = SimpleNamespace(
        owes_mark=False,
        owes_from=0,
        has_turn_for_others=False,
        delays_marks=False,
        delays_entries=False,
        log=SimpleNamespace(last_index=7),
    )
    woken = []
    marks = CommitMarks(core, loop, wake=lambda: woken.append(loop.now_s))
    return SimpleNamespace(loop=loop, core=core, marks=marks, woken=woken)


def owe(leader, *, at_s, mark=True):
    """A pass ends with something that followers have not heard of, or still have not."""
    leader.loop.now_s, leader.core.owes_mark = at_s, mark
    leader.marks.plan(at_s)


def test_who_owes_nothing_needs_no_timer(leader):
    leader.marks.plan(0.0)
    assert (leader.core.delays_marks, leader.core.delays_entries, leader.loop.timers) == (True, True, [])


def test_a_mark_that_no_append_takes_along_is_told_by_itself(leader):
    owe(leader, at_s=1.0)
    owe(leader, at_s=1.0 + MARK_DELAY_S / 2)  # it waits since the first time
    leader.loop.ring()
    assert leader.woken == [1.0 + MARK_DELAY_S]
    assert (leader.core.delays_marks, leader.core.delays_entries) == (False, True)
    leader.marks.plan(leader.loop.now_s)
    assert leader.core.delays_marks  # the next ones wait again


def test_a_mark_that_an_append_took_along_wakes_nobody(leader):
    owe(leader, at_s=1.0)
    leader.core.owes_mark = False
    leader.marks.plan(1.0)
    leader.loop.ring()
    assert (leader.woken, leader.loop.timers) == ([], [])


def test_one_timer_goes_on_for_a_later_mark_which_waits_its_full_time(leader):
    owe(leader, at_s=1.0)
    leader.core.owes_mark = False
    leader.marks.plan(1.0)
    second_s = 1.0 + MARK_DELAY_S * 0.7
    owe(leader, at_s=second_s)
    assert leader.loop.set == 1
    leader.loop.ring()
    assert leader.woken == []
    leader.loop.ring()
    assert leader.woken == [pytest.approx(second_s + MARK_DELAY_S)]


def test_what_is_owed_of_another_entry_waits_its_full_time(leader):
    owe(leader, at_s=1.0)
    second_s = 1.0 + MARK_DELAY_S * 0.7
    leader.core.log.last_index += 1
    owe(leader, at_s=second_s)
    leader.loop.ring()
    assert leader.woken == []
    leader.loop.ring()
    assert leader.woken == [pytest.approx(second_s + MARK_DELAY_S)]


def test_nothing_is_told_after_the_end(leader):
    owe(leader, at_s=1.0)
    leader.marks.stop()
    assert leader.loop.timers == []


def test_entries_wait_longer_than_marks_however_many_follow(leader):
    leader.core.owes_from = 6
    owe(leader, at_s=1.0, mark=False)
    leader.core.log.last_index += 1
    owe(leader, at_s=1.0 + MARK_DELAY_S, mark=False)
    leader.loop.ring()
    assert leader.woken == [1.0 + ENTRY_DELAY_S]
    assert (leader.core.delays_marks, leader.core.delays_entries) == (True, False)


def test_a_mark_does_not_wait_for_the_turn_of_entries(leader):
    leader.core.owes_from = 6
    owe(leader, at_s=1.0, mark=False)
    owe(leader, at_s=1.001)
    leader.loop.ring()
    assert leader.woken == [1.001 + MARK_DELAY_S]
    owe(leader, at_s=leader.loop.now_s, mark=False)
    leader.loop.ring()
    assert leader.woken[1:] == [pytest.approx(1.0 + ENTRY_DELAY_S)]


def test_entries_that_nobody_waits_for_have_their_turn_at_once_but_not_too_often(leader):
    """Goal: what is written now and then is soon everywhere, and who writes all the time is not in anybody's way."""
    leader.core.owes_from, leader.core.has_turn_for_others = 6, True
    owe(leader, at_s=1.0, mark=False)
    assert (leader.woken, leader.core.delays_entries) == ([1.0], False)
    leader.core.owes_from = 8
    owe(leader, at_s=1.0 + ENTRY_DELAY_S / 2, mark=False)
    assert (leader.woken, leader.core.delays_entries) == ([1.0], True)
    leader.loop.ring()
    assert leader.woken[1:] == [pytest.approx(1.0 + 1.5 * ENTRY_DELAY_S)]
    leader.core.owes_from = 9
    owe(leader, at_s=2.0, mark=False)
    assert leader.woken[2:] == [2.0]


def test_who_takes_nothing_in_just_now_is_not_told_again_and_again(leader):
    leader.core.owes_from = 6
    owe(leader, at_s=1.0, mark=False)
    leader.loop.ring()
    owe(leader, at_s=leader.loop.now_s, mark=False)  # its window is full
    assert len(leader.woken) == 1
    leader.loop.ring()
    assert leader.woken[1:] == [pytest.approx(1.0 + 2 * ENTRY_DELAY_S)]
