"""Backups on schedule: complete or absent, the newest few, and members take turns."""

import asyncio
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft_store.backups import BackupPlan, due_in_s, keep_backups, made_at, make_backup, name_of, pick_surplus
from raft_store.config import Config
from raft_store.member import running
from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import Put, PutResult
from raft_store.mvcc.requests import Range as Read
from raft_store.mvcc.txn import read
from raft_store.tool import snapshots
from tests.ports import free_ports

HOUR = 3600.0


@given(st.integers(0, 4 * 10**9), st.integers(1, 10**15))
def test_a_name_says_when(at_s, revision):
    assert made_at(name_of(at_s=at_s, revision=revision)) == at_s


def test_names_sort_by_time():
    names = [name_of(at_s=at_s, revision=5) for at_s in (1e9, 1.1e9, 1.7e9)]
    assert names == sorted(names)


@given(st.lists(st.integers(0, 10**9), unique=True, max_size=10), st.integers(1, 5))
def test_the_newest_stay(times, keep):
    names = [name_of(at_s=at_s, revision=1) for at_s in times]
    gone = pick_surplus([*names, "mine.txt", names[0] + ".part"] if names else [], keep=keep)
    assert sorted(set(names) - set(gone)) == sorted(names)[-keep:]


@pytest.mark.parametrize(
    ("ages", "wait"),
    [([], 900.0), ([0], 3600.0), ([600, 4000], 3000.0), ([9000], 0.0)],
    ids=["first", "just made", "some time ago", "long ago"],
)
def test_when_the_next_one_is_due(ages, wait):
    now = 1.5e9
    names = [name_of(at_s=now - age, revision=1) for age in ages]
    assert due_in_s([*names, "other"], now_s=now, every_s=HOUR, share=0.25) == wait


async def portions(*parts, then=None):
    for part in parts:
        yield part
    if then is not None:
        raise then


async def test_a_backup_is_whole_or_not_there(tmp_path):
    plan = BackupPlan(dir=tmp_path / "backups", keep=2)
    names = [name_of(at_s=at_s, revision=1) for at_s in (1e9, 1.1e9, 1.2e9)]
    for name in names:
        path = await make_backup(plan, state=portions(b"one ", b"two"), name=name)
        assert path.read_bytes() == b"one two"
    assert sorted(_list(plan.dir)) == names[1:]
    with pytest.raises(OSError, match="No space"):
        await make_backup(
            plan,
            state=portions(b"half", then=OSError(errno.ENOSPC, "No space left on device")),
            name=name_of(at_s=1.3e9, revision=1),
        )
    assert sorted(_list(plan.dir)) == names[1:]


async def test_a_failed_backup_is_tried_again(tmp_path, monkeypatch):
    tries, slept = [], []
    done = asyncio.Event()

    def state():
        tries.append(1)
        if len(tries) == 3:
            done.set()
        return portions(b"x", then=OSError(errno.EIO, "Input/output error") if len(tries) == 1 else None)

    sleep = asyncio.sleep

    async def at_once(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("raft_store.backups.asyncio.sleep", at_once)
    clock = iter(range(10**9, 2 * 10**9, 1000))
    plan = BackupPlan(dir=tmp_path, every_s=100.0, keep=5)
    task = asyncio.create_task(keep_backups(plan, state=state, revision=lambda: 3, share=0.5, now=lambda: next(clock)))
    async with asyncio.timeout(20):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert slept[:2] == [50.0, 100.0]  # its turn; then a whole interval after the failure
    assert len([name for name in _list(tmp_path) if made_at(name)]) >= 1


async def test_a_member_makes_backups_that_a_new_cluster_begins_with(tmp_path):
    client, peer = free_ports(2)

    def config(folder, **options):
        return Config(
            name="a",
            members={"a": f"http://127.0.0.1:{peer}"},
            data_dir=tmp_path / folder,
            client_url=f"http://127.0.0.1:{client}",
            client_listen=f"127.0.0.1:{client}",
            peer_listen=f"127.0.0.1:{peer}",
            **options,
        )

    plan = BackupPlan(dir=tmp_path / "backups", every_s=0.2, keep=2)
    async with asyncio.timeout(60), running(config("old", backup=plan)) as member:
        await member.backend.propose(Put(b"a", b"1", LeaseId(0)), PutResult)
        revision = member.machine.store.revision
        while not any(made_at(name) and f"-r{revision:012}" in name for name in _list(plan.dir)):  # noqa: ASYNC110 - it is a disk
            await asyncio.sleep(0.02)
    newest = plan.dir / max(name for name in _list(plan.dir) if made_at(name))
    assert snapshots.status(newest).revision == revision
    for _ in range(2):  # the second life has its own data, and leaves the file alone
        async with asyncio.timeout(60), running(config("new", cluster="new", initial_snapshot=newest)) as member:
            await member.backend.linearize()
            (kv,) = read(member.machine.store, Read(b"a")).kvs
            assert kv.value == b"%d" % (1 if member.machine.store.revision == revision else 2)
            await member.backend.propose(Put(b"a", b"2", LeaseId(0)), PutResult)


def _list(folder):
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []
