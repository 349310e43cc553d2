"""Ranges by the lot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgrpc.calls import CallFailed, Metadata
from fastgrpc.channel import Channel
from raft_store.config import Config
from raft_store.engine import EngineError
from raft_store.engines.memory import MemoryEngine
from raft_store.etcd_api.call import NO_CONTEXT
from raft_store.etcd_api.errors import RpcError
from raft_store.etcd_api.kv import to_range
from raft_store.etcd_api.learners import guard_learners
from raft_store.etcd_api.reading import read_request
from raft_store.etcd_api.services import UnaryMethod
from raft_store.member import Member, running
from raft_store.mvcc.model import KeyValue
from raft_store.mvcc.requests import Range
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

    def answer(self, message: bytes) -> None:
        assert self.heard is None
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
            "etcdserver: invalid auth token",
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
