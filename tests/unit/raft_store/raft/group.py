"""A group of replicas on a desk: every tick, delivery, sync, crash and cut happens when the test says so."""

import logging

import msgspec

from raft_store.engine import Change, ChangeKind, Entry, Index, MemberId
from raft_store.raft import messages as m
from raft_store.raft.core import Core, CoreConfig
from raft_store.raft.log import Log
from raft_store.raft.membership import NO_MEMBERS, founded
from raft_store.raft.replica import Replica

ELECTION_TICKS = 10


class Patience:
    """Stands in for chance: member 1 loses patience first, then 2, and so on."""

    def __init__(self, member):
        self._member = member

    def randrange(self, _end):
        return self._member - 1


class Disk:
    def __init__(self):
        self.hard_state = m.HardState()
        self.snapshot = None
        self.entries = []

    def write(self, save):
        self.hard_state = save.hard_state
        if save.snapshot is not None:
            self.snapshot, self.entries = save.snapshot, []
        if save.entries:
            keep = [entry for entry in self.entries if entry.index < save.entries[0].index]
            self.entries = keep + list(save.entries)

    def log(self, founders):
        mark = self.snapshot.mark if self.snapshot else m.SnapshotMark(configuration=founders)
        return Log(mark, [entry for entry in self.entries if entry.index > mark.index])


class Desk:
    """One member and what lies around it."""

    def __init__(self, member):
        self.id = MemberId(member)
        self.disk = Disk()
        self.life = 0
        self.up = False
        self.slow = False  # saves wait for ``sync``
        self.saving = None
        self.values = []
        self.settled = []
        self.lost = []
        self.readers = []
        self.changes = []
        self.replica: Replica

    @property
    def core(self):
        return self.replica.core


