"""When proposals stop waiting for others to share their entry."""

from raft_store.boarding import GATHER_ITEMS, GATHER_S, Boarding


def test_proposals_board_with_the_first_turn_that_brings_no_more():
    boarding = Boarding()
    boarding.add(4, 1.0)
    assert boarding.waits(1.0)
    boarding.add(4, 1.0)
    boarding.add(4, 1.0)
    assert boarding.waits(1.0)
    assert not boarding.waits(1.0)
    assert not boarding.waits(1.0)  # nobody is there


def test_who_came_first_does_not_wait_for_ever():
    boarding = Boarding()
    boarding.add(4, 1.0)
    assert boarding.waits(1.0 + GATHER_S / 2)
    boarding.add(4, 1.0 + GATHER_S / 2)
    assert not boarding.waits(1.0 + GATHER_S * 1.1)
    boarding.add(4, 2.0)  # the next ones wait their own time
    assert boarding.waits(2.0)


def test_an_entry_that_is_full_does_not_wait():
    boarding = Boarding()
    boarding.add(GATHER_ITEMS - 1, 1.0)
    assert boarding.waits(1.0)
    boarding.add(1, 1.0)
    assert not boarding.waits(1.0)
