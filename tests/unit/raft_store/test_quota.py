"""The quota: what does not fit is refused and raises the alarm, room can be made, and nothing ends by itself."""

import asyncio
import time

import pytest

from raft_store.config import Config
from raft_store.engines.memory import MemoryEngine
from raft_store.etcd_api.errors import RpcError
from raft_store.etcd_api.maintenance import MaintenanceService
from raft_store.member import IDLE_TRIM, running
from raft_store.mvcc.model import LeaseId, Revision
from raft_store.mvcc.requests import (
    Alarm,
    AlarmKind,
    Compact,
    DeleteRange,
    DeleteResult,
    Done,
    Granted,
    LeaseGrant,
    Put,
    PutResult,
    Range,
    SetAlarm,
    Txn,
    TxnResult,
)
from raft_store.pacing import WORTH_A_REST_S
from raft_store.quota import cost_of, fits
from trireme_pb.etcdserverpb import rpc_pb2 as pb

KILO = bytes(1000)


@pytest.mark.parametrize(
    ("command", "needs_room"),
    [
        (Put(b"k", KILO), True),
        (LeaseGrant(LeaseId(1), 60), True),
        (Txn([], [DeleteRange(b"k"), Put(b"k", b"")], []), True),
        (Txn([], [], [Txn([], [Put(b"k", b"")], [])]), True),
        (Txn([], [DeleteRange(b"k"), Range(b"k")], [Range(b"k")]), False),
        (DeleteRange(b"k"), False),
        (Compact(Revision(3)), False),
    ],
)
def test_what_needs_room(command, needs_room):
    assert bool(cost_of(command)) is needs_room
    assert fits(command, held_bytes=10_000, quota_bytes=10_000) is not needs_room
    assert fits(command, held_bytes=10_000, quota_bytes=0)
    assert fits(command, held_bytes=0, quota_bytes=10_000)


@pytest.fixture
async def backend(tmp_path):
    config = Config(
        name="a",
        members={"a": "http://127.0.0.1:1"},
        data_dir=tmp_path,
        client_url="http://127.0.0.1:2379",
        client_listen="127.0.0.1:0",
        quota_bytes=10_000,
    )
    async with running(config, MemoryEngine(config.member)) as member:
        yield member.backend


async def refusal(backend, command, kind):
    with pytest.raises(RpcError) as refused:
        await backend.propose(command, kind)
    return refused.value.text


async def test_a_full_store_can_be_emptied_and_used_again(backend):
    full = "etcdserver: mvcc: database space exceeded"
    for number in range(9):  # as many as fit, and no more
        await backend.propose(Put(b"%d" % number, KILO), PutResult)
    assert await refusal(backend, Put(b"9", KILO), PutResult) == full
    store, alarms = backend.machine.store, backend.machine.alarms
    assert store.held_bytes <= 10_000
    assert alarms == {(backend.member, AlarmKind.NOSPACE)}
    # Small things would fit; the alarm is on.
    assert await refusal(backend, Put(b"k", b""), PutResult) == full
    assert await refusal(backend, LeaseGrant(LeaseId(7), 60), Granted) == full
    assert await refusal(backend, Txn([], [], [Put(b"k", b"")]), TxnResult) == full
    # Room is made.
    assert (await backend.propose(DeleteRange(b"0", b"\0"), DeleteResult)).deleted == 9
    await backend.propose(Txn([], [DeleteRange(b"0")], [Range(b"0")]), TxnResult)
    await backend.propose(Compact(store.revision), Done)
    store.trim_all()  # what Defragment does
    assert store.held_bytes < 1_000
    assert await refusal(backend, Put(b"k", b""), PutResult) == full
    await backend.propose(SetAlarm(Alarm(backend.member, AlarmKind.NOSPACE), active=False), list)
    await backend.propose(Put(b"k", KILO), PutResult)
    assert not alarms


async def test_giving_memory_back_lets_the_member_do_its_other_work(backend, monkeypatch):
    monkeypatch.setattr("raft_store.etcd_api.backend.TRIM_STEP", 1)
    store, trim, turns = backend.machine.store, backend.machine.store.trim, []
    trims = []

    def slow_trim(limit):
        if limit == IDLE_TRIM:
            return False  # the member's own pulse
        trims.append(len(turns))
        spent_s = time.perf_counter() + WORTH_A_REST_S
        while time.perf_counter() < spent_s:
            pass
        return trim(limit)

    async def other_work():
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    monkeypatch.setattr(store, "trim", lambda limit: False)
    for _ in range(5):
        await backend.propose(Put(b"k", b""), PutResult)
    await backend.propose(Compact(store.revision), Done)
    monkeypatch.setattr(store, "trim", slow_trim)
    beside = asyncio.create_task(other_work())
    await asyncio.sleep(0)
    await MaintenanceService(backend).defragment(pb.DefragmentRequest())
    beside.cancel()
    assert not trim(1)
    assert len(trims) >= 5
    assert trims == sorted(set(trims)), "the loop had no turn between two steps"
