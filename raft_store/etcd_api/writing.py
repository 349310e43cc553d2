"""Writes by the lot: no coroutine and no future each, only whom to answer once the log has them.

What arrives together is proposed together, shares an entry of the log, and is answered together. A plain put, one key
and its value, is told by its bytes.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from raft_store.engine import EngineError
from raft_store.machine import encode
from raft_store.mvcc.model import StoreError
from raft_store.mvcc.requests import DeleteRange, Put, Txn
from raft_store.mvcc.txn import check_request, is_read_only
from raft_store.quota import fits
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .alone import Alone, decode
from .backend import Backend, check_size
from .call import Asked, CallContext
from .errors import Code, RpcError, rpc_error
from .kv import to_delete_range, to_put, to_txn

log = logging.getLogger(__name__)

Read = Callable[[bytes], Put | DeleteRange | Txn | None]
Encode = Callable[[Sequence[Any]], Sequence[bytes]]
OneByOne = Callable[[Any, CallContext], Awaitable[bytes]]

_Command = TypeVar("_Command", Put, DeleteRange, Txn)

MAX_TOGETHER = 64  # writes of one client that share a proposal ...
MAX_TOGETHER_BYTES = 64 << 10  # ... and their bytes; a larger one is proposed alone

_REFUSALS = (StoreError, EngineError)

_KEY, _VALUE = 0x0A, 0x12  # tags of a put's first two fields


class Writing:
    """Answers lots of one kind of write.

    read: makes a command of a request's bytes, None if it cannot go this way; raises RpcError.
    encode: makes answers of what commands came to. one_by_one: answers a request, whatever it takes to do so.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        request: type[Message],
        read: Read,
        encode: Encode,
        one_by_one: OneByOne,
    ) -> None:
        self._backend = backend
        self._read = read
        self._encode = encode
        self._alone = Alone(request, one_by_one)
        # What was submitted last, and the lots that share it, which others may join; until it is answered.
        self._newest: tuple[object, _Together] | None = None

    def take(self, asks: Sequence[Asked], call: CallContext) -> None:
        """Propose what ``asks`` want, and answer each when it is certain what it comes to."""
        if self._backend.machine.auth.enabled:
            for ask in asks:
                self._alone.take(ask, call)
            return
        read, quota_bytes = self._read, self._backend.quota_bytes
        together: list[Asked] = []
        items: list[bytes] = []
        size_bytes = 0
        for ask in asks:
            try:
                command = read(ask.message)
                if command is None or (quota_bytes and not self._fits(command)):
                    self._alone.take(ask, call)
                    continue
                data = encode(command)
                length = len(data)
                if length > MAX_TOGETHER_BYTES:
                    check_size(data)
            except RpcError as exc:
                ask.fail(exc.code, exc.text)
                continue
            if items and (size_bytes + length > MAX_TOGETHER_BYTES or len(items) == MAX_TOGETHER):
                self._submit(together, items)
                together, items, size_bytes = [], [], 0
            together.append(ask)
            items.append(data)
            size_bytes += length
        if items:
            self._submit(together, items)

    def _fits(self, command: Put | DeleteRange | Txn) -> bool:
        held_bytes, quota_bytes = self._backend.machine.store.held_bytes, self._backend.quota_bytes
        return fits(command, held_bytes=held_bytes, quota_bytes=quota_bytes)

    def _submit(self, asks: Sequence[Asked], items: Sequence[bytes]) -> None:
        backend, engine, newest = self._backend, self._backend.engine, self._newest
        pending, timeout_s = backend.proposals_pending, backend.request_timeout_s
        backend.proposals_pending = pending + len(asks)
        try:
            if newest is not None and engine.join(newest[0], items, timeout_s=timeout_s):
                newest[1].lots.append(asks)
                return
            together = _Together(self, asks)
            submitted = engine.submit(items, together.done, timeout_s=timeout_s, foresee=together.foresee)
        except EngineError as exc:
            self.answer(_Together(self, asks), (), exc)
            return
        # One that came alone has left; and some engines answer at once.
        if backend.proposals_pending > pending and (pending or len(asks) > 1):
            self._newest = submitted, together

    def answer(self, together: "_Together", results: Sequence[object], exc: EngineError | None) -> None:
        """Tell all who shared a proposal what came of theirs."""
        backend, newest, lots = self._backend, self._newest, together.lots
        if newest is not None and newest[1] is together:
            self._newest = None
        count = len(lots[0]) if len(lots) == 1 else sum(map(len, lots))
        backend.proposals_pending -= count
        foreseen = results is together.foreseen  # and applied after we return: clients can have their answers meanwhile
        if exc is not None:
            backend.proposals_failed += count
            answers: Sequence[bytes] = ()
        else:
            answers = together.answers if foreseen else self.answers(results)
        if len(lots) == 1:
            self._tell(lots[0], results, answers, exc, at_once=foreseen or not backend.proposals_pending)
            return
        end = 0
        for lot in lots:
            begin, end = end, end + len(lot)
            try:
                self._tell(lot, results[begin:end], answers[begin:end], exc, at_once=foreseen)
            except Exception:
                log.exception("who proposed cannot take the answer")  # the others can

    def _tell(
        self,
        lot: Sequence[Asked],
        results: Sequence[object],
        answers: Sequence[bytes],
        exc: EngineError | None,
        *,
        at_once: bool,
    ) -> None:
        """Tell one client what came of its lot: by ``answers``, if all results could be made into some."""
        if answers:
            lot[0].answer_all(lot, answers, at_once=at_once)
        elif exc is None:
            for ask, result in zip(lot, results, strict=True):
                self._answer_one(ask, result)
        else:
            told = rpc_error(exc)
            for ask in lot:
                ask.fail(told.code, told.text)

    def answers(self, results: Sequence[object]) -> Sequence[bytes]:
        """Return an answer for each result, all made together; nothing if some have to be looked at by themselves."""
        if len(results) == 1:
            refused = isinstance(results[0], _REFUSALS)
        else:
            refused = bool([kind for kind in set(map(type, results)) if issubclass(kind, _REFUSALS)])
        if refused:
            return ()
        try:
            return self._encode(results)
        except Exception:  # noqa: BLE001 - our own mistake, told to whom it concerns
            return ()

    def _answer_one(self, ask: Asked, result: object) -> None:
        """Answer one of a lot that did not all come to the same end."""
        if isinstance(result, StoreError | EngineError):
            told = rpc_error(result)
            ask.fail(told.code, told.text)
            return
        try:
            (answer,) = self._encode((result,))
        except Exception as mistake:  # our own; the others of the lot have their answers all the same
            log.exception("an answer cannot be made")
            ask.fail(Code.UNKNOWN, f"{type(mistake).__name__}: {mistake}")
        else:
            ask.answer(answer)


