"""Objects' bytes over the store's etcd v3 API: every write is one transaction that compares revisions.

Because a write compares, it may be sent again when nobody knows whether it took effect: the repetition then fails its
compares, and what lies under the key tells whether the first one did it. So callers get a plain answer wherever the
store can give one, and ``Timeout`` only where it cannot.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec

from api.errors import ApiError, Expired, InternalError, RequestTooLarge, Timeout, Unavailable
from client import etcd
from client.etcd import Compare, DeleteOp, EtcdClient, Fact, GetOp, KeyValue, Operation, PutOp, Relation, TxnResult
from master.access.encryption import MARK, Cipher, Unreadable
from master.cache import HistoryLost, KeyChange, KeyChanges

log = logging.getLogger(__name__)

PREFIX = "/registry/"
PAGE = 500
WRITE_TIMEOUT_S = 10.0
ATTEMPT_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 5.0
UNSENT_S = 0.3  # for so long a write looks for a member that takes it before it asks whether there is a quorum
PROBE_EVERY_S = 0.4
PROBE_S = 1.0  # a store that has not confirmed its revision for so long may have no quorum that we can reach ...
PROBE_AGAIN_S = 0.3  # ... and has none if it does not, once more, within this
# Before these releases etcd could answer a progress request before it had sent the events it covers.
_PROGRESS_SINCE = ((3, 4, 31), (3, 5, 13))
_HISTORY_STEPS = 8


class Value(msgspec.Struct, frozen=True):
    """What one key holds."""

    key: str
    data: bytes
    revision: int


class Put(msgspec.Struct, frozen=True):
    """Write a key if its revision is ``expect`` (0: if it does not exist)."""

    key: str
    data: bytes
    expect: int
    lease: int = 0


class Remove(msgspec.Struct, frozen=True):
    """Delete a key if its revision is ``expect``; None: whatever it holds."""

    key: str
    expect: int | None


class Unchanged(msgspec.Struct, frozen=True):
    """Write nothing: another key, on which the writes rely, must still have the revision ``expect``."""

    key: str
    expect: int


class Fence(msgspec.Struct, frozen=True):
    """A key that proves, while nobody has written it since ``revision``, that its holder may still write."""

    key: str
    revision: int


class Refused(Exception):
    """A compare did not hold; ``present`` is what each key of the transaction has now (None: nothing)."""

    def __init__(self, present: Mapping[str, Value | None]) -> None:
        super().__init__("a compare did not hold")
        self.present = present


class Fenced(Unavailable):
    """Another master leads by now: ours may not write for its controllers."""


Write = Put | Remove | Unchanged


def _compares(writes: Sequence[Write], fence: Fence | None) -> list[Compare]:
    compares = [
        Compare(write.key.encode(), Fact.MOD_REVISION, Relation.EQUAL, write.expect)
        for write in writes
        if write.expect is not None
    ]
    if fence is not None:
        compares.append(Compare(fence.key.encode(), Fact.MOD_REVISION, Relation.EQUAL, fence.revision))
    return compares


def api_error(error: etcd.EtcdError) -> ApiError:
    """Return what a client is told when the store did not answer as it should."""
    match error:
        case etcd.Unknown():
            return Timeout(f"the store did not answer in time: {error}", retry_after_s=1)
        case etcd.Unavailable():
            return Unavailable(f"the store is unavailable: {error}", retry_after_s=1)
        case etcd.Compacted():
            return Expired("The resourceVersion for the provided list is too old.")
        case etcd.NoSpace():
            return Unavailable("the store has no space left: compact and defragment it", retry_after_s=10)
    if "too large" in str(error) or "larger than max" in str(error):
        return RequestTooLarge(str(error))
    return InternalError(f"the store refused: {error}")


class Storage:
    """Reads and writes keys; also the watch cache's source.

    cipher: seals what must not lie in the store for everybody to read; callers see plain values only.
    """

    def __init__(self, client: EtcdClient, *, prefix: str = PREFIX, cipher: Cipher | None = None) -> None:
        self.client = client
        self.prefix = prefix
        self.has_quorum = True  # until a probe says otherwise
        self._cipher = cipher
        self._watch: etcd.Watch | None = None
        self._exact_progress: bool | None = None

    async def get(self, key: str) -> Value | None:
        """Return what ``key`` (whole) holds, by a quorum; raises Unavailable."""
        found = await self._range(key.encode())
        return self._value(found.kvs[0]) if found.kvs else None

    async def page(
        self, prefix: str, *, after: str = "", revision: int = 0, limit: int = PAGE
    ) -> tuple[Sequence[Value], bool, int, int]:
        """Return (values in key order behind the key ``after``, whether more follow, how many follow, the revision).

        Raises Expired when the history at ``revision`` is gone.
        """
        first = f"{after}\0" if after else prefix
        found = await self._range(first.encode(), etcd.prefix_end(prefix.encode()), limit=limit, revision=revision)
        values = [self._value(kv) for kv in found.kvs]
        return values, found.more, found.count - len(values), revision or found.revision

    async def commit(self, writes: Sequence[Write], *, fence: Fence | None = None) -> int:
        """Do all ``writes`` or none; return their revision.

        Raises Refused (a key was not as expected), Fenced, RequestTooLarge, Unavailable (surely nothing happened; at
        once where there is no quorum, so that the client tries another master), Timeout (nobody knows).
        """
        looks = [write.key for write in writes] + ([fence.key] if fence is not None else [])
        compares = _compares(writes, fence)
        operations = [self._operation(write) for write in writes if not isinstance(write, Unchanged)]
        reads = [GetOp(key.encode()) for key in looks]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WRITE_TIMEOUT_S
        maybe = False
        while True:
            if not (maybe or self.has_quorum):
                # The balancer is about to cut our clients off: who is answered before that tries another master.
                raise Unavailable("the store has no quorum that this master can reach", retry_after_s=1)
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline - loop.time())
            try:
                answer = await self.client.txn(compares, operations, reads, timeout_s=timeout_s, unsent_s=UNSENT_S)
                break
            except (etcd.Unknown, etcd.Unavailable) as error:
                maybe = maybe or isinstance(error, etcd.Unknown)
                if loop.time() + 0.1 >= deadline:
                    raise api_error(etcd.Unknown(str(error)) if maybe else error) from error
                log.debug("store write to be repeated maybe=%s error=%s", maybe, error)
                await asyncio.sleep(0.02)
            except etcd.EtcdError as error:
                raise api_error(error) from error
        if answer.succeeded:
            return answer.revision
        return await self._refusal(writes, answer, fence, maybe=maybe)

    def _operation(self, write: Put | Remove) -> Operation:
        match write:
            case Put(key, data, _, lease):
                place = key.removeprefix(self.prefix)
                if self._cipher is not None and self._cipher.covers(place):
                    data = self._cipher.seal(place, data)
                return PutOp(key.encode(), data, lease)
            case Remove(key):
                return DeleteOp(key.encode())

    def _value(self, kv: KeyValue) -> Value:
        key = kv.key.decode()
        return Value(key, self._opened(key.removeprefix(self.prefix), kv.value), kv.mod_revision)

    def _opened(self, place: str, data: bytes) -> bytes:
        """Return a value as it was before it was sealed; one that cannot be opened stays as it is, and is no object."""
        if self._cipher is None or not self._cipher.covers(place):
            return data
        try:
            return self._cipher.open(place, data)
        except Unreadable as error:
            log.error("value in the store cannot be opened key=%s error=%s", place, error)  # noqa: TRY400 - says it all
            return data

    async def reseal(self, *, fence: Fence) -> int:
        """Write anew what was not sealed with the key that writes; return how many values. Raises as ``commit``."""
        count = 0
        for start in self._cipher.prefixes if self._cipher is not None else ():
            first, end = (self.prefix + start).encode(), etcd.prefix_end((self.prefix + start).encode())
            more = True
            while more:
                found = await self._range(first, end, limit=PAGE)
                for kv in found.kvs:
                    count += await self._reseal_one(kv, fence)
                more = found.more
                first = found.kvs[-1].key + b"\0" if found.kvs else first
        return count

    async def _reseal_one(self, kv: KeyValue, fence: Fence) -> int:
        assert self._cipher is not None
        value = self._value(kv)
        if self._cipher.is_current(kv.value) or value.data.startswith(MARK):
            return 0  # as it should be, or sealed with a key that we do not have
        try:
            await self.commit([Put(value.key, value.data, value.revision, kv.lease)], fence=fence)
        except Refused:
            return 0  # somebody has just written it
        return 1

    async def _refusal(self, writes: Sequence[Write], answer: TxnResult, fence: Fence | None, *, maybe: bool) -> int:
        """Return the revision if an earlier attempt did the writes after all; raise why not otherwise."""
        found = [each.kvs for each in answer.results if isinstance(each, etcd.RangeResult)]
        present = {
            write.key: self._value(kvs[0]) if kvs else None
            for write, kvs in zip(writes, found[: len(writes)], strict=True)
        }
        if maybe and (revision := await self._done_before(writes[0], present[writes[0].key], answer)) is not None:
            return revision
        if fence is not None and (not found[-1] or found[-1][0].mod_revision != fence.revision):
            raise Fenced("this master does not lead any more", retry_after_s=1)
        raise Refused(present)

    async def _done_before(self, write: Write, present: Value | None, answer: TxnResult) -> int | None:
        """Return the revision at which ``write`` took effect, looking back through what others wrote upon it."""
        assert not isinstance(write, Unchanged), write
        if isinstance(write, Remove):
            # Gone is gone; who did it makes no difference to the caller.
            return answer.revision if present is None else None
        for _ in range(_HISTORY_STEPS):
            if present is None or present.revision <= write.expect:
                return None
            if present.data == write.data:
                return present.revision
            earlier = await self._range(write.key.encode(), revision=present.revision - 1)
            present = self._value(earlier.kvs[0]) if earlier.kvs else None
        return None

    async def _range(self, key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0) -> etcd.RangeResult:
        try:
            return await self.client.range(key, end, limit=limit, revision=revision, timeout_s=READ_TIMEOUT_S)
        except etcd.EtcdError as error:
            raise api_error(error) from error

    # The watch cache's source

    async def list_all(self) -> KeyChanges:
        """Return every key under the prefix at one revision."""
        items: list[KeyChange] = []
        after, revision, more = "", 0, True
        skip = len(self.prefix)
        while more:
            values, more, _, revision = await self.page(self.prefix, after=after, revision=revision)
            items += (KeyChange(value.key[skip:], value.revision, value.data) for value in values)
            after = values[-1].key if values else ""
        return KeyChanges(revision, items)

    async def follow(self, *, after: int) -> AsyncGenerator[KeyChanges, None]:
        """Yield what happens under the prefix after a revision; raises HistoryLost, Unavailable."""
        first, skip = self.prefix.encode(), len(self.prefix)
        try:
            async with self.client.watch(first, etcd.prefix_end(first), start_revision=after + 1) as batches:
                self._watch = batches
                async for batch in batches:
                    changes = []
                    for event in batch.events:
                        place = event.kv.key.decode(errors="replace")[skip:]
                        data = None if event.deleted else self._opened(place, event.kv.value)
                        changes.append(KeyChange(place, batch.revision, data))
                    yield KeyChanges(batch.revision, changes)
        except etcd.Compacted as error:
            raise HistoryLost from error
        except etcd.EtcdError as error:
            raise Unavailable(f"the store's watch broke: {error}") from error
        finally:
            self._watch = None

    async def current_revision(self) -> int:
        """Return the store's revision, by a quorum."""
        try:
            return await self.client.revision(timeout_s=READ_TIMEOUT_S)
        except etcd.EtcdError as error:
            raise api_error(error) from error

    async def probe(self) -> None:
        """Notice, until cancelled, a store that is there but cannot commit: a member cut off from its peers."""
        while True:
            # Twice: writes are refused upon it, and the first answer may be late because we were.
            self.has_quorum = await self._confirms(PROBE_S) or await self._confirms(PROBE_AGAIN_S)
            await asyncio.sleep(PROBE_EVERY_S)

    async def _confirms(self, within_s: float) -> bool:
        """Return whether the store says anything of its revision, by a quorum and in time; a refusal is an answer."""
        try:
            async with asyncio.timeout(within_s):
                await self.current_revision()
        except (Unavailable, Timeout, TimeoutError):
            return False
        except ApiError as error:
            log.debug("store refuses to tell its revision error=%s", error)
        return True

    async def request_progress(self) -> None:
        """Ask the store to tell how far the watch has come, or make it tell by writing a key in sight."""
        if self._exact_progress is None:
            self._exact_progress = await self._has_exact_progress()
        if self._exact_progress is False:
            await self._touch()
        elif self._watch is not None:
            await self._watch.request_progress()

    async def _has_exact_progress(self) -> bool | None:
        """Return whether every member that answers can be asked; None if none answers."""
        known: bool | None = None
        for endpoint in self.client.endpoints:
            try:
                status = await self.client.status(endpoint, timeout_s=0.5)
            except etcd.EtcdError:
                continue
            known = exact_progress(status.version) and known is not False
        return known

    async def _touch(self) -> None:
        try:
            await self.client.put(f"{self.prefix}.progress".encode(), b"", timeout_s=1.0)
        except etcd.EtcdError as error:
            log.debug("progress key not written error=%s", error)


def exact_progress(version: str) -> bool:
    """Return whether a store of this version answers a progress request only after the events that it covers."""
    try:
        numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:3])
    except ValueError:
        return False
    if numbers[:2] <= (3, 4):
        return numbers >= _PROGRESS_SINCE[0]
    return numbers >= _PROGRESS_SINCE[1]
