"""The whole state of a machine in chunks of bytes, as snapshots hold it: drawn from one, and put together again.

The head comes first: the store's revisions, and everything that is not a key. Keys follow as they were before the
history that is kept began, and that history last, change by change.
"""

from collections.abc import Callable, Generator

import msgspec

from .audit import AuditState
from .auth.store import AuthContents
from .mvcc.lease import Lease, LeaseTable
from .mvcc.model import NO_LEASE, Event, KeyValue, LeaseId, Revision
from .mvcc.requests import Alarm, Publish
from .mvcc.store import Loader, Store, View

SNAPSHOT_FORMAT = 2


class LeaseState(msgspec.Struct, frozen=True, array_like=True):
    """A lease without its keys: they name it themselves."""

    lease: LeaseId
    ttl_s: int
    renewals: int


class MachineState(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot holds beside the keys."""

    leases: list[LeaseState]
    alarms: list[Alarm]
    members: list[Publish]
    auth: AuthContents = AuthContents()
    audit: AuditState = AuditState()


class _Head(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first chunk of a snapshot."""

    format: int
    compact_revision: Revision
    revision: Revision
    history_start: Revision
    state: MachineState


class _Base(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Keys as they were before the history begins, in key order."""

    kvs: list[KeyValue]


class _History(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Changes, in order; what has one revision is one change."""

    kvs: list[KeyValue]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[_Head | _Base | _History] = msgspec.msgpack.Decoder(_Head | _Base | _History)


def draw_chunks(view: View, state: MachineState) -> Generator[bytes, None, None]:
    """Return the chunks of what ``view`` shows and of ``state`` as it is now; an empty one is only a rest.

    To be drawn to the end, or closed: the view is closed then.
    """
    # Encoded now: unlike versions, what it is made of may change.
    head = _Head(SNAPSHOT_FORMAT, view.compact_revision, view.revision, view.history_start, state)
    chunks = _draw(view, _encoder.encode(head))
    next(chunks)  # from here on, closing it closes the view
    return chunks


def _draw(view: View, head: bytes) -> Generator[bytes, None, None]:
    encode = _encoder.encode
    try:
        yield b""
        yield head
        for kvs in view.base():
            yield encode(_Base(kvs)) if kvs else b""
        for kvs in view.history():
            yield encode(_History(kvs)) if kvs else b""
    finally:
        view.close()


class Restoration:
    """A snapshot on its way into a machine, which answers from its old state until ``finish`` hands it the new one."""

    def __init__(self, adopt: Callable[[Store, LeaseTable, MachineState], None]) -> None:
        self._adopt = adopt
        self._leases = LeaseTable()
        self._state: MachineState | None = None
        self._loader: Loader

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk; raises ValueError if it is not one of this program's."""
        part = _decoder.decode(chunk)
        match part:
            case _Head():
                self._begin(part)
            case _Base():
                self._loader.add_base(part.kvs)
                for kv in part.kvs:
                    self._attach(kv)
            case _History():
                for event in self._loader.add_history(part.kvs):
                    if event.kv.lease or event.prev is not None:
                        self._move_lease(event)

    def finish(self) -> None:
        """All chunks were fed: replace the machine's state."""
        if self._state is None:
            raise ValueError("an empty snapshot")
        self._adopt(self._loader.finish(), self._leases, self._state)

    def _begin(self, head: _Head) -> None:
        if head.format != SNAPSHOT_FORMAT:
            raise ValueError(f"snapshot of format {head.format}; this program reads {SNAPSHOT_FORMAT}")
        self._state = head.state
        self._leases = LeaseTable(Lease(held.lease, held.ttl_s, held.renewals) for held in head.state.leases)
        self._loader = Loader(
            compact_revision=head.compact_revision, revision=head.revision, history_start=head.history_start
        )

    def _move_lease(self, event: Event) -> None:
        kv, prev = event.kv, event.prev
        if prev is not None and prev.lease != NO_LEASE:
            self._leases.detach(kv.key, prev.lease)
        self._attach(kv)

    def _attach(self, kv: KeyValue) -> None:
        # A version that is not the newest may name a lease that ended since.
        if kv.lease != NO_LEASE and self._leases.get(kv.lease) is not None:
            self._leases.attach(kv.key, kv.lease)
