"""Commitment by counting holds for entries of the leader's own term only (thesis 3.6.2, figure 3.7)."""

from raft_store.raft import messages as m

from .group import Group


def noop_of(term):
    """Return a filter that loses every append with an entry of ``term``."""
    return lambda message: not (isinstance(message, m.Append) and any(entry.term == term for entry in message.entries))


def test_an_old_entry_on_a_majority_may_still_be_replaced():
    group = Group(5, max_append_bytes=1)
    group.elect(1)
    # (a) S1 leads, and keeps an entry to itself.
    group.cut(1)
    group.propose(1, b"old")
    group.deliver()
    old = group[1].core.log.last_index
    # (b) S1 crashes; S5 leads, and keeps its first entry to itself.
    group.crash(1)
    group.heal()
    group.cut(2)
    group.forget_leader(3, 4)
    group.lose_patience(5)
    term = group[5].core.term + 1
    group.deliver(noop_of(term))
    assert group[5].core.role.value == "leader"
    assert group.log_of(5)[-1] == term
    # (c) S5 crashes; S1 is back and leads; its old entry gets to S2 and S3, a majority, its new one to nobody.
    group.crash(5)
    group.heal()
    group.start(1)
    group.cut(4)
    group.forget_leader(2, 3)
    group.lose_patience(1)
    # Its first campaign tells it of the term that it missed.
    group.deliver()
    group.forget_leader(2, 3)
    group.lose_patience(1)
    newest = group[1].core.term + 1
    # An append that is refused anyway has to arrive: the refusal makes S1 go back to the old entry.
    lose = noop_of(newest)
    group.deliver(lambda message: lose(message) or len(group.log_of(message.to)) < old)
    assert group[1].core.role.value == "leader"
    matched = [group[1].core.progress()[peer].matched for peer in (2, 3)]
    assert matched == [old, old]
    assert group[1].core.log.committed < old  # it is on three of five members, and yet not committed
    # (d) S1 crashes; S5 is elected by S3 and S4, and replaces the entry everywhere.
    group.crash(1)
    group.heal()
    group.start(5)
    for _ in range(3):
        group.forget_leader(2, 3, 4)
        group.lose_patience(5)
        group.deliver()
    assert group[5].core.role.value == "leader"
    assert group.log_of(3)[old - 1] == term
    assert b"old" not in group[3].values