class Group:
    def __init__(self, size, *, max_append_bytes=1 << 20, tell=lambda _: None, **options):
        self._options = {"max_append_bytes": max_append_bytes, **options}
        self._tell = tell
        self.under_way = []
        self.cuts = set()
        self.desks = {i: Desk(i) for i in range(1, size + 1)}
        self.founders = founded({MemberId(i): () for i in self.desks})
        for member in self.desks:
            self.start(member)

    def __getitem__(self, member):
        return self.desks[member]

    def start(self, member):
        desk = self.desks[member]
        desk.life, desk.up, desk.saving = desk.life + 1, True, None
        desk.values = list(desk.disk.snapshot.data.split()) if desk.disk.snapshot else []
        core = Core(
            CoreConfig(
                member=desk.id,
                election_ticks=ELECTION_TICKS,
                **self._options,
            ),
            hard_state=desk.disk.hard_state,
            log=desk.disk.log(self.founders if member in self.founders.voters else NO_MEMBERS),
            random=Patience(member),
            logger=self._logger(),
        )
        desk.replica = Replica(core, session=1000 * member + desk.life)

    def join(self, member):
        """Start a new member, which knows nobody."""
        self.desks[member] = Desk(member)
        self.start(member)

    def change(self, member, *changes, owner="change", joint=False):
        """Ask a leader for changes, each (kind, member)."""
        wishes = [Change(ChangeKind[kind], MemberId(who)) for kind, who in changes]
        self.desks[member].replica.propose_change(wishes, owner, joint=joint)
        self.serve(member)

    def crash(self, member):
        self.desks[member].up = False

    def cut(self, *members):
        """Cut ``members`` off from everybody else."""
        inside = set(members)
        self.cuts |= {(a, b) for a in self.desks for b in self.desks if (a in inside) != (b in inside)}

    def heal(self):
        self.cuts.clear()

    def tick(self, member, count=1):
        for _ in range(count):
            self.desks[member].replica.tick()
            self.serve(member)

    def lose_patience(self, member):
        """Let so much time pass for ``member`` that it campaigns."""
        self.tick(member, ELECTION_TICKS + member - 1)

    def forget_leader(self, *members):
        """Let so much time pass for ``members`` that they listen to candidates, but do not campaign themselves."""
        for member in members:
            core = self.desks[member].core
            core._since_leader = max(core._since_leader, ELECTION_TICKS)

    def propose(self, member, *values):
        for value in values:
            self.desks[member].replica.propose(value, value)
        self.serve(member)

    def read(self, member, owner):
        self.desks[member].replica.read(owner)
        self.serve(member)

    def serve(self, member):
        desk = self.desks[member]
        while desk.up and (work := desk.replica.ready()) is not None:
            self._do(desk, work)

    def _do(self, desk, work):
        self.under_way.extend(work.messages)
        if work.save is not None:
            desk.saving = work.save
            if not desk.slow:
                self.sync(desk.id)
        if work.restore is not None:
            desk.values = work.restore.data.split()
        desk.values.extend(entry.data for entry in work.committed if entry.data)
        desk.settled.extend(proposal.owner for _, proposal in work.settled)
        desk.lost.extend(proposal.owner for proposal in work.lost)
        desk.readers.extend(work.readers)
        desk.changes.extend(work.changes)

    def sync(self, member):
        """The disk is done with what it was given."""
        desk = self.desks[member]
        save, desk.saving = desk.saving, None
        desk.disk.write(save)
        desk.replica.saved(save)
        self.serve(member)

    def deliver(self, choose=lambda message: True):
        """Deliver what is under way and what that causes, until all is quiet; ``choose``: what else is lost."""
        while self.under_way:
            message = self.under_way.pop(0)
            desk = self.desks.get(message.to)
            lost = desk is None or not desk.up or (message.sender, message.to) in self.cuts or not choose(message)
            self._tell(render(message) + ("  (lost)" if lost else ""))
            if lost:
                continue
            if isinstance(message, m.InstallSnapshot):
                snapshot = self.desks[message.sender].disk.snapshot
                message = msgspec.structs.replace(message, mark=snapshot.mark, data=snapshot.data)
            desk.replica.step(message)
            self.serve(message.to)

    def elect(self, member):
        """Make ``member`` the leader among whoever it reaches."""
        self.forget_leader(*(i for i, desk in self.desks.items() if desk.up and i != member))
        self.lose_patience(member)
        self.deliver()
        assert self.desks[member].core.role.value == "leader", self.desks[member].core.role

    def heartbeat(self, member):
        """Let one heartbeat of a leader go out, and everything that follows."""
        self.tick(member, 3)
        self.deliver()

    def take_snapshot(self, member, keep=0):
        desk = self.desks[member]
        mark = desk.core.log.mark(desk.replica.applied)
        desk.disk.snapshot = m.Snapshot(mark, b" ".join(desk.values))
        desk.core.compact(mark, keep=keep)

    def log_of(self, member):
        """Return the terms of a member's log, by index from 1."""
        log = self.desks[member].core.log
        return [log.term(Index(i)) for i in range(log.base.index + 1, log.last_index + 1)]

    def _logger(self):
        logger = logging.Logger("group", logging.DEBUG)  # noqa: LOG001 - of this group alone
        handler = logging.Handler()
        handler.emit = lambda record: self._tell(record.getMessage())
        logger.addHandler(handler)
        return logger


def _plain(entry):
    return f"{entry.index}/{entry.term}" + ("!" if entry.reconfigures else "")


def render(message):
    """Return a message as one line: who to whom, what, and its fields."""
    fields = []
    for name in message.__struct_fields__[3:]:
        value = getattr(message, name)
        match value:
            case m.SnapshotMark():
                fields.append(f"{name}={value.index}/{value.term}")
            case bytes():
                pass
            case [Entry(), *_]:
                fields.append(f"{name}=" + ",".join(_plain(entry) for entry in value))
            case [*items]:
                fields.append(f"{name}={len(items)}")
            case _:
                fields.append(f"{name}={value}")
    kind = type(message).__name__
    return " ".join([f"{message.sender}>{message.to}", f"t{message.term}", kind, *fields])
