"""Expiry by a clock that is not replicated."""

from hypothesis import given
from hypothesis import strategies as st

from raft_store.engine import Entry, Index, Term
from raft_store.lease_keeper import LeaseKeeper
from raft_store.machine import Machine, encode
from raft_store.mvcc.lease import MOST_STALE, Lease, LeaseClock, LeaseTable
from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import Command, LeaseExpire, LeaseGrant, LeaseRenew, LeaseRevoke, Put

LEASE = LeaseId(7)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.machine = Machine(LeaseClock(lambda: self.now))
        self._index = 0
        self.apply(LeaseGrant(LEASE, 2))
        self.apply(Put(b"k", b"", LEASE))

    def apply(self, command: Command, term: int = 1) -> object:
        self._index += 1
        (result,) = self.machine.apply([Entry(Index(self._index), Term(term), encode(command))])
        return result

    def expire(self, term: int = 1) -> LeaseExpire:
        """What a leader of ``term`` would propose now."""
        return LeaseExpire(term, self.machine.lease_clock.expired(self.machine.leases, 10))

    @property
    def holds(self) -> bool:
        return self.machine.store.index.get(b"k") is not None


def test_a_lease_ends_when_its_time_is_up_and_not_before() -> None:
    world = World()
    world.now += 1.9
    assert world.machine.lease_clock.remaining_s(LEASE) > 0
    world.apply(world.expire())
    assert world.holds
    world.now += 0.2
    world.apply(world.expire())
    assert not world.holds
    assert world.machine.leases.get(LEASE) is None
    assert world.expire().expired == []


def test_a_lease_outlasts_any_time_without_a_leader_and_has_its_whole_time_anew_afterwards() -> None:
    world = World()
    keeper = LeaseKeeper(world.machine)
    keeper.look(leads=True, term=Term(1))
    keeper.look(leads=False, term=Term(1))
    world.now += 10  # nobody leads, for five times as long as it lasts
    assert keeper.due() is None
    keeper.look(leads=True, term=Term(2))
    world.now += 1.9
    assert keeper.due() is None
    world.now += 0.2
    expiry = keeper.due()
    assert expiry is not None
    world.apply(expiry, term=2)
    assert not world.holds


def test_a_renewal_that_is_committed_first_wins() -> None:
    world = World()
    world.now += 3
    proposal = world.expire()
    world.apply(LeaseRenew([LEASE]))
    world.apply(proposal)
    assert world.holds
    world.now += 3
    world.apply(world.expire())
    assert not world.holds


def test_what_a_deposed_leader_found_expired_is_ignored() -> None:
    world = World()
    world.now += 3
    world.apply(world.expire(term=1), term=2)
    assert world.holds


def test_a_new_leader_gives_every_lease_its_whole_time() -> None:
    world = World()
    world.now += 1.9
    world.machine.lease_clock.restart(world.machine.leases.all())
    world.now += 1.9
    assert world.expire().expired == []
    world.now += 0.2
    assert [expiry.lease for expiry in world.expire().expired] == [LEASE]


def test_a_member_restored_from_a_snapshot_knows_keys_and_renewals() -> None:
    world = World()
    world.apply(LeaseRenew([LEASE]))
    restored = World()
    restored.machine.restore(world.machine.snapshot())
    restored.now += 3
    restored.apply(restored.expire())
    assert not restored.holds


def test_a_revoked_lease_is_not_expired_again() -> None:
    world = World()
    world.now += 3
    world.apply(LeaseRevoke(LEASE))
    assert world.expire().expired == []


def test_only_so_many_at_once() -> None:
    world = World()
    for lease in range(10, 20):
        world.apply(LeaseGrant(LeaseId(lease), 1))
    world.now += 5
    assert len(world.machine.lease_clock.expired(world.machine.leases, 3)) == 3


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(1, 6), st.integers(0, 5)),
        st.tuples(st.just("stop"), st.integers(1, 6), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 7))
def test_the_queue_finds_what_a_look_at_every_lease_would(steps: list[tuple[str, int, int]], limit: int) -> None:
    now = 0.0
    clock, table = LeaseClock(lambda: now), LeaseTable([Lease(LeaseId(i), i) for i in range(1, 7)])
    ends: dict[int, float] = {}
    for what, lease, number in steps:
        match what:
            case "start":
                clock.start(LeaseId(lease), number)
                ends[lease] = now + number
            case "stop":
                clock.stop(LeaseId(lease))
                ends.pop(lease, None)
            case "wait":
                now += number
            case "restart":
                clock.restart(table.all())
                ends = {i: now + i for i in range(1, 7)}
        over = sorted((end, lease) for lease, end in ends.items() if end <= now)
        for _ in range(2):  # what was found once is found again until it is stopped
            assert [expiry.lease for expiry in clock.expired(table, limit)] == [lease for _, lease in over[:limit]]


def test_renewals_leave_little_behind() -> None:
    now = 0.0
    clock = LeaseClock(lambda: now)
    for i in range(10_000):
        now = i / 10
        clock.start(LeaseId(i % 3 + 1), 100_000)
    assert len(clock._queue) <= 2 * 3 + MOST_STALE
