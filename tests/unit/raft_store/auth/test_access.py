"""Who may do what: the cover of ranges, tokens and their time, and what a committed command needs when it is applied."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_store.auth import model, passwords
from raft_store.auth import requests as commands
from raft_store.auth.model import Access, Permission
from raft_store.auth.ranges import cover, interval
from raft_store.auth.tokens import TokenTable
from raft_store.engine import Entry, Index, Term
from raft_store.machine import AnyCommand, Machine, OnBehalf, encode
from raft_store.mvcc.lease import LeaseClock
from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRange,
    Done,
    LeaseGrant,
    LeaseRevoke,
    Put,
    PutResult,
    Range,
    Txn,
)

# Every key that has no byte but a, b and c and at most two of them: any hole between two ranges holds one of these.
LETTERS = [b"a", b"b", b"c"]
KEYS = sorted([*LETTERS, *(one + two for one in LETTERS for two in LETTERS), b"d"])
RANGES = st.tuples(st.sampled_from(KEYS), st.sampled_from([b"", b"\0", *KEYS]))


def inside(key: bytes, held: tuple[bytes, bytes]) -> bool:
    first, end = held
    if end == b"":
        return key == first
    return key >= first and (end == b"\0" or key < end)


@given(st.lists(RANGES, max_size=5), st.sampled_from(KEYS))
def test_a_key_is_covered_by_any_range_that_holds_it(held: list[tuple[bytes, bytes]], key: bytes) -> None:
    expected = any(inside(key, one) for one in held)
    assert cover([interval(*one) for one in held], interval(key, b"")) is expected


@given(st.lists(RANGES, max_size=5), RANGES)
def test_what_covers_a_range_covers_each_of_its_keys(
    held: list[tuple[bytes, bytes]], wanted: tuple[bytes, bytes]
) -> None:
    if not cover([interval(*one) for one in held], interval(*wanted)):
        return
    for key in KEYS:
        if inside(key, wanted):
            assert any(inside(key, one) for one in held), key


@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        pytest.param([(b"a", b"b"), (b"b", b"c")], (b"a", b"c"), True, id="neighbours join"),
        pytest.param([(b"a", b"b"), (b"ba", b"c")], (b"a", b"c"), False, id="a hole of one key"),
        pytest.param([(b"a", b""), (b"a\0", b"c")], (b"a", b"c"), True, id="a key and all after it"),
        pytest.param([(b"a", b"\0")], (b"b", b"\0"), True, id="from a key on"),
        pytest.param([(b"a", b"\xff")], (b"b", b"\0"), False, id="an end is not no end"),
        pytest.param([], (b"a", b""), False, id="nothing held"),
    ],
)
def test_ranges(held: list[tuple[bytes, bytes]], wanted: tuple[bytes, bytes], *, expected: bool) -> None:
    assert cover([interval(*one) for one in held], interval(*wanted)) is expected


def test_a_token_lives_as_long_as_it_is_used() -> None:
    now = [0.0]
    tokens = TokenTable(lambda: now[0], ttl_s=10)
    tokens.add("t", "ann")
    now[0] = 9
    assert tokens.user_of("t") == "ann"
    now[0] = 18  # used at 9
    assert tokens.user_of("t") == "ann"
    now[0] = 28
    assert tokens.user_of("t") is None
    tokens.add("u", "bob")
    assert len(tokens) == 1  # what has run out is forgotten
    tokens.drop_user("bob")
    assert tokens.user_of("u") is None


def test_passwords_are_kept_as_something_else() -> None:
    kept = passwords.hash_password("secret")
    assert b"secret" not in kept
    assert kept != passwords.hash_password("secret")  # salted
    assert passwords.matches("secret", kept)
    assert not passwords.matches("Secret", kept)
    with pytest.raises(ValueError, match="form"):
        passwords.matches("secret", b"md5$...")


class World:
    """A machine with a root and one user, ann, who may write [a, c) and read [b, d)."""

    def __init__(self) -> None:
        self.machine = Machine(LeaseClock(lambda: 0.0))
        self._index = 0
        for command in (
            commands.UserAdd("root", b"hash"),
            commands.UserGrantRole("root", "root"),
            commands.UserAdd("ann", b"hash"),
            commands.RoleAdd("some"),
            commands.RoleGrantPermission("some", Permission(Access.WRITE, b"a", b"c")),
            commands.RoleGrantPermission("some", Permission(Access.READ, b"b", b"d")),
            commands.UserGrantRole("ann", "some"),
            commands.AuthEnable(),
        ):
            assert isinstance(self.apply(command), Done), command

    def apply(self, command: AnyCommand) -> object:
        self._index += 1
        (result,) = self.machine.apply([Entry(Index(self._index), Term(1), encode(command))])
        return result

    def by(self, user: str, command: object, *, revision: int | None = None) -> object:
        at = self.machine.auth.revision if revision is None else revision
        return self.apply(OnBehalf(user, at, command))  # type: ignore[arg-type]


def same(key: bytes) -> Compare:
    return Compare(key, b"", CompareTarget.VERSION, CompareResult.EQUAL, 0)


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        pytest.param(Put(b"a", b""), True, id="put"),
        pytest.param(Put(b"c", b""), False, id="put elsewhere"),
        pytest.param(Put(b"a", b"", prev_kv=True), False, id="the previous value is a read"),
        pytest.param(Put(b"b", b"", prev_kv=True), True, id="put and read"),
        pytest.param(DeleteRange(b"a", b"c"), True, id="delete"),
        pytest.param(DeleteRange(b"a", b"ca"), False, id="delete too much"),
        pytest.param(DeleteRange(b"a", b"c", prev_kv=True), False, id="delete and read"),
        pytest.param(Txn([], [Put(b"a", b""), Range(b"b", b"d")], []), True, id="txn"),
        pytest.param(Txn([same(b"a")], [Put(b"a", b"")], []), False, id="a comparison is a read"),
        pytest.param(Txn([], [Put(b"a", b"")], [Range(b"a")]), False, id="the branch that does not run counts"),
        pytest.param(Txn([], [Txn([], [Put(b"x", b"")], [])], []), False, id="so does a nested one"),
        pytest.param(Txn([], [Put(b"b", b"", prev_kv=True)], []), True, id="put and read in a txn"),
        pytest.param(Txn([], [Put(b"a", b"", prev_kv=True)], []), False, id="put and read too much in a txn"),
        pytest.param(LeaseGrant(LeaseId(5), 10), True, id="lease"),
        pytest.param(commands.UserAdd("eve", b""), False, id="management"),
    ],
)
def test_what_a_user_may_do(command: object, *, allowed: bool) -> None:
    result = World().by("ann", command)
    assert isinstance(result, model.PermissionDenied) is not allowed, result


def test_nobody_may_do_nothing_and_root_everything() -> None:
    world = World()
    assert isinstance(world.apply(Put(b"a", b"")), model.UserEmpty)
    assert isinstance(world.apply(commands.AuthDisable()), model.UserEmpty)
    assert isinstance(world.by("eve", Put(b"a", b"")), model.PermissionDenied)
    assert isinstance(world.by("eve", commands.AuthDisable()), model.UserNotFound)
    assert isinstance(world.by("root", Put(b"z", b"")), PutResult)
    assert isinstance(world.by("root", commands.AuthDisable()), Done)
    assert isinstance(world.apply(Put(b"a", b"")), PutResult)


def test_what_a_put_comes_to_is_not_foreseen_where_it_may_be_refused() -> None:
    assert Machine(LeaseClock(lambda: 0.0)).foresee([encode(Put(b"a", b""))])
    assert not World().machine.foresee([encode(Put(b"a", b""))])


def test_a_request_from_before_a_change_of_users_is_refused() -> None:
    world = World()
    before = world.machine.auth.revision
    world.by("root", commands.RoleRevokePermission("some", b"a", b"c"))
    assert isinstance(world.by("ann", Put(b"a", b""), revision=before), model.OldAuthRevision)
    assert isinstance(world.by("ann", Put(b"a", b"")), model.PermissionDenied)


def test_a_lease_belongs_to_who_may_write_all_its_keys() -> None:
    world = World()
    lease = LeaseId(9)
    world.by("ann", LeaseGrant(lease, 10))
    world.by("root", Put(b"x", b"", lease))
    assert isinstance(world.by("ann", Put(b"a", b"", lease)), model.PermissionDenied)
    assert isinstance(world.by("ann", LeaseRevoke(lease)), model.PermissionDenied)
    assert isinstance(world.by("root", LeaseRevoke(lease)), Done)


def test_a_token_names_the_entry_that_gave_it_and_ends_with_its_user() -> None:
    world = World()
    given = world.apply(commands.Authenticate("ann", "abc"))
    assert isinstance(given, commands.Token)
    assert given.token == "abc.9"
    assert world.machine.tokens.user_of("abc.9") == "ann"
    world.by("root", commands.UserDelete("ann"))
    assert world.machine.tokens.user_of("abc.9") is None
    assert isinstance(world.apply(commands.Authenticate("ann", "abc")), model.AuthFailed)


def test_users_are_in_the_snapshot_and_tokens_are_not() -> None:
    world = World()
    world.apply(commands.Authenticate("ann", "abc"))
    other = World()
    other.apply(commands.Authenticate("ann", "old"))
    other.machine.restore(world.machine.snapshot())
    assert b"".join(other.machine.snapshot()) == b"".join(world.machine.snapshot())
    assert other.machine.auth.contents() == world.machine.auth.contents()
    assert len(other.machine.tokens) == 0
    assert isinstance(other.apply(Put(b"a", b"")), model.UserEmpty)


def test_root_cannot_be_locked_out() -> None:
    world = World()
    for command in (
        commands.UserDelete("root"),
        commands.UserRevokeRole("root", "root"),
        commands.RoleDelete("root"),
    ):
        assert isinstance(world.by("root", command), model.InvalidManagement), command
