"""Which master runs the controllers and the scheduler: the one beside the store's Raft leader.

One record in the store names the leading master; every write of its controllers compares the record's revision, so a
master that has been deposed cannot write, whatever it still believes. Three rules move the record:

- A master whose own store member leads the store takes the record over at once, unless another master that holds it is
  beside that same member: with an external etcd several share a member, and the record must not go round among them.
  A record in its own name that it does not hold is from before it stopped leading by itself, or began anew.
- The record is bound to a store lease of two seconds that its holder keeps alive, so a holder that dies gives it
  back; then anybody may take it, after a moment in which the master beside the store's leader goes first. A store whose
  elections take longer than that grants more, and the holder counts on what was granted: without a leader nobody
  can renew anything, and nobody else can lead either.
- A holder that cannot renew its lease in time stops leading by itself.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from enum import Enum

import msgspec

from client import etcd
from client.etcd import Compare, EtcdClient, Fact, PutOp, Relation
from master.storage import Fence

log = logging.getLogger(__name__)

KEY = "/trireme/leadership"
TICK_S = 0.1
LEASE_S = 2  # what we ask for
RENEW_S = 0.5
KNOWN_S = 0.5  # how long what our member said of itself holds
GONE_GRACE_S = 0.4  # how long a record must be gone before a master that is not beside the store's leader takes it
STOP_S = 3.0
_PATIENCE_S = 1.0

Lead = Callable[[Fence], Awaitable[None]]


class Record(msgspec.Struct, frozen=True):
    """Who leads."""

    holder: str  # a master's name
    member: int  # the store member beside it


class Seen(msgspec.Struct, frozen=True):
    """The record as this master last saw it."""

    revision: int  # of the last change of the record that we know of; that of our look if there was none
    record: Record | None = None  # None: there is none


class View(msgspec.Struct, frozen=True):
    """All that the decision depends on."""

    name: str  # ours
    member: int  # the store member beside us; 0: it does not answer
    leads_store: bool
    seen: Seen | None  # None: the store has not told yet
    held: int  # the revision under which we wrote the record; 0: we do not lead
    lease_alive: bool
    gone_for_s: float  # how long there has been no record


class Step(Enum):
    """What to do now."""

    STAY = "stay"
    TAKE = "take"
    STEP_DOWN = "step down"


def decide(view: View, *, grace_s: float) -> Step:
    """Return the next step by the rules above; ``grace_s``: how long to leave a missing record to others."""
    if view.held:
        lost = view.seen is not None and view.seen.revision != view.held
        return Step.STEP_DOWN if lost or not view.lease_alive else Step.STAY
    if view.seen is None:
        return Step.STAY
    record = view.seen.record
    if record is None:
        return Step.TAKE if view.leads_store or view.gone_for_s >= grace_s else Step.STAY
    theirs = record.member == view.member and record.holder != view.name
    return Step.TAKE if view.leads_store and not theirs else Step.STAY


class Leadership:
    """Holds the record for this master whenever the rules say so, and runs what the leader runs.

    endpoint: the store member beside this master, one of the client's endpoints.
    """

    def __init__(self, client: EtcdClient, *, name: str, endpoint: str, rng: random.Random | None = None) -> None:
        self._client = client
        self._name = name
        self._endpoint = endpoint
        self._grace_s = GONE_GRACE_S * (1 + (rng or random.Random()).random())  # noqa: S311 - spreads attempts
        self._seen: Seen | None = None
        self._gone_since = 0.0
        self._fence: Fence | None = None
        self._lease = 0
        self._lease_s = 0  # as it was granted
        self._renewed = 0.0
        self._member = 0
        self._leads_store = False
        self._looked = 0.0  # when our member told that
        self._lead: Lead | None = None
        self._leading: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Return whether this master believes that it leads; its writes are checked by the store all the same."""
        return self._fence is not None

    @property
    def holder(self) -> str:
        """Return the name of the master that holds the record, as last seen."""
        record = self._seen.record if self._seen is not None else None
        return record.holder if record is not None else ""

    async def run(self, lead: Lead) -> None:
        """Run ``lead`` whenever this master leads, cancelled when it does not any more; until cancelled itself."""
        self._lead = lead
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_record())
                tasks.create_task(self._renew())
                tasks.create_task(self._look_at_store())
                while True:
                    await self._step()
                    await asyncio.sleep(TICK_S)
        finally:
            await self._resign()

    async def _step(self) -> None:
        now = time.monotonic()
        view = View(
            name=self._name,
            member=self._member,
            # What we knew before we were paused is worth nothing.
            leads_store=self._leads_store and now - self._looked < KNOWN_S,
            seen=self._seen,
            held=self._fence.revision if self._fence is not None else 0,
            lease_alive=now - self._renewed < self._lease_s,
            gone_for_s=now - self._gone_since,
        )
        match decide(view, grace_s=self._grace_s):
            case Step.TAKE:
                await self._take()
            case Step.STEP_DOWN:
                log.info("leads no more name=%s holder=%s", self._name, self.holder)
                await self._stop()
            case Step.STAY:
                if self._leading is not None and self._leading.done():
                    await self._restart()

    async def _take(self) -> None:
        assert self._seen is not None
        present = self._seen.revision if self._seen.record is not None else 0
        data = msgspec.json.encode(Record(self._name, self._member))
        asked = time.monotonic()
        try:
            lease = await self._client.lease_grant(LEASE_S, timeout_s=_PATIENCE_S)
            compare = Compare(KEY.encode(), Fact.MOD_REVISION, Relation.EQUAL, present)
            put = PutOp(KEY.encode(), data, lease.lease)
            answer = await self._client.txn([compare], [put], timeout_s=_PATIENCE_S)
        except etcd.EtcdError as error:
            # If the record was written after all it goes with its lease, which nobody renews.
            log.debug("leadership not taken error=%s", error)
            return
        if not answer.succeeded:
            return
        self._lease, self._lease_s, self._renewed = lease.lease, lease.ttl_s, asked
        self._saw(Seen(answer.revision, Record(self._name, self._member)))
        self._fence = Fence(KEY, answer.revision)
        log.info("leads name=%s revision=%d", self._name, answer.revision)
        self._start(self._fence)

    def _start(self, fence: Fence) -> None:
        assert self._lead is not None
        self._leading = asyncio.ensure_future(self._lead(fence))

    async def _restart(self) -> None:
        """What the leader runs ended by itself, which it should not: say so, and begin again."""
        assert self._leading is not None
        ended, self._leading = self._leading, None
        error = None if ended.cancelled() else ended.exception()
        log.error("controllers ended, starting them again name=%s", self._name, exc_info=error)
        await asyncio.sleep(1.0)
        if self._fence is not None:
            self._start(self._fence)

    async def _stop(self) -> None:
        self._fence, self._lease = None, 0
        task, self._leading = self._leading, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task], timeout=STOP_S)
        if not task.done():
            log.error("controllers do not stop; the store refuses their writes name=%s", self._name)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning("controllers failed while stopping name=%s", self._name, exc_info=error)

    async def _resign(self) -> None:
        lease = self._lease
        await self._stop()
        if lease:
            try:
                await self._client.lease_revoke(lease, timeout_s=0.5)
            except etcd.EtcdError as error:
                log.debug("leadership lease not revoked error=%s", error)

    async def _look_at_store(self) -> None:
        """Keep track of whether our own member leads."""
        while True:
            asked = time.monotonic()
            try:
                status = await self._client.status(self._endpoint, timeout_s=0.5)
            except etcd.EtcdError:
                self._member, self._leads_store = 0, False
            else:
                self._member, self._leads_store = status.member, status.member == status.leader
                self._looked = asked
            await asyncio.sleep(TICK_S)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            lease = self._lease
            if not lease:
                continue
            asked = time.monotonic()
            try:
                await self._client.lease_keep_alive(lease, timeout_s=_PATIENCE_S)
            except etcd.LeaseNotFound:
                log.warning("leadership lease lost name=%s", self._name)
                if self._lease == lease:
                    self._renewed = 0.0
            except etcd.EtcdError as error:
                log.debug("leadership lease not renewed error=%s", error)
            else:
                if self._lease == lease:
                    self._renewed = asked

    async def _follow_record(self) -> None:
        """Keep what we know of the record current."""
        key = KEY.encode()
        while True:
            try:
                found, revision = await self._client.get(key, timeout_s=_PATIENCE_S)
                self._saw(Seen(found.mod_revision, _record(found)) if found is not None else Seen(revision))
                async with self._client.watch(key, start_revision=revision + 1) as batches:
                    async for batch in batches:
                        for event in batch.events:
                            self._saw(Seen(batch.revision, None if event.deleted else _record(event.kv)))
            except etcd.EtcdError as error:
                log.debug("leadership record not followed error=%s", error)
            await asyncio.sleep(TICK_S)

    def _saw(self, seen: Seen) -> None:
        # We know of our own take-over before the watch tells what came before it.
        if self._seen is not None and seen.revision < self._seen.revision:
            return
        if seen.record is None and (self._seen is None or self._seen.record is not None):
            self._gone_since = time.monotonic()
        self._seen = seen


def _record(kv: etcd.KeyValue) -> Record:
    try:
        return msgspec.json.decode(kv.value, type=Record)
    except msgspec.MsgspecError:
        # Written by hand, perhaps: somebody beside no member, whom the store's leader may replace.
        return Record("", 0)
