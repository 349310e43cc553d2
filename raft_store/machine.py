"""The replicated state machine: committed commands in, answers and watch events out.

A command is a byte string of ``requests.Command`` in MessagePack. Whoever proposed it has checked it against itself
(``txn.check_request``); what the store thinks of it is decided here, the same on every member: answers are values, and
refusals are ``StoreError`` instances handed back as answers, never raised through the engine.
"""

import logging
from collections.abc import Callable, Sequence

import msgspec

from .auth.access import check_command
from .auth.model import NOBODY, AuthFailed, AuthNotEnabled, Caller
from .auth.requests import AuthCommand, AuthDisable, Authenticate, Management, Token, UserChangePassword, UserDelete
from .auth.store import AuthContents, AuthStore
from .auth.tokens import TokenTable
from .counts import Applied
from .engine import Entry, Index, Term
from .mvcc.lease import Lease, LeaseClock, LeaseTable
from .mvcc.model import Corrupt, LeaseId, NoSpace, StoreError
from .mvcc.requests import (
    Alarm,
    AlarmKind,
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
    Renewed,
    SetAlarm,
    Txn,
)
from .mvcc.store import Contents, Store
from .mvcc.txn import Executor, delete_keys
from .mvcc.watch import WatchHub, WatchLimits

log = logging.getLogger(__name__)

SNAPSHOT_FORMAT = 1
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


class _LeaseState(msgspec.Struct, frozen=True, array_like=True):
    lease: LeaseId
    ttl_s: int
    renewals: int


class _State(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot. Which keys a lease holds follows from the keys."""

    format: int
    contents: Contents
    leases: list[_LeaseState]
    alarms: list[Alarm]
    members: list[Publish]
    auth: AuthContents = AuthContents()


_states = msgspec.msgpack.Decoder(_State)


def encode(command: AnyCommand) -> bytes:
    """Return the form in which a command is proposed."""
    return _encoder.encode(command)


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
            **dict.fromkeys(_MANAGEMENT, self._manage),
        }

    def apply(self, entries: Sequence[Entry]) -> Sequence[object]:
        """Apply committed entries in order; an answer is a result or the StoreError that refused it."""
        results = [self._apply(entry) if entry.data else None for entry in entries]
        self.hub.publish()
        self.store.trim(TRIM_STEP)
        return results

    def snapshot(self) -> bytes:
        """Return the whole state; the same bytes on every member that applied the same entries."""
        return _encoder.encode(
            _State(
                format=SNAPSHOT_FORMAT,
                contents=self.store.contents(),
                leases=[_LeaseState(held.lease, held.ttl_s, held.renewals) for held in self.leases.all()],
                alarms=[Alarm(member, kind) for member, kind in sorted(self.alarms)],
                members=[self.members[member] for member in sorted(self.members)],
                auth=self.auth.contents(),
            )
        )

    def restore(self, snapshot: bytes) -> None:
        """Replace the whole state; watches go on from its history."""
        state = _states.decode(snapshot)
        if state.format != SNAPSHOT_FORMAT:
            raise ValueError(f"snapshot of format {state.format}; this program reads {SNAPSHOT_FORMAT}")
        self.store = Store.load(state.contents)
        self.leases = LeaseTable(Lease(held.lease, held.ttl_s, held.renewals) for held in state.leases)
        for kv in self.store.index.range(b"", b"\0"):
            self.leases.attach(kv.key, kv.lease)
        self.lease_clock.restart(self.leases.all())
        self.alarms = {(alarm.member, alarm.kind) for alarm in state.alarms}
        self.members = {member.member: member for member in state.members}
        self.auth = AuthStore(state.auth)
        self.tokens.clear()  # some may have ended in what the snapshot leaves out
        self.hub.replace(self.store)

    def _apply(self, entry: Entry) -> object:
        command, caller = _commands.decode(entry.data), NOBODY
        if isinstance(command, OnBehalf):
            caller, command = Caller(command.user, command.auth_revision), command.command
        try:
            if self.auth.enabled:
                check_command(self.auth, self.leases, caller, command)
            match command:
                case LeaseExpire():
                    return self._lease_expire(command, entry.term)
                case Authenticate():
                    return self._authenticate(command, entry.index)
                case _:
                    return self._handlers[type(command)](command)
        except StoreError as refusal:
            return refusal

    def _put(self, put: Put) -> object:
        self._check_alarms(writes=True)
        executor, commit = self._begin()
        result = executor.put(put)
        commit()
        return result

    def _delete_range(self, deletion: DeleteRange) -> object:
        self._check_alarms(writes=False)
        executor, commit = self._begin()
        result = executor.delete_range(deletion)
        commit()
        return result

    def _txn(self, txn: Txn) -> object:
        self._check_alarms(writes=_puts(txn))
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
