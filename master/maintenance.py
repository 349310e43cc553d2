"""What the store needs of its users: old history forgotten, short-lived objects put on leases."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from client import etcd
from client.etcd import EtcdClient
from master.storage import api_error

log = logging.getLogger(__name__)

COMPACT_EVERY_S = 300.0
_OBJECTS_PER_LEASE = 1000
# One lease serves whatever is written within so long, so an object lives up to so much longer than asked.
_LEASE_WINDOW_S = 60


async def compact_history(client: EtcdClient, *, every_s: float = COMPACT_EVERY_S) -> None:
    """Keep the last ``every_s`` to twice that of the store's history; run by the leader alone, until cancelled."""
    before = 0
    while True:
        try:
            revision = await client.revision()
            if before:
                await client.compact(before)
                log.info("store history compacted revision=%d", before)
            before = revision
        except etcd.Compacted:
            before = 0
        except etcd.EtcdError as error:
            log.debug("store history not compacted error=%s", error)
        await asyncio.sleep(every_s)


class _Granted(msgspec.Struct):
    lease: int
    until: float  # new objects are put on it until then
    objects: int


class Leases:
    """Store leases for objects that the store shall forget by itself, many objects on each."""

    def __init__(self, client: EtcdClient, *, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._now = now
        self._granted: dict[int, _Granted] = {}
        self._granting = asyncio.Lock()

    async def lease(self, ttl_s: int) -> int:
        """Return a lease on which an object lives at least ``ttl_s``; 0 if that is 0. Raises Unavailable."""
        if not ttl_s:
            return 0
        async with self._granting:
            granted = self._granted.get(ttl_s)
            if granted is None or granted.objects >= _OBJECTS_PER_LEASE or self._now() >= granted.until:
                try:
                    lease = await self._client.lease_grant(ttl_s + _LEASE_WINDOW_S)
                except etcd.EtcdError as error:
                    raise api_error(error) from error
                granted = _Granted(lease.lease, self._now() + _LEASE_WINDOW_S, 0)
                self._granted[ttl_s] = granted
            granted.objects += 1
            return granted.lease

    def forget(self) -> None:
        """Use no lease again that was granted before: one was found to be gone."""
        self._granted.clear()