class _Together:
    """Lots that share a proposal; ``answers``: what was made ready for all of them, if ``foreseen`` comes true."""

    __slots__ = ("_writing", "answers", "foreseen", "lots")

    def __init__(self, writing: Writing, lot: Sequence[Asked]) -> None:
        self._writing = writing
        self.lots = [lot]
        self.foreseen: Sequence[object] | None = None
        self.answers: Sequence[bytes] = ()

    def foresee(self, results: Sequence[object]) -> None:
        """See ``Engine.submit``."""
        self.answers = self._writing.answers(results)
        self.foreseen = results

    def done(self, results: Sequence[object], exc: EngineError | None) -> None:
        """See ``Engine.submit``."""
        self._writing.answer(self, results, exc)


def read_put(message: bytes) -> Put:
    """Return what a PutRequest wants. Raises RpcError."""
    plain = _plain_put(message)
    return plain if plain is not None else _checked(to_put(decode(pb.PutRequest, message)))


def _plain_put(message: bytes) -> Put | None:
    """Return the put, if it is one of a key of at most 127 bytes, and a value of less than 2 MiB, and nothing else."""
    size = len(message)
    if size < 3 or message[0] != _KEY or not 0 < message[1] < 128:
        return None
    key_end = message[1] + 2
    if key_end + 4 > size or message[key_end] != _VALUE:
        return None
    length, second = message[key_end + 1], message[key_end + 2]
    if second < 128 <= length and key_end + 3 + length - 128 + (second << 7) == size:
        return Put(message[2:key_end], message[key_end + 3 :])  # of a usual size
    length, start, shift = 0, key_end + 1, 0
    while True:  # a varint; its bytes are there, or the length is too large anyway
        byte = message[start]
        length |= (byte & 127) << shift
        start, shift = start + 1, shift + 7
        if byte < 128:
            break
        if shift > 14:
            return None
    return Put(message[2:key_end], message[start:]) if start + length == size else None


def read_delete_range(message: bytes) -> DeleteRange:
    """Return what a DeleteRangeRequest wants. Raises RpcError."""
    return _checked(to_delete_range(decode(pb.DeleteRangeRequest, message)))


def read_txn(message: bytes) -> Txn | None:
    """Return what a TxnRequest wants; None if it only reads, which takes no place in the log. Raises RpcError."""
    wanted = _checked(to_txn(decode(pb.TxnRequest, message)))
    return None if is_read_only(wanted) else wanted


def _checked(command: _Command) -> _Command:
    try:
        check_request(command)
    except StoreError as exc:
        raise rpc_error(exc) from exc
    return command
