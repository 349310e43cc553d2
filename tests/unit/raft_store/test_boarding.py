"""When proposals stop waiting for others to share their entry."""

from raft_store.boarding import FEW_WAIT_S, GATHER_ITEMS, GATHER_S, Boarding


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


def board(boarding, items, at_s):
    boarding.add(items, at_s)
    while boarding.waits(at_s):
        at_s += 1e-5
    return at_s


def test_the_first_of_many_waits_for_the_others_a_little():
    """Goal: whoever is read first, while the others are still on their way, does not keep them waiting for a round."""
    boarding = Boarding()
    board(boarding, 64, 1.0)
    boarding.add(4, 2.0)
    assert boarding.waits(2.0)
    assert boarding.waits(2.0 + FEW_WAIT_S / 2)  # a turn that brought nothing
    assert not boarding.waits(2.0 + FEW_WAIT_S * 1.1)


def test_few_do_not_wait_where_there_were_never_many_or_long_ago():
    boarding = Boarding()
    assert board(boarding, 4, 1.0) < 1.0 + FEW_WAIT_S / 2
    board(boarding, 64, 2.0)
    for _ in range(30):
        board(boarding, 4, 3.0)
    assert board(boarding, 4, 4.0) < 4.0 + FEW_WAIT_S / 2
