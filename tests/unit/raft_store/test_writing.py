"""Writes by the lot."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_store.auth.model import NOBODY
from raft_store.config import Config
from raft_store.engine import EngineError, NoLeader
from raft_store.engines.memory import MemoryEngine
from raft_store.etcd_api.backend import Backend
from raft_store.etcd_api.call import NO_CONTEXT, CallContext, context_of
from raft_store.etcd_api.errors import RpcError
from raft_store.etcd_api.kv import to_put
from raft_store.etcd_api.learners import guard_learners
from raft_store.etcd_api.reading import Reading
from raft_store.etcd_api.services import Batch, UnaryMethod
from raft_store.etcd_api.writing import (
    MAX_TOGETHER,
    MAX_TOGETHER_BYTES,
    Writing,
    read_delete_range,
    read_put,
    read_txn,
)
from raft_store.member import Member, running
from raft_store.mvcc.requests import PutResult
from trireme_pb.etcdserverpb import rpc_pb2 as pb

KEYS = st.binary(min_size=1, max_size=5) | st.binary(min_size=126, max_size=130)
VALUES = st.binary(max_size=5) | st.binary(min_size=126, max_size=130) | st.sampled_from([bytes(16_383), bytes(16_384)])


@given(st.builds(pb.PutRequest, key=KEYS, value=VALUES, lease=st.sampled_from([0, 7]), prev_kv=st.booleans()))
def test_a_put_told_by_its_bytes_is_what_protobuf_says(request: pb.PutRequest) -> None:
    assert read_put(request.SerializeToString()) == to_put(request)


@given(st.binary(max_size=12) | st.binary(max_size=8).map(lambda rest: b"\x0a\x01k\x12" + rest))
def test_whatever_comes_is_read_as_protobuf_reads_it_or_refused(message: bytes) -> None:
    try:
        read = read_put(message)
    except RpcError:
        return
    assert read == to_put(pb.PutRequest.FromString(message))


@pytest.mark.parametrize("read", [read_put, read_delete_range, read_txn])
@pytest.mark.parametrize("message", [b"\xff\xff", b"\x0a\x05abc"])
def test_what_is_no_request_is_refused(read: Callable[[bytes], object], message: bytes) -> None:
    with pytest.raises(RpcError, match="cannot be decoded"):
        read(message)


class Writer:
    """A call that waits."""

    def __init__(self, request: pb.PutRequest | pb.TxnRequest | pb.DeleteRangeRequest | bytes) -> None:
        self.message = request if isinstance(request, bytes) else request.SerializeToString()
        self.heard: bytes | str | None = None
        self.gone = False
        self.at_once = False  # it was told before the turn of the loop ended
        self.told = asyncio.Event()

    def answer(self, message: bytes) -> None:
        assert self.heard is None
        self.heard = message
        self.told.set()

    def answer_all(self, asks: "Sequence[Writer]", messages: Sequence[bytes], *, at_once: bool) -> None:
        for ask, message in zip(asks, messages, strict=True):
            ask.at_once = at_once
            ask.answer(message)

    def fail(self, status: int, text: str) -> None:
        assert self.heard is None
        self.heard = f"{status} {text}"
        self.told.set()


def batch_of(member: Member, method: str) -> Batch:
    (row,) = [row for row in member._services().methods() if row.method == method]
    assert isinstance(row, UnaryMethod)
    assert row.batch is not None
    return row.batch


@pytest.fixture
def config(tmp_path):
    return Config(
        name="m",
        cluster="c",
        data_dir=tmp_path,
        client_listen="127.0.0.1:0",
        peer_listen="127.0.0.1:0",
        client_url="http://127.0.0.1:1",
        members={"m": "http://127.0.0.1:1"},
    )


async def test_a_lot_is_answered_each_with_its_own_revision(config):
    async with running(config, MemoryEngine()) as member:
        lot = [Writer(pb.PutRequest(key=b"k%d" % i, value=b"v")) for i in range(3)]
        bad = Writer(pb.PutRequest(key=b""))
        missing = Writer(pb.PutRequest(key=b"k", lease=9))
        batch_of(member, "Put")([*lot, bad, missing], NO_CONTEXT)
        revisions = [pb.PutResponse.FromString(writer.heard).header.revision for writer in lot]
        assert revisions == list(range(revisions[0], revisions[0] + 3))
        assert bad.heard == "3 etcdserver: key is not provided"
        assert missing.heard == "5 etcdserver: requested lease not found"


async def test_a_large_lot_is_proposed_in_portions(config, monkeypatch):
    async with running(config, MemoryEngine()) as member:
        portions, submit = [], member.engine.submit
        monkeypatch.setattr(
            member.engine,
            "submit",
            lambda items, done, **more: portions.append(len(items)) or submit(items, done, **more),
        )
        lot = [Writer(pb.PutRequest(key=b"k%d" % i, value=b"v")) for i in range(MAX_TOGETHER + 1)]
        lot += [Writer(pb.PutRequest(key=b"large", value=bytes(MAX_TOGETHER_BYTES))) for _ in range(2)]
        batch_of(member, "Put")(lot, NO_CONTEXT)
        assert portions == [MAX_TOGETHER, 1, 1, 1]
        revisions = [pb.PutResponse.FromString(writer.heard).header.revision for writer in lot]
        assert revisions == list(range(revisions[0], revisions[0] + len(lot)))


async def test_deletions_and_transactions_go_the_same_way(config):
    async with running(config, MemoryEngine()) as member:
        batch_of(member, "Put")([Writer(pb.PutRequest(key=b"k", value=b"v"))], NO_CONTEXT)
        reads = Writer(pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))]))
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"l", value=b"w"))
        writes = Writer(pb.TxnRequest(success=[put]))
        batch_of(member, "Txn")([reads, writes], NO_CONTEXT)
        assert pb.TxnResponse.FromString(writes.heard).succeeded
        await reads.told.wait()
        (response,) = pb.TxnResponse.FromString(reads.heard).responses
        assert response.response_range.kvs[0].value == b"v"
        deletion = Writer(pb.DeleteRangeRequest(key=b"k", range_end=b"z"))
        batch_of(member, "DeleteRange")([deletion], NO_CONTEXT)
        assert pb.DeleteRangeResponse.FromString(deletion.heard).deleted == 2


@pytest.mark.parametrize("metadata", [{"token": "made up.1"}, {"token": ""}, {"authorization": ""}], ids=str)
async def test_who_has_a_token_is_looked_at_first(config, metadata):
    async with running(config, MemoryEngine()) as member:
        member.machine.auth.enabled = True
        writer = Writer(pb.PutRequest(key=b"k", value=b"v"))
        batch_of(member, "Put")([writer], context_of(metadata))
        assert writer.heard is None
        await writer.told.wait()
        assert writer.heard == "16 etcdserver: invalid auth token"
        assert await member.backend.caller(NO_CONTEXT) is NOBODY


async def test_a_token_is_not_looked_at_while_nobody_is_asked(config):
    """Clients keep theirs when authentication is disabled."""
    call = context_of({"token": "made up.1"})
    async with running(config, MemoryEngine()) as member:
        writer = Writer(pb.PutRequest(key=b"k", value=b"v"))
        batch_of(member, "Put")([writer], call)
        await writer.told.wait()
        assert pb.PutResponse.FromString(writer.heard).header.revision == 2
        assert await member.backend.caller(call) is NOBODY
        await member.backend.require_read(call, b"k", b"")
        await member.backend.require_admin(call)


async def test_without_room_a_write_raises_the_alarm(config):
    async with running(config, MemoryEngine()) as member:
        member.backend.quota_bytes = 100
        writer = Writer(pb.PutRequest(key=b"k", value=bytes(100)))
        batch_of(member, "Put")([writer], NO_CONTEXT)
        await writer.told.wait()
        assert writer.heard == "8 etcdserver: mvcc: database space exceeded"
        assert member.machine.alarms


async def test_what_the_engine_cannot_do_is_told(config, monkeypatch):
    async with running(config, MemoryEngine()) as member:
        batch = batch_of(member, "Put")

        def refuse(items, done, **more):
            raise EngineError("too many requests")

        def time_out(items, done, **more):
            done((), NoLeader("nobody"))

        heard = []
        for submit in (refuse, time_out):
            monkeypatch.setattr(member.engine, "submit", submit)
            writer = Writer(pb.PutRequest(key=b"k", value=b"v"))
            batch([writer], NO_CONTEXT)
            heard.append(writer.heard)
        assert heard == ["2 etcdserver: too many requests", "14 etcdserver: no leader"]
        assert (member.backend.proposals_pending, member.backend.proposals_failed) == (0, 2)


class Holding(MemoryEngine):
    """Lets writes wait, as they do for others to share their entry."""

    def __init__(self):
        super().__init__()
        self.waiting = []  # [items, whoever hears of them]

    def submit(self, items, done, *, timeout_s, foresee):
        self.waiting.append([list(items), done])
        self.foresee = foresee  # of the newest
        return self.waiting[-1]

    def join(self, submitted, items, *, timeout_s):
        if submitted not in self.waiting:
            return False
        submitted[0] += items
        return True

    def go(self, exc=None):
        waiting, self.waiting = self.waiting, []
        for items, done in waiting:
            done([self._apply(data) for data in items] if exc is None else (), exc)


async def test_lots_that_wait_share_a_proposal_and_are_answered_each_with_its_own_revision(config):
    engine = Holding()
    async with running(config, engine) as member:
        put = batch_of(member, "Put")
        lots = [[Writer(pb.PutRequest(key=b"%d" % n, value=b"v")) for n in range(size)] for size in (1, 2, 1, 3)]
        for lot in lots:
            put(lot, NO_CONTEXT)
        # The first has left by then: nobody else waited.
        assert [len(items) for items, _ in engine.waiting] == [1, 6]
        engine.go()
        revisions = [pb.PutResponse.FromString(writer.heard).header.revision for lot in lots for writer in lot]
        assert revisions == list(range(revisions[0], revisions[0] + 7))
        assert member.backend.proposals_pending == 0


async def test_an_answer_that_was_made_ready_is_given_if_that_is_what_came_of_it(config, monkeypatch):
    engine = Holding()
    async with running(config, engine) as member:
        put, encode = batch_of(member, "Put"), member.backend.answers.puts
        asked, results = Writer(pb.PutRequest(key=b"k", value=b"v")), [PutResult(7, None)]
        put([asked], NO_CONTEXT)
        engine.foresee(results)
        ((_, done),) = engine.waiting
        with monkeypatch.context() as patch:
            patch.setattr(type(member.backend.answers), "_headers", None)  # nothing more is made
            done(results, None)
        assert asked.heard == encode(results)[0]
        for exc in (None, NoLeader("nobody")):
            other = Writer(pb.PutRequest(key=b"k", value=b"v"))
            put([other], NO_CONTEXT)
            engine.foresee(results)
            engine.waiting.pop()[1]([PutResult(8, None)] if exc is None else (), exc)
            assert other.heard == (encode([PutResult(8, None)])[0] if exc is None else "14 etcdserver: no leader")


async def test_who_is_told_before_that_is_applied_is_told_at_once(config):
    """Else clients would wait for the end of the turn, and so for its being applied."""
    engine = Holding()
    async with running(config, engine) as member:
        put, results = batch_of(member, "Put"), [PutResult(revision, None) for revision in (7, 8, 9)]
        for foreseen in (False, True):
            first, *lots = [[Writer(pb.PutRequest(key=b"k", value=b"v")) for _ in range(size)] for size in (1, 1, 2)]
            put(first, NO_CONTEXT)  # so that the others have somebody to wait with
            for lot in lots:
                put(lot, NO_CONTEXT)
            if foreseen:
                engine.foresee(results)
            engine.waiting.pop()[1](results, None)
            assert {writer.at_once for lot in lots for writer in lot} == {foreseen}
            engine.go()


async def test_one_that_is_refused_among_lots_that_share_a_proposal_is_told_alone(config):
    engine = Holding()
    async with running(config, engine) as member:
        put = batch_of(member, "Put")
        lots = [
            [Writer(pb.PutRequest(key=b"k", value=b"v", lease=lease)) for lease in leases] for leases in ((0, 9), (0,))
        ]
        for lot in lots:
            put(lot, NO_CONTEXT)
        assert len(engine.waiting) == 1
        engine.go()
        (first, refused), (last,) = lots
        assert refused.heard == "5 etcdserver: requested lease not found"
        revisions = [pb.PutResponse.FromString(writer.heard).header.revision for writer in (first, last)]
        assert revisions[1] == revisions[0] + 1


async def test_lots_that_share_a_proposal_share_its_failure_and_the_next_one_is_new(config):
    engine = Holding()
    async with running(config, engine) as member:
        put = batch_of(member, "Put")
        writers = [Writer(pb.PutRequest(key=b"k", value=b"v")) for _ in range(4)]
        put(writers[:2], NO_CONTEXT)
        put(writers[2:3], NO_CONTEXT)
        engine.go(NoLeader("nobody"))
        assert [writer.heard for writer in writers] == ["14 etcdserver: no leader"] * 3 + [None]
        assert (member.backend.proposals_pending, member.backend.proposals_failed) == (0, 3)
        put(writers[3:], NO_CONTEXT)
        assert [len(items) for items, _ in engine.waiting] == [1]
        engine.go()
        assert pb.PutResponse.FromString(writers[3].heard).header.revision


async def test_who_cannot_take_its_answer_leaves_the_others_theirs(config, monkeypatch, caplog):
    engine = Holding()
    async with running(config, engine) as member:
        put = batch_of(member, "Put")
        lots = [[Writer(pb.PutRequest(key=b"k", value=b"v")) for _ in range(2)] for _ in range(3)]
        for lot in lots:
            put(lot, NO_CONTEXT)

        def broken(asks, messages, *, at_once):
            raise ValueError("a bug")

        monkeypatch.setattr(lots[1][0], "answer_all", broken)
        engine.go()
        heard = [[writer.heard is not None for writer in lot] for lot in lots]
        assert heard == [[True, True], [False, False], [True, True]]
        assert "who proposed cannot take the answer" in caplog.text


async def test_learners_refuse_writes(config):
    async with running(config, MemoryEngine()) as member:
        (row,) = [row for row in guard_learners(member._services().methods(), lambda: True) if row.method == "Put"]
        assert isinstance(row, UnaryMethod)
        assert row.batch is not None
        writer = Writer(pb.PutRequest(key=b"k", value=b"v"))
        row.batch([writer], NO_CONTEXT)
        assert writer.heard == "14 etcdserver: rpc not supported for learner"


async def test_our_own_mistake_is_told_to_who_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Goal: nobody waits for ever for a request that broke something. Method: what is asked one by one raises."""

    async def broken(request: object, call: CallContext) -> bytes:
        raise RuntimeError("our own mistake")

    class Stub:
        machine = SimpleNamespace(auth=SimpleNamespace(enabled=True))
        quota_bytes = 0

    backend = cast("Backend", Stub())
    write = Writing(backend, request=pb.PutRequest, read=read_put, encode=lambda _: (), one_by_one=broken)
    for lot, request in ((write, pb.PutRequest(key=b"k")), (Reading(backend, broken), pb.RangeRequest(key=b"k"))):
        asked = Writer(request.SerializeToString())
        lot.take([asked], NO_CONTEXT)
        async with asyncio.timeout(5):
            await asked.told.wait()
        assert "our own mistake" in str(asked.heard)
    assert caplog.messages == ["a request failed"] * 2


async def test_an_answer_that_cannot_be_made_leaves_no_other_without_one(config, monkeypatch):
    async with running(config, MemoryEngine()) as member:
        batch, encoded = batch_of(member, "Txn"), []

        def broken(results):
            encoded.append(results)
            if len(results) == 3 or len(encoded) == 3:  # all of them together, then the second one
                raise RuntimeError("our own mistake")
            return [b""]

        monkeypatch.setattr(batch.__self__, "_encode", broken)
        put = pb.RequestOp(request_put=pb.PutRequest(key=b"k"))
        lot = [Writer(pb.TxnRequest(success=[put])) for _ in range(3)]
        batch(lot, NO_CONTEXT)
        assert [writer.heard for writer in lot] == [b"", "2 RuntimeError: our own mistake", b""]
        assert member.backend.proposals_pending == 0
