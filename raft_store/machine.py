"""The replicated state machine: committed commands in, answers and watch events out.

A command is a byte string of ``requests.Command`` in MessagePack. Whoever proposed it has checked it against itself
(``txn.check_request``); what the store thinks of it is decided here, the same on every member: answers are values, and
refusals are ``StoreError`` instances handed back as answers, never raised through the engine.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence

import msgspec

from .audit import AuditState, pick_corrupt, report
from .auth.access import check_command
from .auth.model import NOBODY, AuthFailed, AuthNotEnabled, Caller
from .auth.requests import AuthCommand, AuthDisable, Authenticate, Management, Token, UserChangePassword, UserDelete
from .auth.store import AuthStore
from .auth.tokens import TokenTable
from .contents import LeaseState, MachineState, Restoration, draw_chunks
from .counts import Applied
from .engine import Entry, Index, MemberId, Term
from .mvcc.lease import LeaseClock, LeaseTable
from .mvcc.model import NO_LEASE, Corrupt, LeaseId, NoSpace, Revision, StoreError
from .mvcc.requests import (
    Alarm,
    AlarmKind,
    Audit,
    Audited,
    Command,
    Compact,
    DeleteRange,
    Done,
    Granted,
    LeaseExpire,
    LeaseGrant,
    LeaseRenew,
    LeaseRevoke,
    Operation,
    Publish,
    Put,
    PutResult,
    Renewed,
    SetAlarm,
    Txn,
    TxnResult,
)
from .mvcc.store import Store, View
from .mvcc.txn import Executor, delete_keys, holds
from .mvcc.watch import WatchHub, WatchLimits

log = logging.getLogger(__name__)

TRIM_STEP = 2_000  # compacted changes given back with each applied batch: compaction never stalls writes


class OnBehalf(msgspec.Struct, frozen=True, array_like=True, tag=48):
    """A command of a user who is known to the members by name."""

    user: str
    auth_revision: int
    command: Command | AuthCommand


AnyCommand = Command | AuthCommand | OnBehalf

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)
_MANAGEMENT = tuple(Management.__args__)


def encode(command: AnyCommand) -> bytes:
    """Return the form in which a command is proposed."""
    return _encoder.encode(command)


def decode(data: bytes) -> AnyCommand:
    """Return the command that ``data`` is the form of; raises MsgspecError."""
    return _commands.decode(data)


class Machine:
    """Everything that is replicated, on one member."""

    def __init__(self, lease_clock: LeaseClock, watch_limits: WatchLimits | None = None) -> None:
        self.store = Store()
        self.leases = LeaseTable()
        self.lease_clock = lease_clock
        self.hub = WatchHub(self.store, watch_limits)
        self.alarms: set[tuple[int, AlarmKind]] = set()
        self.members: dict[int, Publish] = {}
        self.auth = AuthStore()
        self.applied = Applied()
        self.audit = AuditState()
        self.to_audit: View | None = None  # what the latest audit is about, until its checksum is taken
        self.tokens = TokenTable(lease_clock.now)
        self._handlers: dict[type[Command | AuthCommand], Callable[..., object]] = {
            Put: self._put,
            DeleteRange: self._delete_range,
            Txn: self._txn,
            Compact: self._compact,
            LeaseGrant: self._lease_grant,
            LeaseRevoke: self._lease_revoke,
            LeaseRenew: self._lease_renew,
            SetAlarm: self._set_alarm,
            Publish: self._publish,
            Audited: self._end_audit,
            **dict.fromkeys(_MANAGEMENT, self._manage),
        }

    def apply(self, entries: Sequence[Entry], *, wanted: bool = True) -> Sequence[object]:
        """Apply committed entries in order; an answer is a result or the StoreError that refused it."""
        results: list[object] = []
        run: list[Put] = []
        decode = _commands.decode
        open_to_all = not self.auth.enabled and not self.alarms
        for entry in entries:
            command = decode(entry.data) if entry.data else None
            # What nearly all are, by less: every member passes here for every write of anybody.
            if (
                type(command) is Put
                and open_to_all
                and not (command.lease or command.prev_kv or command.ignore_value or command.ignore_lease)
            ):
                run.append(command)
                continue
            if run:
                self._put_all(run, results if wanted else None)
                run = []
            results.append(None if command is None else self._answer(command, entry))
            open_to_all = not self.auth.enabled and not self.alarms
        if run:
            self._put_all(run, results if wanted else None)
        self.hub.publish()
        self.store.trim(TRIM_STEP)
        return results

    def foresee(self, items: Sequence[bytes]) -> Sequence[object]:
        """See ``StateMachine``: for puts that nothing can refuse, and that want nothing but to be made."""
        if self.auth.enabled or self.alarms:
            return ()
        decode = _commands.decode
        for data in items:
            command = decode(data)
            if type(command) is not Put or command != Put(command.key, command.value):
                return ()
        first = self.store.revision + 1
        return [PutResult(Revision(revision), None) for revision in range(first, first + len(items))]

    def snapshot(self) -> Generator[bytes, None, None]:
        """Return the whole state as it is now, in chunks, while the machine goes on; see ``StateMachine``.

        Members that applied the same entries give the same chunks. To be drawn to the end, or closed.
        """
        return draw_chunks(self.store.view(), self._state())

    def _state(self) -> MachineState:
        return MachineState(
            leases=[LeaseState(held.lease, held.ttl_s, held.renewals) for held in self.leases.all()],
            alarms=[Alarm(member, kind) for member, kind in sorted(self.alarms)],
            members=[self.members[member] for member in sorted(self.members)],
            auth=self.auth.contents(),
            audit=self.audit,
        )

    def begin_restore(self) -> Restoration:
        """Begin to replace the whole state; watches go on from its history."""
        return Restoration(self._replace)

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the whole state in one go: for who has nothing else to do meanwhile."""
        restoration = self.begin_restore()
        for chunk in chunks:
            if chunk:
                restoration.feed(chunk)
        restoration.finish()

    def _replace(self, store: Store, leases: LeaseTable, state: MachineState) -> None:
        self.store, self.leases = store, leases
        self.lease_clock.restart(self.leases.all())
        self.alarms = {(alarm.member, alarm.kind) for alarm in state.alarms}
        self.members = {member.member: member for member in state.members}
        self.auth = AuthStore(state.auth)
        self.audit = state.audit
        self.drop_audit()
        self.tokens.clear()  # some may have ended in what the snapshot leaves out
        self.hub.replace(self.store)

    def _put_all(self, run: Sequence[Put], results: list[object] | None) -> None:
        """Apply puts that nothing can refuse, and that want nothing but to be made; None: nobody waits for results."""
        if len(run) == 1:
            result = self._put(run[0])
            if results is not None:
                results.append(result)
            return
        revisions, leased = self.store.put_all(run)
        for replaced in leased:
            self.leases.move(replaced.key, replaced.lease, NO_LEASE)
        self.applied.puts += len(run)
        if results is not None:
            results.extend([PutResult(revision, None) for revision in revisions])

    def _answer(self, command: AnyCommand, entry: Entry) -> object:
        """Apply one command; return its result or what refused it."""
        try:
            if self.auth.enabled:
                return self._apply(command, entry)
            if type(command) is Txn:
                return self._txn(command)
            return self._apply(command, entry)
        except StoreError as refusal:
            return refusal

    def _apply(self, command: AnyCommand, entry: Entry) -> object:
        caller = NOBODY
        if isinstance(command, OnBehalf):
            caller, command = Caller(command.user, command.auth_revision), command.command
        if self.auth.enabled:
            check_command(self.auth, self.leases, caller, command)
        if (handler := self._handlers.get(type(command))) is not None:
            return handler(command)
        match command:
            case LeaseExpire():
                return self._lease_expire(command, entry.term)
            case Authenticate():
                return self._authenticate(command, entry.index)
            case Audit():
                return self._begin_audit(entry.index)
            case _:
                raise AssertionError(f"nobody knows how to {command}")

    def _put(self, put: Put) -> PutResult:
        if self.alarms:
            self._check_alarms(writes=True)
        if put.ignore_value or put.ignore_lease:
            executor, commit = self._begin()
            result = executor.put(put)
            commit()
            return result
        lease, store = put.lease, self.store
        if lease:
            self.leases.check(lease)
        self.applied.puts += 1
        prev = store.put(put.key, put.value, lease)
        if lease or (prev is not None and prev.lease):
            self.leases.move(put.key, prev.lease if prev is not None else NO_LEASE, lease)
        return PutResult(store.revision, prev if put.prev_kv else None)

    def _delete_range(self, deletion: DeleteRange) -> object:
        self._check_alarms(writes=False)
        executor, commit = self._begin()
        result = executor.delete_range(deletion)
        commit()
        return result

    def _txn(self, txn: Txn) -> object:
        if self.alarms:
            self._check_alarms(writes=_puts(txn))
        store, success, failure = self.store, txn.success, txn.failure
        if len(success) <= 1 and len(failure) <= 1:
            # "If nobody has touched it, write it", as objects are written: a put, if there is anything to run.
            succeeded = holds(store, txn.compares)
            branch = success if succeeded else failure
            put = branch[0] if branch else None
            if type(put) is Put and not (put.ignore_value or put.ignore_lease):
                written = self._put(put)
                self.applied.txns += 1
                return TxnResult(written.revision, succeeded, [written])
        executor, commit = self._begin()
        result = executor.txn(txn)
        commit()
        return result

    def _compact(self, compact: Compact) -> object:
        self._check_alarms(writes=False)
        # Watchers that heard of everything so far must hear of this batch's changes too, before they are history.
        self.hub.publish()
        self.store.compact(compact.revision)
        return Done(self.store.revision)

    def _lease_grant(self, grant: LeaseGrant) -> object:
        self._check_alarms(writes=True)
        self.leases.grant(grant.lease, grant.ttl_s)
        self.applied.leases_granted += 1
        self.lease_clock.start(grant.lease, grant.ttl_s)
        return Granted(self.store.revision, grant.lease, grant.ttl_s)

    def _lease_revoke(self, revoke: LeaseRevoke) -> object:
        self._check_alarms(writes=False)
        self._end_lease(revoke.lease)
        self.applied.leases_revoked += 1
        return Done(self.store.revision)

    def _lease_renew(self, renew: LeaseRenew) -> object:
        ttls = [self.leases.renew(lease) for lease in renew.leases]
        for lease, ttl_s in zip(renew.leases, ttls, strict=True):
            if ttl_s:
                self.lease_clock.start(lease, ttl_s)
                self.applied.leases_renewed += 1
        return Renewed(self.store.revision, ttls)

    def _lease_expire(self, expire: LeaseExpire, term: Term) -> object:
        if expire.term != term:  # its proposer was deposed meanwhile; the new leader has given leases more time
            return Done(self.store.revision)
        for expiry in expire.expired:
            held = self.leases.get(expiry.lease)
            if held is not None and held.renewals == expiry.renewals:
                self._end_lease(expiry.lease)
                self.applied.leases_expired += 1
        return Done(self.store.revision)

    def _set_alarm(self, change: SetAlarm) -> object:
        alarm = (change.alarm.member, change.alarm.kind)
        if change.active:
            self.alarms.add(alarm)
        elif alarm in self.alarms:
            self.alarms.remove(alarm)
        else:
            return []
        return [change.alarm]

    def drop_audit(self) -> None:
        """Let go of the moment that the latest audit is about."""
        if self.to_audit is not None:
            self.to_audit.close()
            self.to_audit = None

    def _begin_audit(self, index: Index) -> object:
        self.drop_audit()
        self.audit, self.to_audit = AuditState(index), self.store.view()
        return Done(self.store.revision)

    def _end_audit(self, audited: Audited) -> object:
        self.audit = report(self.audit, Index(audited.index), MemberId(audited.member), audited.checksum)
        for member in pick_corrupt(self.audit, self.members):
            if (member, AlarmKind.CORRUPT) not in self.alarms:
                log.critical("member differs from the others member=%x audit=%d", member, self.audit.index)
                self.alarms.add((member, AlarmKind.CORRUPT))
        return Done(self.store.revision)

    def _publish(self, member: Publish) -> object:
        self.members[member.member] = member
        return Done(self.store.revision)

    def _manage(self, command: Management) -> object:
        self.auth.apply(command)
        if isinstance(command, AuthDisable):
            self.tokens.clear()
        elif isinstance(command, UserDelete | UserChangePassword):
            self.tokens.drop_user(command.name)
        return Done(self.store.revision)

    def _authenticate(self, command: Authenticate, index: Index) -> object:
        if not self.auth.enabled:  # meanwhile
            raise AuthNotEnabled
        if command.user not in self.auth:
            raise AuthFailed(command.user)
        # The index tells another member how far it must have come to know the token.
        token = f"{command.token_prefix}.{index}"
        self.tokens.add(token, command.user)
        return Token(token, self.auth.revision)

    def _end_lease(self, lease: LeaseId) -> None:
        keys = self.leases.revoke(lease)
        self.lease_clock.stop(lease)
        executor, commit = self._begin()
        delete_keys(executor, keys)
        commit()

    def _begin(self) -> tuple[Executor, Callable[[], None]]:
        change = self.store.begin()
        return Executor(self.store, self.leases, change, self.applied), change.commit

    def _check_alarms(self, *, writes: bool) -> None:
        """Raise Corrupt or NoSpace if an alarm forbids the command; without space only deleting goes on."""
        if not self.alarms:
            return
        kinds = {kind for _, kind in self.alarms}
        if AlarmKind.CORRUPT in kinds:
            raise Corrupt
        if writes and AlarmKind.NOSPACE in kinds:
            raise NoSpace


def _puts(operation: Operation) -> bool:
    if isinstance(operation, Txn):
        return any(_puts(inner) for inner in (*operation.success, *operation.failure))
    return isinstance(operation, Put)
