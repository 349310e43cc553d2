"""What the services ask of the member behind them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from raft_store.auth.model import NOBODY, Access, Caller, InvalidToken
from raft_store.auth.requests import AuthCommand
from raft_store.engine import Engine, EngineError, MemberId
from raft_store.machine import TRIM_STEP, AnyCommand, Machine, OnBehalf, encode
from raft_store.mvcc.model import KeyValue, NoSpace, Revision, StoreError
from raft_store.mvcc.requests import Alarm, AlarmKind, Command, SetAlarm
from raft_store.pacing import paced
from raft_store.quota import fits
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.mvccpb import kv_pb2

from .call import NO_CONTEXT, CallContext
from .encoding import Answers
from .errors import Code, RpcError, rpc_error

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 1_572_864  # 1.5 MiB, etcd's default

Result = TypeVar("Result")


class Backend:
    """One member's engine and machine, in the terms of the services."""

    def __init__(
        self,
        *,
        engine: Engine,
        machine: Machine,
        cluster_id: int,
        member: MemberId,
        request_timeout_s: float,
        quota_bytes: int = 0,
    ) -> None:
        """quota_bytes: see ``quota``; 0: none."""
        self.engine = engine
        self.machine = machine
        self.cluster_id = cluster_id
        self.member = member
        self.request_timeout_s = request_timeout_s
        self.quota_bytes = quota_bytes
        self.proposals_pending = 0
        self.proposals_failed = 0
        self.answers = Answers(cluster_id=cluster_id, sender=lambda: (self.member, engine.term))

    def header(self, revision: Revision | None = None) -> pb.ResponseHeader:
        """Return a header for ``revision``; the newest by default."""
        return pb.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.member,
            revision=self.machine.store.revision if revision is None else revision,
            raft_term=self.engine.term,
        )

    @property
    def election_timeout_s(self) -> float:
        """Return for how long a leader may be silent now. Raises RpcError."""
        try:
            return self.engine.status().election_timeout_s
        except EngineError as exc:
            raise rpc_error(exc) from exc

    async def propose(
        self, command: Command | AuthCommand, kind: type[Result], call: CallContext = NO_CONTEXT
    ) -> Result:
        """Return what the command brought about; the caller's permissions are checked when it is applied.

        Raises RpcError.
        """
        if not fits(command, held_bytes=self.machine.store.held_bytes, quota_bytes=self.quota_bytes):
            await self.raise_no_space()
            raise rpc_error(NoSpace())
        proposal: AnyCommand = command
        if self.machine.auth.enabled:
            caller = await self.caller(call)
            if caller is not NOBODY:
                proposal = OnBehalf(caller.user, caller.auth_revision, command)
        data = encode(proposal)
        check_size(data)
        self.proposals_pending += 1
        try:
            result = await self.engine.propose(data, timeout_s=self.request_timeout_s)
        except EngineError as exc:
            self.proposals_failed += 1
            raise rpc_error(exc) from exc
        finally:
            self.proposals_pending -= 1
        if isinstance(result, StoreError):
            raise rpc_error(result)
        assert isinstance(result, kind), f"{type(command).__name__} answered {result!r}"
        return result

    async def raise_no_space(self) -> None:
        """Raise the alarm that this member has no room, for all members, unless it is on. Raises RpcError."""
        alarm = Alarm(self.member, AlarmKind.NOSPACE)
        if (alarm.member, alarm.kind) in self.machine.alarms:
            return
        log.warning("quota exceeded bytes=%d quota=%d", self.machine.store.held_bytes, self.quota_bytes)
        try:
            await self.engine.propose(encode(SetAlarm(alarm, active=True)), timeout_s=self.request_timeout_s)
        except EngineError as exc:
            raise rpc_error(exc) from exc

    async def caller(self, call: CallContext) -> Caller:
        """Return who calls, as the token says or, without one, the certificate. Raises RpcError.

        While authentication is off nobody is asked: clients may keep tokens from before it was disabled.
        """
        if not self.machine.auth.enabled:
            return NOBODY
        if call.token is not None:
            return await self._owner(call.token)
        if not call.common_name:
            return NOBODY
        return Caller(call.common_name, self.machine.auth.revision)

    async def _owner(self, token: str) -> Caller:
        _, _, index = token.rpartition(".")
        if index.isdecimal() and int(index) > self.engine.status().applied_index:
            await self.linearize()  # given out by a member that is ahead of this one
        user = self.machine.tokens.user_of(token)
        if user is None:
            raise rpc_error(InvalidToken())
        return Caller(user, self.machine.auth.revision)

    async def require_admin(self, call: CallContext) -> None:
        """Raise RpcError unless the caller may do everything."""
        caller = await self.caller(call)
        with refusals():
            self.machine.auth.check_admin(caller)

    async def require_read(self, call: CallContext, key: bytes, end: bytes) -> None:
        """Raise RpcError unless the caller may read [key, end)."""
        if not self.machine.auth.enabled:
            return
        caller = await self.caller(call)
        with refusals():
            self.machine.auth.check(caller, Access.READ, key, end)

    async def trim(self) -> None:
        """Give back the memory of everything compacted, beside the member's other work; its heartbeats above all."""
        store = self.machine.store

        def steps() -> Iterator[None]:
            while store.trim(TRIM_STEP):
                yield

        async for _ in paced(steps()):
            pass

    async def linearize(self) -> None:
        """Return once reads of the machine see all that was acknowledged before. Raises RpcError."""
        try:
            await self.engine.read_barrier(timeout_s=self.request_timeout_s)
        except EngineError as exc:
            raise rpc_error(exc) from exc


def check_size(data: bytes) -> None:
    """Raise RpcError if an encoded command is larger than anybody may propose."""
    if len(data) > MAX_REQUEST_BYTES:
        raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: request is too large")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the store refuses into what clients are told of it."""
    try:
        yield
    except StoreError as exc:
        raise rpc_error(exc) from exc


def key_value(kv: KeyValue) -> kv_pb2.KeyValue:
    """Return a version of a key in etcd's form."""
    return kv_pb2.KeyValue(
        key=kv.key,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
        version=kv.version,
        value=kv.value,
        lease=kv.lease,
    )
