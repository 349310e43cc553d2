"""One plan, one history: members, network, disks, clocks, the guests who use them, and the faults that befall them.

Theory of operation
-------------------
Time is a number; whatever happens later lies in one queue. A step takes the earliest event, lets one member do its work
(the very code of the real driver's replica and storage) and asks the judge. All chance comes from streams named after
the seed, so that a plan replays its history step by step. What the group replicates is a guest's business: ``values``
has a list and is fast, ``store`` has the real key-value store with clients, leases and watches.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from raft_store.engine import Change, ChangeKind, ChangeRefused, MemberId
from raft_store.raft import messages as m
from raft_store.raft.core import Role
from raft_store.raft.membership import founded
from raft_store.simulation import plan as p
from raft_store.simulation.host import Guest, Host
from raft_store.simulation.invariants import Judge, Violation
from raft_store.simulation.network import Network
from raft_store.simulation.timeline import Timeline

REJECTS = 0.3  # of the walls between members: who is cut off finds its connections reset, and every new one refused
GREET_MS = 500.0
SETTLE_MS = 20_000.0  # long after the last fault everybody must be alike


class World:
    """A group under faults; ``tell`` receives a readable line for whatever happens."""

    def __init__(
        self,
        plan: p.Plan,
        invite: Callable[["World"], Guest],
        *,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.timeline = Timeline()
        self._tell = tell
        self.logger = _transcript_logger(self.tell) if tell else _SILENT
        self.network = Network(plan, self.timeline, self._deliver)
        self.guest = invite(self)
        self.founders = founded({MemberId(number): () for number in plan.founders})
        self.judge = Judge(self.founders, self.guest.committed, lambda: self.timeline.now_ms)
        self.calm = False
        self.crashes = 0
        self._crash_chance = plan.chance("crashes")
        self._greeting_chance = plan.chance("greetings")
        self._end_chance = plan.chance("ends")
        self.hosts: Mapping[MemberId, Host] = {MemberId(i): Host(MemberId(i), self) for i in plan.ids}
        for number in plan.founders:
            self._join(self.hosts[MemberId(number)])

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything happen that the plan says, then make peace and look what is left. Raises Violation."""
        for action in self.plan.actions:
            self.timeline.after(action.at_ms, lambda action=action: self._act(action))  # type: ignore[misc]
        self.timeline.run_until(self.plan.duration_ms)
        self._make_peace()
        deadline = self.timeline.now_ms + SETTLE_MS
        self._run_while(lambda: not self.alike(), deadline, "members differ")
        self.guest.say_goodbye()
        self._run_while(lambda: not self.guest.at_ease(), deadline, "clients wait for answers")
        self._run_while(lambda: not self.alike(), deadline, "members differ after the last requests")
        self.guest.check_end()

    def tell(self, line: str) -> None:
        """Write one line of the transcript."""
        if self._tell is not None:
            self._tell(f"{self.timeline.now_ms / 1000:8.3f}  {line}")

    def up(self) -> list[Host]:
        """Return the members that run."""
        return [host for host in self.hosts.values() if host.up]

    def reachable(self, number: int) -> Host | None:
        """Return the running member with that number, or the next one; None if nobody runs.

        In peace a client no longer asks members that the group has parted with.
        """
        up = self.members() if self.calm else self.up()
        return min(up, key=lambda host: (host.id - number) % (len(self.hosts) + 1)) if up else None

    def alike(self) -> bool:
        """Whether all members that can run follow one leader and applied all that was committed; none else runs."""
        end = len(self.judge.committed)
        configuration = self.judge.configuration
        if configuration.joint or any(self._overstays(host) for host in self.hosts.values()):
            return False
        hosts = [self.hosts[member] for member in configuration.members]
        if not all(host.up or host.refused for host in hosts):
            return False
        running = [host for host in hosts if host.up]
        leaders = {host.replica.core.leader for host in running}
        return m.NOBODY not in leaders and len(leaders) == 1 and all(host.applied == end for host in running)

    def members(self) -> list[Host]:
        """Return the running members of the group as it is agreed on."""
        return [host for host in self.up() if host.id in self.judge.configuration.members]

    def _overstays(self, host: Host) -> bool:
        """Whether a member runs that was removed, although it knows somebody who could tell it so."""
        now = self.judge.configuration
        if not host.up or host.id not in now.removed:
            return False
        return not host.replica.core.configuration.members.isdisjoint(now.members)

    def failed(self, host: Host) -> None:
        """A member's disk failed: it ends, and is started again."""
        self._crash(host, down_ms=self._crash_chance.uniform(10, 1500))

    def left(self, host: Host) -> None:
        """A member was removed: it ends itself, once what it has sent has had time to arrive."""
        if not host.removed:
            self.tell(f"member {host.id} was removed, and is going to end")
            host.removed = True
            host.soon(self._crash_chance.uniform(0, 500), lambda: host.crash(self._crash_chance))

    def _join(self, host: Host) -> None:
        host.joined = True
        host.start()
        self.timeline.after(GREET_MS, lambda: self._dial(host))

    def _dial(self, host: Host) -> None:
        """A member keeps dialling its peers, also if it has nothing to say; that is how it hears of its removal."""
        for peer in host.replica.core.peers if host.up else ():
            other = self.hosts[peer]
            cut = not self.network.cut.isdisjoint({(host.id, peer), (peer, host.id)})
            if other.up and not cut and self._has_removed(other, host):
                self.left(host)
        self.timeline.after(GREET_MS, lambda: self._dial(host))

    def _make_peace(self) -> None:
        self.calm = True
        self.network.calm_down()
        self.tell("all faults end")
        for host in self.hosts.values():
            host.wake()
            host.slow_times = 1.0
            host.next_sync_fails = False
            self._start_again(host)

    def _run_while(self, going_on: Callable[[], bool], deadline_ms: float, what: str) -> None:
        while going_on():
            if self.timeline.now_ms >= deadline_ms:
                raise Violation("the group heals", f"not long after the last fault: {what}")
            self.timeline.run_until(self.timeline.now_ms + 50)

    def _deliver(self, message: m.AnyMessage) -> None:
        sender, receiver = self.hosts[message.sender], self.hosts[message.to]
        if not receiver.up:
            return
        if self._has_removed(receiver, sender) and self._greeting_chance.random() < 0.3:
            # A stream that begins is refused, and whoever began it is told why (``peers``).
            life = sender.life
            self.timeline.after(2, lambda: self.left(sender) if sender.up and sender.life == life else None)
        else:
            receiver.receive(message)

    def _has_removed(self, host: Host, other: Host) -> bool:
        """What ``regrouping`` says to whoever dials."""
        return other.id in host.replica.core.gone_for_good

    # -- faults ------------------------------------------------------------------------------------------------------

    def _act(self, action: p.Action) -> None:
        if not isinstance(action, p.FAULTS):
            self.guest.act(action)
            return
        match action:
            case p.Partition(side=side, direction=direction, against=against):
                self._cut(side, direction, against)
            case p.Heal():
                self.network.cut.clear()
                self.tell("partition heals")
            case p.Transfer(to=to):
                self._transfer(to)
            case p.Reconfigure(changes=changes, joint=joint):
                self._reconfigure(changes, joint=joint)
            case _:
                if (victim := self._victim(action.who)) is not None:
                    self._strike(action, victim)

    def _strike(self, fault: p.Crash | p.FailSync | p.Rot | p.Pause | p.SlowDisk, victim: Host) -> None:
        match fault:
            case p.Crash(down_ms=down_ms, noticed=noticed):
                self._crash(victim, down_ms=down_ms, noticed=noticed)
            case p.FailSync():
                self.tell(f"member {victim.id}: its next sync is going to fail")
                victim.next_sync_fails = True
            case p.Rot():
                self._rot(victim)
            case p.Pause(for_ms=for_ms):
                self.tell(f"member {victim.id} stands still for {for_ms:.0f} ms")
                victim.pause(for_ms)
            case p.SlowDisk(for_ms=for_ms, times=times):
                self.tell(f"member {victim.id} has a disk {times:.0f} times as slow for {for_ms:.0f} ms")
                victim.slow_until_ms, victim.slow_times = self.timeline.now_ms + for_ms, times

    def _victim(self, who: int) -> Host | None:
        if who == p.LEADER:
            leader = self._leader()
            return leader if leader is not None else self.reachable(1)
        host = self.hosts[MemberId(who)]
        return host if host.up else None

    def _leader(self) -> Host | None:
        """Return who leads in the highest term."""
        leaders = [host for host in self.up() if host.replica.core.role is Role.LEADER]
        return max(leaders, key=lambda host: host.replica.core.term, default=None)

    def _crash(self, host: Host, *, down_ms: float, noticed: float = p.NOTICED) -> None:
        self.tell(f"member {host.id} crashes")
        self.crashes += 1
        host.crash(self._crash_chance)
        for other in self.up() if self.plan.settings.resets else ():
            if self._end_chance.random() < noticed:
                self._tell_end(other, host.id)
        self.timeline.after(down_ms, lambda: self._start_again(host))

    def _tell_end(self, host: Host, peer: MemberId) -> None:
        """A member's connection to a peer is reset, and cannot be made anew."""
        host.soon(self._end_chance.uniform(0.2, 30), lambda: host.hear_of_end(peer))

    def _start_again(self, host: Host) -> None:
        if host.joined and not (host.up or host.refused or host.removed):
            host.start()

    def _rot(self, host: Host) -> None:
        """The group can spare a minority for good."""
        lost = sum(each.directory.rotten is not None for each in self.hosts.values())
        if lost >= (len(self.hosts) - 1) // 2:
            return
        self._crash(host, down_ms=100)
        if host.directory.rot(self._crash_chance):
            self.tell(f"member {host.id}: a bit flips in {host.directory.rotten}")

    def _cut(self, side: tuple[int, ...], direction: str, against: tuple[int, ...]) -> None:
        leader = self._leader()
        numbers = {leader.id if number == p.LEADER and leader else MemberId(number) for number in side} - {p.LEADER}
        others = {MemberId(number) for number in against or self.hosts} - numbers
        out, in_ = ({(a, b) for a in these for b in those} for these, those in ((numbers, others), (others, numbers)))
        self.network.cut = {"out": out, "in": in_, "both": out | in_}[direction]
        rejects = self.plan.settings.resets and self._end_chance.random() < REJECTS
        for host, peer in sorted(self.network.cut) if rejects else ():
            if self.hosts[host].up:
                self._tell_end(self.hosts[host], peer)
        how = "rejected by" if rejects else "cut off from"
        self.tell(f"partition: {sorted(numbers)} {how} {sorted(others)}, direction={direction}")

    def _reconfigure(self, changes: tuple[tuple[str, int], ...], *, joint: bool) -> None:
        leader = self._leader()
        if leader is None:
            return
        wishes = [Change(ChangeKind[what], MemberId(who) if who != p.LEADER else leader.id) for what, who in changes]

        def ask() -> None:
            said = _change(leader, wishes, joint=joint)
            self.tell(f"member {leader.id} is asked to change the group: {changes} joint={joint}: {said}")
            if said == "begun":
                for wish in wishes:
                    host = self.hosts[wish.member]
                    if wish.kind in (ChangeKind.ADD, ChangeKind.ADD_LEARNER) and not host.joined:
                        # Whoever adds a member starts it soon after, whatever becomes of the change.
                        delay_ms = self._crash_chance.choice((1, self._crash_chance.uniform(0, 500)))
                        self.timeline.after(delay_ms, lambda host=host: self._join(host))  # type: ignore[misc]
            leader.serve()

        leader.soon(0, ask)

    def _transfer(self, to: int) -> None:
        leader = self._leader()
        if leader is not None and leader.id != to:
            leader.soon(0, lambda: _hand_over(leader, MemberId(to)))


def _change(leader: Host, changes: Sequence[Change], *, joint: bool) -> str:
    try:
        leader.replica.propose_change(
            changes, [f"{change.kind.name} {change.member}" for change in changes], joint=joint
        )
    except ChangeRefused as exc:
        return f"refused: {exc}"
    return "begun"


def _hand_over(leader: Host, to: MemberId) -> None:
    leader.replica.core.transfer(to)
    leader.serve()


def _transcript_logger(write: Callable[[str], None]) -> logging.Logger:
    """Return a logger of this world's own: it must not mix with another's, nor with the program's."""
    logger = logging.Logger("simulation", logging.DEBUG)  # noqa: LOG001
    handler = logging.Handler()
    handler.emit = lambda record: write(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    return logger


_SILENT = logging.Logger("simulation", logging.CRITICAL + 1)  # noqa: LOG001 - as above
