"""Secrets at rest: sealed in the store, plain to whoever has the key, and moved to a new key without a gap."""

import asyncio

import pytest

from client.etcd import EtcdClient
from master.access.encryption import MARK, Cipher, Unreadable
from master.storage import Fence, Put, Storage

OLD, NEW = b"o" * 32, b"n" * 16
SECRET, PLAIN = "/registry/secrets/default/s", "/registry/configmaps/default/c"
DATA = b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}'


async def raw(client: EtcdClient, key: str) -> bytes:
    found = await client.range(key.encode(), timeout_s=5)
    return bytes(found.kvs[0].value)


async def fence(client: EtcdClient) -> Fence:
    return Fence("/leader", (await client.put(b"/leader", b"me", timeout_s=5)).revision)


def test_a_value_opens_only_in_its_own_place() -> None:
    cipher = Cipher([OLD])
    sealed = cipher.seal("secrets/a/s", DATA)
    assert sealed != cipher.seal("secrets/a/s", DATA)  # a nonce of its own each time
    assert cipher.open("secrets/a/s", sealed) == DATA
    assert cipher.open("secrets/a/s", DATA) == DATA
    for place, value, other in (
        ("secrets/b/s", sealed, cipher),
        ("secrets/a/s", sealed[:-1] + bytes([sealed[-1] ^ 1]), cipher),
        ("secrets/a/s", sealed[: len(MARK) + 9], cipher),
        ("secrets/a/s", sealed, Cipher([NEW])),
    ):
        with pytest.raises(Unreadable):
            other.open(place, value)


async def test_secrets_are_sealed_and_nothing_else(client: EtcdClient) -> None:
    storage = Storage(client, cipher=Cipher([OLD]))
    await storage.commit([Put(SECRET, DATA, 0), Put(PLAIN, DATA, 0)])
    assert (await raw(client, SECRET)).startswith(MARK)
    assert DATA not in await raw(client, SECRET)
    assert await raw(client, PLAIN) == DATA
    value = await storage.get(SECRET)
    assert value is not None
    assert value.data == DATA
    values, *_ = await storage.page("/registry/secrets/")
    assert [each.data for each in values] == [DATA]
    listed = await storage.list_all()
    assert {each.key: each.data for each in listed.changes} == {"secrets/default/s": DATA, "configmaps/default/c": DATA}
    followed = storage.follow(after=value.revision - 1)
    async with asyncio.timeout(10):
        changes = [change async for message in _first(followed) for change in message.changes]
    assert DATA in [each.data for each in changes]
    await followed.aclose()


async def _first(messages):
    async for message in messages:
        if message.changes:
            yield message
            return


async def test_rotation(client: EtcdClient) -> None:
    """What was plain, and what the old key sealed, is under the new one afterwards; with no gap for readers."""
    await Storage(client).commit([Put(SECRET, DATA, 0)])
    old = Storage(client, cipher=Cipher([OLD, NEW]))
    await old.commit([Put(f"{SECRET}2", DATA, 0)])
    new = Storage(client, cipher=Cipher([NEW, OLD]))
    assert await new.reseal(fence=await fence(client)) == 2
    assert await new.reseal(fence=await fence(client)) == 0
    for storage in (new, old, Storage(client, cipher=Cipher([NEW]))):
        for key in (SECRET, f"{SECRET}2"):
            value = await storage.get(key)
            assert value is not None
            assert value.data == DATA


async def test_what_no_key_opens_is_left_alone(client: EtcdClient) -> None:
    await Storage(client, cipher=Cipher([OLD])).commit([Put(SECRET, DATA, 0)])
    before = await raw(client, SECRET)
    stranger = Storage(client, cipher=Cipher([NEW]))
    assert await stranger.reseal(fence=await fence(client)) == 0
    assert await raw(client, SECRET) == before
