"""Who leads, on real stores: one master at a time, and a deposed one cannot write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from client.etcd import EtcdClient, Lease
from master import leadership
from master.leadership import KEY, Leadership
from master.storage import Fence, Fenced, Put, Storage
from tests.contract.kv.stores import Store

WAIT_S = 15.0


class Master:
    """Leads, and says since when."""

    def __init__(self, client: EtcdClient, name: str, endpoint: str) -> None:
        self.client = client
        self.name = name
        self.leadership = Leadership(client, name=name, endpoint=endpoint)
        self.fences: list[Fence] = []
        self.leads = False

    async def lead(self, fence: Fence) -> None:
        self.fences.append(fence)
        self.leads = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Master"]:
        task = asyncio.create_task(self.leadership.run(self.lead))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])


async def until(condition: object, *, within_s: float = WAIT_S) -> None:
    assert callable(condition)
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.02)


async def leader_endpoint(client: EtcdClient) -> str:
    statuses = [await client.status(endpoint, timeout_s=2.0) for endpoint in client.endpoints]
    return next(status.endpoint for status in statuses if status.leader == status.member)


async def test_one_of_several_leads_and_hands_over_when_it_stops(client: EtcdClient, store: Store) -> None:
    masters = [Master(client, f"m{n}", endpoint) for n, endpoint in enumerate((store.endpoints * 3)[:3])]
    async with masters[1].running(), masters[2].running():
        async with masters[0].running():
            await until(lambda: any(master.leads for master in masters))
            await asyncio.sleep(1.0)
            assert sum(master.leads for master in masters) == 1
            first = next(master for master in masters if master.leads)
            await until(lambda: all(master.leadership.holder == first.name for master in masters))
        if first is masters[0]:
            await until(lambda: masters[1].leads or masters[2].leads)


async def test_master_beside_the_stores_leader_takes_over_at_once(client: EtcdClient, store: Store) -> None:
    leading = await leader_endpoint(client)
    others = [endpoint for endpoint in store.endpoints if endpoint != leading]
    if not others:
        # One member: the two share it, and then the one that holds the record keeps it.
        async with Master(client, "first", leading).running() as first:
            await until(lambda: first.leads)
            async with Master(client, "second", leading).running() as second:
                await asyncio.sleep(1.5)
                assert first.leads
                assert not second.leads
        return
    async with Master(client, "far", others[0]).running() as far:
        await until(lambda: far.leads)
        async with Master(client, "near", leading).running() as near:
            await until(lambda: near.leads, within_s=3.0)
            await until(lambda: not far.leads, within_s=3.0)
            with pytest.raises(Fenced):
                await Storage(client).commit([Put("/registry/x", b"", 0)], fence=far.fences[-1])
            await Storage(client).commit([Put("/registry/x", b"", 0)], fence=near.fences[-1])


async def test_record_of_a_master_that_died_is_taken(client: EtcdClient, store: Store) -> None:
    lease = await client.lease_grant(2)
    await client.put(KEY.encode(), b'{"holder":"dead","member":1}', lease=lease.lease)
    await client.lease_revoke(lease.lease)
    async with Master(client, "alive", store.endpoints[-1]).running() as alive:
        await until(lambda: alive.leads)


async def test_holder_that_cannot_renew_steps_down(
    client: EtcdClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "RENEW_S", 60.0)
    async with Master(client, "m", await leader_endpoint(client)).running() as master:
        await until(lambda: master.leads)
        await until(lambda: not master.leads, within_s=6.0)


async def test_a_holder_counts_on_what_the_store_granted(
    client: EtcdClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose elections take long grants longer leases than asked for: to give up sooner would help nobody."""
    grant = client.lease_grant

    async def grant_more(ttl_s: int, *, timeout_s: float) -> Lease:
        return await grant(ttl_s + 58, timeout_s=timeout_s)

    monkeypatch.setattr(client, "lease_grant", grant_more)
    monkeypatch.setattr(leadership, "RENEW_S", 60.0)
    async with Master(client, "m", await leader_endpoint(client)).running() as master:
        await until(lambda: master.leads)
        master.leadership._renewed -= 50.0
        await asyncio.sleep(3 * leadership.TICK_S)
        assert master.leads
        master.leadership._renewed -= 50.0
        await until(lambda: not master.leads, within_s=6.0)


async def test_a_holder_that_gave_up_takes_its_record_again_before_it_lapses(client: EtcdClient, store: Store) -> None:
    async with Master(client, "m", await leader_endpoint(client)).running() as master:
        await until(lambda: master.leads)
        master.leadership._renewed = 0.0  # as after a time without a leader
        await until(lambda: len(master.fences) == 2)
        kept = await client.get(KEY.encode())
        assert kept[0] is not None
        assert kept[0].version == 2  # it never went


async def test_record_that_is_written_over_ends_the_reign(client: EtcdClient, store: Store) -> None:
    status = await client.status(await leader_endpoint(client))
    async with Master(client, "m", status.endpoint).running() as master:
        await until(lambda: master.leads)
        await client.put(KEY.encode(), b'{"holder":"other","member":%d}' % status.member)
        await until(lambda: not master.leads, within_s=2.0)
        assert master.leadership.holder == "other"


async def test_work_that_ends_by_itself_is_begun_again(client: EtcdClient, store: Store) -> None:
    begun: list[Fence] = []

    async def failing(fence: Fence) -> None:
        begun.append(fence)
        if len(begun) == 1:
            raise RuntimeError("a controller has a fault")
        await asyncio.Event().wait()

    found = Leadership(client, name="m", endpoint=await leader_endpoint(client))
    task = asyncio.create_task(found.run(failing))
    try:
        await until(lambda: len(begun) == 2)
        assert begun[0] == begun[1]
    finally:
        task.cancel()
        await asyncio.wait([task])
