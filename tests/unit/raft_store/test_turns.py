"""When followers hear of what can wait: commits that no append takes along, and entries that a majority keeps."""

from types import SimpleNamespace

import pytest

from raft_store.turns import DELAY_S, Turns


class Loop:
    """An event loop's clock and its timers, of which the turns never need two."""

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
        owes=False,
        owes_from=0,
        has_turn_for_others=False,
        awaits_majority=False,
        delays=False,
        log=SimpleNamespace(last_index=7),
    )
    woken = []
    turns = Turns(core, loop, wake=lambda: woken.append(loop.now_s))
    return SimpleNamespace(loop=loop, core=core, turns=turns, woken=woken)


def owe(leader, *, at_s):
    """A pass ends with something that followers have not heard of, or still have not."""
    leader.loop.now_s, leader.core.owes = at_s, True
    leader.turns.plan(at_s)


def test_who_owes_nothing_needs_no_timer(leader):
    leader.turns.plan(0.0)
    assert (leader.core.delays, leader.loop.timers) == (True, [])


def test_a_mark_that_no_append_takes_along_is_told_by_itself(leader):
    owe(leader, at_s=1.0)
    owe(leader, at_s=1.0 + DELAY_S / 2)  # it waits since the first time
    leader.loop.ring()
    assert leader.woken == [1.0 + DELAY_S]
    assert not leader.core.delays
    leader.turns.plan(leader.loop.now_s)
    assert leader.core.delays  # the next ones wait again


def test_a_mark_that_an_append_took_along_wakes_nobody(leader):
    owe(leader, at_s=1.0)
    leader.core.owes = False
    leader.turns.plan(1.0)
    leader.loop.ring()
    assert (leader.woken, leader.loop.timers) == ([], [])


def test_one_timer_goes_on_for_a_later_mark_which_waits_its_full_time(leader):
    owe(leader, at_s=1.0)
    leader.core.owes = False
    leader.turns.plan(1.0)
    second_s = 1.0 + DELAY_S / 2
    owe(leader, at_s=second_s)
    assert leader.loop.set == 1
    leader.loop.ring()
    assert leader.woken == []
    leader.loop.ring()
    assert leader.woken == [pytest.approx(second_s + DELAY_S)]


def test_what_is_owed_of_another_entry_waits_its_full_time(leader):
    owe(leader, at_s=1.0)
    second_s = 1.0 + DELAY_S / 2
    leader.core.log.last_index += 1
    owe(leader, at_s=second_s)
    leader.loop.ring()
    assert leader.woken == []
    leader.loop.ring()
    assert leader.woken == [pytest.approx(second_s + DELAY_S)]


def test_nothing_is_told_after_the_end(leader):
    owe(leader, at_s=1.0)
    leader.turns.stop()
    assert leader.loop.timers == []


def test_entries_wait_since_the_first_of_them_however_many_follow(leader):
    leader.core.owes_from = 6
    owe(leader, at_s=1.0)
    leader.core.log.last_index += 1
    owe(leader, at_s=1.0 + DELAY_S / 2)
    leader.loop.ring()
    assert leader.woken == [1.0 + DELAY_S]


def test_what_nobody_works_on_is_told_at_once_but_not_too_often(leader):
    """Goal: what is written now and then is soon everywhere, and who writes all the time is not in anybody's way."""
    leader.core.owes_from, leader.core.has_turn_for_others = 6, True
    owe(leader, at_s=1.0)
    assert (leader.woken, leader.core.delays) == ([1.0], False)
    leader.core.owes_from = 8
    owe(leader, at_s=1.0 + DELAY_S / 2)
    assert (leader.woken, leader.core.delays) == ([1.0], True)
    leader.loop.ring()
    leader.loop.ring()
    assert leader.woken[1:] == [pytest.approx(1.0 + 1.5 * DELAY_S)]
    leader.core.owes_from = 9
    owe(leader, at_s=2.0)
    assert leader.woken[2:] == [2.0]


def stream(leader, *, few):
    """Write for longer than a turn lasts; return when the next one is due."""
    leader.core.owes_from, leader.core.has_turn_for_others = 6, True
    owe(leader, at_s=1.0)
    leader.turns.plan(1.0, few=few)
    leader.woken.clear()
    leader.core.owes_from = 7
    owe(leader, at_s=1.0 + DELAY_S / 4)
    return 1.0 + DELAY_S


def test_in_a_stream_of_writes_others_hear_while_the_leader_waits(leader):
    due_s = stream(leader, few=True)
    leader.turns.plan(due_s, few=True)  # somebody was answered, and will write the next thing
    assert leader.woken == []
    leader.core.has_turn_for_others, leader.core.awaits_majority = False, True
    leader.loop.now_s = due_s
    leader.turns.plan(due_s, few=True)
    assert leader.woken == [due_s]


def test_after_a_stream_of_writes_others_hear_in_time(leader):
    due_s = stream(leader, few=True)
    leader.turns.plan(due_s, few=True)
    leader.loop.ring()  # for what was owed before
    leader.loop.ring()
    assert leader.woken == [pytest.approx(due_s + DELAY_S / 4)]


def test_many_writers_leave_the_leader_no_wait_of_its_own(leader):
    due_s = stream(leader, few=False)
    leader.core.has_turn_for_others, leader.core.awaits_majority = False, True
    leader.turns.plan(due_s, few=False)
    assert leader.woken == []
    leader.core.has_turn_for_others, leader.core.awaits_majority = True, False  # nobody works on anything
    leader.loop.now_s = due_s
    leader.turns.plan(due_s, few=False)
    assert leader.woken == [due_s]


def test_who_takes_nothing_in_just_now_is_not_told_again_and_again(leader):
    leader.core.owes_from = 6
    owe(leader, at_s=1.0)
    leader.loop.ring()
    owe(leader, at_s=leader.loop.now_s)  # its window is full
    assert len(leader.woken) == 1
    leader.loop.ring()
    assert leader.woken[1:] == [pytest.approx(1.0 + 2 * DELAY_S)]
