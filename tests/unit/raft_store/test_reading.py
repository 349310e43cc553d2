"""Ranges by the lot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrpc.calls import CallFailed, Metadata
from fastgrpc.channel import Channel
from raft_store.auth.requests import AuthEnable, UserAdd, UserGrantRole
from raft_store.config import Config
from raft_store.engine import EngineError, Index, NoLeader
from raft_store.engines.memory import MemoryEngine
from raft_store.etcd_api import alone, reading
from raft_store.etcd_api.call import NO_CONTEXT, context_of
from raft_store.etcd_api.errors import RpcError
from raft_store.etcd_api.kv import to_range
from raft_store.etcd_api.learners import guard_learners
from raft_store.etcd_api.reading import read_request
from raft_store.etcd_api.services import UnaryMethod
from raft_store.member import Member, running
from raft_store.mvcc.model import KeyValue
from raft_store.mvcc.requests import Range, RangeResult
from raft_store.mvcc.store import Store
from raft_store.mvcc.txn import read
from trireme_pb.etcdserverpb import rpc_pb2 as pb

KEYS = st.binary(min_size=1, max_size=5) | st.binary(min_size=126, max_size=130)


@given(
    st.builds(
        pb.RangeRequest,
        key=KEYS,
        range_end=st.sampled_from([b"", b"\0", b"z"]),
        limit=st.sampled_from([0, 1]),
        revision=st.sampled_from([0, 3]),
        serializable=st.booleans(),
        keys_only=st.booleans(),
        sort_order=st.sampled_from([0, 2]),
    )
)
def test_a_request_told_by_its_bytes_is_what_protobuf_says(request: pb.RangeRequest) -> None:
    wanted, serializable = read_request(request.SerializeToString())
    plain = wanted if isinstance(wanted, Range) else Range(wanted)
    assert (plain, serializable) == (to_range(request), request.serializable)


@pytest.mark.parametrize(
    "message", [b"", b"\x0a\x00", b"\x0a\x05abc", b"\xff\xff", pb.RangeRequest().SerializeToString()]
)
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(RpcError):
        read_request(message)


class Question:
    """A call that waits."""

    def __init__(self, request: pb.RangeRequest | bytes) -> None:
        self.message = request if isinstance(request, bytes) else request.SerializeToString()
        self.heard: bytes | str | None = None
        self.gone = False

    def answer(self, message: bytes) -> None:
        assert self.heard is None
        assert not self.gone
        self.heard = message

    def fail(self, status: int, text: str) -> None:
        assert self.heard is None
        self.heard = f"{status} {text}"


def test_a_learner_reads_only_for_who_takes_what_it_has() -> None:
    taken: list[object] = []
    row = UnaryMethod("KV", "Range", pb.RangeRequest, None, batch=lambda asks, call: taken.extend(asks))  # type: ignore[arg-type]
    learns = True
    (guarded,) = guard_learners([row], lambda: learns)
    assert isinstance(guarded, UnaryMethod)
    assert guarded.batch is not None
    strict, lax, broken = (
        Question(request)
        for request in (pb.RangeRequest(key=b"k"), pb.RangeRequest(key=b"k", serializable=True), b"\xff")
    )
    guarded.batch([strict, lax, broken], NO_CONTEXT)
    assert strict.heard == "14 etcdserver: rpc not supported for learner"
    assert taken == [lax, broken]
    learns = False
    guarded.batch([strict], NO_CONTEXT)
    assert taken == [lax, broken, strict]


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    config = Config(
        name="m1",
        members={"m1": "http://127.0.0.1:1"},
        data_dir=Path("/nonexistent"),
        client_url="http://127.0.0.1:2379",
        client_listen="127.0.0.1:0",
    )
    async with running(config, MemoryEngine(config.member)) as started:
        yield started


@pytest.fixture
async def channel(member: Member) -> AsyncIterator[Channel]:
    channel = Channel(f"127.0.0.1:{member.client_port}")
    await channel.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"k", value=b"v").SerializeToString())
    yield channel
    await channel.close()


async def ask(channel: Channel, request: pb.RangeRequest, metadata: Metadata = ()) -> list[bytes] | str:
    try:
        answer = await channel.unary("/etcdserverpb.KV/Range", request.SerializeToString(), metadata=metadata)
    except CallFailed as exc:
        return exc.message
    return [kv.value for kv in pb.RangeResponse.FromString(answer).kvs]


async def test_callers_of_one_lot_are_told_apart(channel: Channel) -> None:
    request = pb.RangeRequest(key=b"k")
    for _ in range(2):  # the second time all headers are known, and the lot is one
        assert await asyncio.gather(
            ask(channel, request),
            ask(channel, request, (("token", "wrong.1"),)),
            ask(channel, request, (("hasleader", "true"),)),
            ask(channel, pb.RangeRequest(key=b"k", revision=9)),
            ask(channel, pb.RangeRequest(key=b"a", range_end=b"z", serializable=True)),
            ask(channel, pb.RangeRequest(key=b"nothing")),
            ask(channel, pb.RangeRequest()),
            ask(channel, request),
        ) == [
            [b"v"],
            [b"v"],  # nobody is asked who it is
            [b"v"],
            "etcdserver: mvcc: required revision is a future revision",
            [b"v"],
            [],
            "etcdserver: key is not provided",
            [b"v"],
        ]


async def test_permissions_that_are_asked_for_meanwhile_hold(member: Member, channel: Channel) -> None:
    """Authentication is enabled while a read waits for its turn."""
    waiting: list[Callable[[EngineError | None], None]] = []

    def when_readable(tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        waiting.append(tell)

    member.engine.when_readable = when_readable  # type: ignore[method-assign]
    asked = asyncio.create_task(ask(channel, pb.RangeRequest(key=b"k")))
    async with asyncio.timeout(5):
        while not waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    member.machine.auth.enabled = True
    waiting[0](None)
    assert await asked == "etcdserver: user name is empty"


def reads_that_wait(member: Member, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[EngineError | None], None]]:
    """Let reads wait until a test tells them to go on."""
    waiting: list[Callable[[EngineError | None], None]] = []

    def when_readable(tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        waiting.append(tell)

    monkeypatch.setattr(member.engine, "when_readable", when_readable)
    return waiting


@pytest.mark.parametrize(("limit", "at_most"), [("MAX_WAITING", 3), ("MAX_WAITING_BYTES", 3 * len(b"\x0a\x01k"))])
async def test_reads_that_wait_for_a_leader_are_bounded(
    member: Member, monkeypatch: pytest.MonkeyPatch, limit: str, at_most: int
) -> None:
    monkeypatch.setattr(reading, limit, at_most)
    waiting, services = reads_that_wait(member, monkeypatch), member._services()
    lots = [[Question(pb.RangeRequest(key=b"k")) for _ in range(size)] for size in (2, 2, 1)]
    for lot in lots:
        services.reading.take(lot, NO_CONTEXT)
    assert [[question.heard for question in lot] for lot in lots] == [
        [None] * 2,
        ["8 etcdserver: too many requests"] * 2,
        [None],
    ]
    for tell, failure in zip(waiting, (NoLeader(), None), strict=True):
        tell(failure)
    assert [question.heard for question in lots[0]] == ["14 etcdserver: no leader"] * 2
    assert isinstance(lots[2][0].heard, bytes)
    more = [Question(pb.RangeRequest(key=b"k")) for _ in range(3)]
    services.reading.take(more, NO_CONTEXT)
    assert [question.heard for question in more] == [None] * 3


@pytest.mark.parametrize(("limit", "at_most"), [("MAX_WAITING", 3), ("MAX_WAITING_BYTES", 3 * len(b"\x0a\x01k"))])
async def test_reads_by_name_that_wait_for_a_leader_are_bounded(
    member: Member, monkeypatch: pytest.MonkeyPatch, limit: str, at_most: int
) -> None:
    """Everybody is answered one by one, in a task each, once callers are asked who they are."""
    monkeypatch.setattr(alone, limit, at_most)
    for command in (UserAdd("root", b""), UserGrantRole("root", "root"), AuthEnable()):
        member.machine.auth.apply(command)
    reads, services, leader = 0, member._services(), asyncio.Event()

    async def read_barrier(*, timeout_s: float) -> Index:
        nonlocal reads
        reads += 1
        await leader.wait()
        return Index(0)

    monkeypatch.setattr(member.engine, "read_barrier", read_barrier)
    member.machine.tokens.add("token.0", "root")
    named = context_of({"token": "token.0"})
    lot = [Question(pb.RangeRequest(key=b"k")) for _ in range(5)]
    services.reading.take(lot, named)
    lot[0].gone = True  # before its turn came
    await asyncio.sleep(0)
    assert [question.heard for question in lot] == [None] * 3 + ["8 etcdserver: too many requests"] * 2
    assert reads == 2
    leader.set()
    async with asyncio.timeout(5):
        while services.reading._alone._tasks:  # noqa: ASYNC110 - the tasks' own pace
            await asyncio.sleep(0)
    more = [Question(pb.RangeRequest(key=b"k")) for _ in range(4)]
    assert all(isinstance(question.heard, bytes) for question in lot[1:3])
    services.reading.take(more, named)  # those before count no more
    assert [question.heard for question in more] == [None] * 3 + ["8 etcdserver: too many requests"]
    async with asyncio.timeout(5):
        while services.reading._alone._tasks:  # noqa: ASYNC110 - the tasks' own pace
            await asyncio.sleep(0)


async def test_a_read_that_nobody_waits_for_any_more_is_not_made(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Range] = []

    def note(store: Store, wanted: Range) -> RangeResult:
        made.append(wanted)
        return read(store, wanted)

    monkeypatch.setattr(reading, "read", note)
    (waiting, services) = reads_that_wait(member, monkeypatch), member._services()
    lot = [Question(pb.RangeRequest(key=key, range_end=b"z")) for key in (b"a", b"b", b"c")]
    services.reading.take(lot, NO_CONTEXT)
    lot[1].gone = True
    waiting[0](None)
    assert [wanted.key for wanted in made] == [b"a", b"c"]
    assert [question.heard is None for question in lot] == [False, True, False]


async def test_a_bug_in_one_read_leaves_nobody_waiting(
    member: Member, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(kv: KeyValue | None) -> bytes:
        raise ValueError("a bug")

    def later(tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        asyncio.get_running_loop().call_soon(tell, None)

    monkeypatch.setattr(member.engine, "when_readable", later)
    monkeypatch.setattr(member.backend.answers, "newest", broken)
    for wanted in (pb.RangeRequest(key=b"k"), pb.RangeRequest(key=b"k", serializable=True)):
        async with asyncio.timeout(5):
            assert await ask(channel, wanted) == "ValueError: a bug"
    monkeypatch.undo()
    assert await ask(channel, pb.RangeRequest(key=b"k")) == [b"v"]


async def test_a_lot_of_large_ranges_leaves_the_member_its_other_work(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: one packet of a client stops no heartbeats. Method: each range takes a turn's time, by a clock of ours."""
    now_s = 0.0

    def read_slowly(store: Store, wanted: Range) -> RangeResult:
        nonlocal now_s
        now_s += reading.TURN_S / 2
        return read(store, wanted)

    monkeypatch.setattr(reading, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(reading, "read", read_slowly)
    lot = [Question(pb.RangeRequest(key=b"a", range_end=b"z", serializable=i % 2 == 0)) for i in range(20)]
    member._services().reading.take(lot, NO_CONTEXT)
    turns = [0]
    async with asyncio.timeout(5):
        while turns[-1] < len(lot):
            turns.append(sum(question.heard is not None for question in lot))
            await asyncio.sleep(0)
    assert len(set(turns)) > 3
    assert all(isinstance(question.heard, bytes) for question in lot)


async def test_a_bug_in_telling_a_watcher_ends_its_stream_alone(
    member: Member, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes are told in the step that applies them, which must not fail for one listener's sake."""
    watch = await channel.start("/etcdserverpb.Watch/Watch")
    await watch.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"k")).SerializeToString())
    assert pb.WatchResponse.FromString(await watch.receive() or b"").created

    def broken(*arguments: object) -> bytes:
        raise ValueError("a bug")

    monkeypatch.setattr(member.backend.answers, "changes", broken)
    await channel.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"k", value=b"w").SerializeToString())
    with pytest.raises(CallFailed, match="ValueError: a bug"):
        await watch.receive()
    assert await ask(channel, pb.RangeRequest(key=b"k")) == [b"w"]
    assert member.machine.hub.counts() == (0, 0)
