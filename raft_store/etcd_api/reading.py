"""Ranges by the lot: reads that arrive together share one question to the leader, one wake-up and one header.

Nearly all of what a read costs is what surrounds it. So there is no coroutine and no future for each, the request that
is made most, the newest value of one key, is told by its bytes, and its answer is put together from bytes that are
there already.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from raft_store.engine import EngineError, Overloaded
from raft_store.mvcc.model import StoreError
from raft_store.mvcc.requests import Range
from raft_store.mvcc.txn import check_request, read
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .alone import Alone, decode
from .backend import Backend
from .call import Asked, CallContext
from .errors import Code, RpcError, rpc_error
from .kv import to_range

log = logging.getLogger(__name__)

Wanted = bytes | Range  # bytes: the newest value of that key
Reads = list[tuple[Asked, Wanted]]
MAX_WAITING = 50_000  # reads; without a leader each would wait for its whole time, and more and more would come ...
MAX_WAITING_BYTES = 64 << 20  # ... and their bytes, for keys may be long
TURN_S = 0.01  # of ranges; then the member's other work has its turn, its heartbeats above all

OneByOne = Callable[[pb.RangeRequest, CallContext], Awaitable[bytes]]

_KEY, _SERIALIZABLE = b"\x0a", b"\x38\x01"  # the key's tag; the whole field


class Reading:
    """Answers lots of ranges. ``one_by_one`` answers a single one, whatever it takes to do so."""

    def __init__(self, backend: Backend, one_by_one: OneByOne) -> None:
        self._backend = backend
        self._alone = Alone(pb.RangeRequest, one_by_one)
        self._waiting = self._waiting_bytes = 0

    def take(self, asks: Sequence[Asked], call: CallContext) -> None:
        """Answer ``asks``, each a RangeRequest, with RangeResponses: at once, or when they can be linearizable."""
        if self._backend.machine.auth.enabled:
            for ask in asks:
                self._alone.take(ask, call)
            return
        now: Reads = []
        later: Reads = []
        for ask in asks:
            try:
                wanted, serializable = read_request(ask.message)
            except RpcError as exc:
                ask.fail(exc.code, exc.text)
                continue
            (now if serializable else later).append((ask, wanted))
        if now:
            self._answer(now, call)
        if later:
            self._ask(later, call)

    def _ask(self, reads: Reads, call: CallContext) -> None:
        """Wait until this member's state is known to be new enough, and answer then."""
        size_bytes = sum([len(ask.message) for ask, _ in reads])

        def go_on(failure: EngineError | None) -> None:
            self._waiting -= len(reads)
            self._waiting_bytes -= size_bytes
            self._go_on(reads, call, failure)

        if self._waiting + len(reads) > MAX_WAITING or self._waiting_bytes + size_bytes > MAX_WAITING_BYTES:
            self._go_on(reads, call, Overloaded(f"{self._waiting} reads of {self._waiting_bytes} bytes are waiting"))
            return
        try:
            self._backend.engine.when_readable(go_on, timeout_s=self._backend.request_timeout_s)
        except EngineError as exc:
            self._go_on(reads, call, exc)
        else:
            self._waiting += len(reads)
            self._waiting_bytes += size_bytes

    def _go_on(self, reads: Reads, call: CallContext, failure: EngineError | None) -> None:
        reads = [(ask, wanted) for ask, wanted in reads if not ask.gone]  # given up meanwhile
        if failure is not None:
            error = rpc_error(failure)
            for ask, _ in reads:
                ask.fail(error.code, error.text)
        elif self._backend.machine.auth.enabled:  # since a moment ago
            for ask, _ in reads:
                self._alone.take(ask, call)
        else:
            try:
                self._answer(reads, call)
            except Exception as exc:
                log.exception("reads failed")
                for ask, _ in reads:  # those of them that have no answer yet
                    ask.fail(Code.UNKNOWN, f"{type(exc).__name__}: {exc}")

    def _answer(self, reads: Reads, call: CallContext) -> None:
        store, answers = self._backend.machine.store, self._backend.answers
        header, newest = answers.header(store.revision), store.index.get
        turn_ends_s = time.monotonic() + TURN_S
        for place, (ask, wanted) in enumerate(reads, 1):
            if type(wanted) is bytes:
                ask.answer(header + answers.newest(newest(wanted)))
                continue
            assert isinstance(wanted, Range)
            try:
                ask.answer(answers.range(read(store, wanted)))
            except StoreError as exc:
                error = rpc_error(exc)
                ask.fail(error.code, error.text)
            if time.monotonic() > turn_ends_s and place < len(reads):
                # Thousands of large ranges fit into one packet. What the rest will see is newer, and as good.
                asyncio.get_running_loop().call_soon(self._go_on, reads[place:], call, None)
                return


def read_request(message: bytes) -> tuple[Wanted, bool]:
    """Return what a RangeRequest wants, and whether this member's state will do. Raises RpcError."""
    if message[:1] == _KEY and len(message) > 2 and 0 < message[1] < 128:
        end = message[1] + 2
        if end == len(message):
            return message[2:], False
        if message[end:] == _SERIALIZABLE:
            return message[2:end], True
    request = decode(pb.RangeRequest, message)
    wanted = to_range(request)
    try:
        check_request(wanted)
    except StoreError as exc:
        raise rpc_error(exc) from exc
    return wanted, request.serializable
