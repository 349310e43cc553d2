"""Ours beside a real etcd: random operations, every answer and every event compared field by field."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.kv.pair import DIFFERENTIAL, MEMBER, OTHER, Pair, Refusal, step
from trireme_pb.etcdserverpb import rpc_pb2 as pb

pytestmark = [
    pytest.mark.etcd,
    pytest.mark.timeout(900),
    # Nested transactions describe themselves at length, which hypothesis does only to explain a retry.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

MOST = 2**63 - 1  # that a field of 64 bits can say
SENTINEL = b"~sentinel"
SENTINEL_WATCH = 1 << 40

KEYS = st.sampled_from([b"a", b"b", b"ba", b"bb", b"c", b"\0", b"\xff", b""])
USUAL_KEYS = st.sampled_from([b"a", b"a", b"b", b"ba", b"bb", b"c"])
ENDS = st.sampled_from([b"", b"", b"b", b"bb", b"c", b"d", b"\0", b"\xff\xff"])
VALUES = st.sampled_from([b"", b"1", b"2", b"two", b"\xff\0"])
LEASES = st.sampled_from([0, 0, 0, 1, 2, 3, -5])
FLAG = st.booleans()
RARE = st.sampled_from([False, False, False, True])
REVISIONS = st.integers(-1, 12)  # above the revision at which an example starts; -1: before it; 0: the newest

ranges = st.builds(
    dict,
    key=KEYS,
    range_end=ENDS,
    limit=st.sampled_from([0, 0, 1, 2, 3, -1, MOST]),
    revision=st.one_of(st.just(0), REVISIONS, st.just(-MOST)),
    sort_order=st.sampled_from([0, 0, 1, 2]),
    sort_target=st.integers(0, 4),
    serializable=FLAG,
    keys_only=RARE,
    count_only=RARE,
    min_mod_revision=st.one_of(st.just(0), REVISIONS),
    max_mod_revision=st.one_of(st.just(0), REVISIONS),
    min_create_revision=st.one_of(st.just(0), REVISIONS),
    max_create_revision=st.one_of(st.just(0), REVISIONS),
)
puts = st.builds(
    pb.PutRequest,
    key=KEYS,
    value=VALUES,
    lease=LEASES,
    prev_kv=FLAG,
    ignore_value=RARE,
    ignore_lease=RARE,
)
deletions = st.builds(pb.DeleteRangeRequest, key=KEYS, range_end=ENDS, prev_kv=FLAG)
compares = st.builds(
    dict,
    key=KEYS,
    range_end=ENDS,
    target=st.integers(0, 4),
    result=st.integers(0, 3),
    operand=st.sampled_from(["version", "create_revision", "mod_revision", "value", "lease"]),
    number=st.integers(-1, 12),
    value=VALUES,
)


def operations(depth: int) -> st.SearchStrategy[Any]:
    leaves = st.one_of(ranges, puts, deletions)
    return st.lists(leaves if depth == 0 else st.one_of(leaves, leaves, leaves, txns(depth - 1)), max_size=3)


def txns(depth: int) -> st.SearchStrategy[Any]:
    branches = operations(depth)
    return st.tuples(st.lists(compares, max_size=2), branches, branches)


STEPS = st.one_of(
    step("put", request=puts),
    step("usual_put", key=USUAL_KEYS, value=VALUES),
    step("usual_put", key=USUAL_KEYS, value=VALUES),
    step("range", wish=ranges),
    step("range", wish=ranges),
    step("delete", request=deletions),
    step("txn", txn=txns(2)),
    step("txn", txn=txns(2)),
    step("compact", revision=st.integers(-1, 6), physical=FLAG),
    step("grant", lease=LEASES, ttl=st.sampled_from([60, 600, 9_000_000_000, 9_000_000_001])),
    step("revoke", lease=LEASES),
    step("keep_alive", lease=LEASES),
    step("time_to_live", lease=LEASES, keys=FLAG),
    step("leases"),
    step(
        "alarm",
        action=st.sampled_from([0, 0, 1, 2, 2]),
        alarm=st.sampled_from([0, 1, 1, 2]),
        member=st.sampled_from([MEMBER, MEMBER, OTHER]),
    ),
    step(
        "watch",
        key=KEYS,
        range_end=ENDS,
        start=st.one_of(st.just(0), st.just(0), st.integers(-2, 12)),
        prev_kv=FLAG,
        filters=st.sampled_from([[], [], [0], [1], [0, 1]]),
        watch_id=st.sampled_from([0, 0, 0, 1, 5, -7]),
        fragment=FLAG,
        progress_notify=FLAG,
    ),
    step("cancel", watch_id=st.sampled_from([0, 1, 2, 5])),
)


class Run:
    """One series of steps, each asked of both stores."""

    def __init__(self, pair: Pair) -> None:
        """Make both as good as new but for the revision."""
        self.pair = pair
        pair.clear_alarms()
        for lease in pair.call("Lease", "LeaseLeases", pb.LeaseLeasesRequest()).leases:
            pair.call("Lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease.ID))
        pair.call("KV", "Put", pb.PutRequest(key=SENTINEL, value=b"begin"))
        done = pair.call("KV", "DeleteRange", pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        self.base = done.header.revision
        pair.call("KV", "Compact", pb.CompactionRequest(revision=self.base))
        self.watches = 0

    def finish(self) -> None:
        try:
            if self.pair.agree and self.watches:
                self._drain()
        finally:
            for peer in self.pair.peers:
                peer.stop_watching()

    def put(self, request: pb.PutRequest) -> None:
        self.pair.call("KV", "Put", request)

    def usual_put(self, key: bytes, value: bytes) -> None:
        self.pair.call("KV", "Put", pb.PutRequest(key=key, value=value))

    def range(self, wish: dict[str, Any]) -> None:
        self.pair.call("KV", "Range", self._range(wish))

    def delete(self, request: pb.DeleteRangeRequest) -> None:
        self.pair.call("KV", "DeleteRange", request)

    def txn(self, txn: Any) -> None:
        self.pair.call("KV", "Txn", self._txn(txn))

    def compact(self, *, revision: int, physical: bool) -> None:
        if self.watches:
            self._drain()  # etcd reads history ten times a second: what it has not read yet would be lost in between
        self.pair.call("KV", "Compact", pb.CompactionRequest(revision=self.base + revision, physical=physical))

    def grant(self, lease: int, ttl: int) -> None:
        if lease:  # else each store picks an id of its own
            self.pair.call("Lease", "LeaseGrant", pb.LeaseGrantRequest(ID=lease, TTL=ttl))

    def revoke(self, lease: int) -> None:
        self.pair.call("Lease", "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease))

    def keep_alive(self, lease: int) -> None:
        self.pair.keep_alive(lease)

    def time_to_live(self, *, lease: int, keys: bool) -> None:
        request = pb.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        theirs, ours = (peer.call("Lease", "LeaseTimeToLive", request) for peer in self.pair.peers)
        assert not isinstance(theirs, Refusal)
        assert not isinstance(ours, Refusal)
        if abs(theirs.TTL - ours.TTL) == 1:  # a second of the one clock ended between the two calls
            ours.TTL = theirs.TTL
        for answer in (theirs, ours):  # etcd's order of keys is that of a Go map
            answer.keys.sort()
        self.pair.compare(request, theirs, ours)

    def leases(self) -> None:
        request = pb.LeaseLeasesRequest()
        theirs, ours = (peer.call("Lease", "LeaseLeases", request) for peer in self.pair.peers)
        for answer in (theirs, ours):  # etcd's order is by expiry, and those that end in one second come as they will
            answer.leases.sort(key=lambda lease: lease.ID)
        self.pair.compare(request, theirs, ours)

    def alarm(self, action: int, alarm: int, member: int) -> None:
        if alarm == pb.CORRUPT and action == pb.AlarmRequest.ACTIVATE:
            return  # etcd 3.4 then refuses reads too; see the test of it
        request = pb.AlarmRequest(action=action, alarm=alarm, memberID=member)
        theirs, ours = (peer.call("Maintenance", "Alarm", request) for peer in self.pair.peers)
        for answer in (theirs, ours):
            if not isinstance(answer, Refusal):
                answer.alarms.sort(key=lambda one: (one.alarm, one.memberID))
        self.pair.compare(request, theirs, ours)

    def watch(self, *, start: int, **more: Any) -> None:
        create = pb.WatchCreateRequest(start_revision=self.base + start if start else 0, **more)
        self.pair.watch(pb.WatchRequest(create_request=create))
        self.watches += 1
        # It counts from the revision that the store has when it answers: nothing may be written before that.
        self.pair.settle(lambda heard: sum(response.created for response in heard) == self.watches)

    def cancel(self, watch_id: int) -> None:
        if self.watches:
            self._drain()
            about = [response for response in self.pair.ours.heard if response.watch_id == watch_id]
            self.pair.watch(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch_id)))
            # One that was cancelled before is not there, and has no answer; one that a compaction ended still is.
            if about and (not about[-1].canceled or about[-1].compact_revision):
                self.pair.settle(lambda heard: _is_cancelled([r for r in heard if r.watch_id == watch_id][-1]))
            self._drain()

    def _drain(self) -> None:
        """Wait until both watch streams have told all there is, the slow ways too."""
        pair = self.pair
        put = pair.call("KV", "Put", pb.PutRequest(key=SENTINEL, value=b"drain"))
        if isinstance(put, Refusal):
            pair.settle()
            return
        # It starts in the past: the answer comes after whatever else waits to be read from there.
        create = pb.WatchCreateRequest(key=SENTINEL, start_revision=put.header.revision, watch_id=SENTINEL_WATCH)
        pair.watch(pb.WatchRequest(create_request=create))
        self.watches += 1
        wanted = (SENTINEL_WATCH, put.header.revision)
        pair.settle(lambda heard: wanted in [(r.watch_id, e.kv.mod_revision) for r in heard for e in r.events])
        pair.watch(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=SENTINEL_WATCH)))
        pair.settle(lambda heard: [r for r in heard if r.watch_id == SENTINEL_WATCH][-1].canceled)

    def _range(self, wish: dict[str, Any]) -> pb.RangeRequest:
        moved = {
            name: self.base + value if name.endswith("revision") and value else value for name, value in wish.items()
        }
        return pb.RangeRequest(**moved)

    def _txn(self, txn: Any) -> pb.TxnRequest:
        conditions, success, failure = txn
        return pb.TxnRequest(
            compare=[self._compare(condition) for condition in conditions],
            success=[self._operation(op) for op in success],
            failure=[self._operation(op) for op in failure],
        )

    def _operation(self, op: Any) -> pb.RequestOp:
        match op:
            case dict():
                return pb.RequestOp(request_range=self._range(op))
            case pb.PutRequest():
                return pb.RequestOp(request_put=op)
            case pb.DeleteRangeRequest():
                return pb.RequestOp(request_delete_range=op)
            case _:
                return pb.RequestOp(request_txn=self._txn(op))

    def _compare(self, wish: dict[str, Any]) -> pb.Compare:
        operand, number = wish["operand"], wish["number"]
        if operand == "value":
            number = wish["value"]
        elif operand.endswith("revision") and number:
            number += self.base
        return pb.Compare(
            key=wish["key"],
            range_end=wish["range_end"],
            target=wish["target"],
            result=wish["result"],
            **{operand: number},
        )


@DIFFERENTIAL
@given(steps=st.lists(STEPS, min_size=10, max_size=50))
def test_random_operations(pairs: Callable[[], Pair], steps: list[tuple[str, dict[str, Any]]]) -> None:
    run = Run(pairs())
    try:
        for name, arguments in steps:
            getattr(run, name)(**arguments)
    finally:
        run.finish()


@pytest.mark.parametrize("size", [1_500_000, 1_600_000, 3 << 20])
def test_sizes(pairs: Callable[[], Pair], size: int) -> None:
    """What fits, what the store refuses, and what does not even get there."""
    pairs().call("KV", "Put", pb.PutRequest(key=b"large", value=bytes(size)))


def _is_cancelled(response: pb.WatchResponse) -> bool:
    """Return whether a watch's answer tells that somebody cancelled it."""
    return response.canceled and not response.compact_revision
