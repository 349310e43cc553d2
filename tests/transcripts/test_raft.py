"""Transcripts of a small group: command, ----, what it caused. ``--rewrite`` writes them anew; then read the diff.

Commands: group SIZE [BYTES an append] | campaign M | deliver [without KIND] | propose M VALUE... | read M NAME |
heartbeat M | cut M... | heal | crash M | start M | slow M | sync M | forget-leader M... | transfer M TO | snapshot M |
join M | change M [joint] KIND OTHER... | time M TICKS | status | members

An entry with a ``!`` brings a configuration.
"""

from pathlib import Path

import pytest

from raft_store.engine import ChangeRefused
from tests.unit.raft_store.raft.group import Group

DATA = Path(__file__).parent.parent / "data" / "raft"
TRANSCRIPTS = sorted(DATA.glob("*.txt"))


class Player:
    """Executes commands; ``lines`` collects what they cause."""

    def __init__(self):
        self.lines = []
        self.group = None

    def play(self, command):
        verb, *words = command.split()
        self.lines.clear()
        before = self._outcomes()
        getattr(self, "do_" + verb.replace("-", "_"))(*words)
        for member, outcome in self._outcomes().items():
            for name, values in outcome.items():
                for value in values[len(before.get(member, {}).get(name, ())) :]:
                    self.lines.append(f"member {member} {name} {_plain(value)}")
        return list(self.lines) or ["ok"]

    def _outcomes(self):
        if self.group is None:
            return {}
        return {
            desk.id: {
                "settled": list(desk.settled),
                "lost": list(desk.lost),
                "may read": list(desk.readers),
                "changed": [str(made) for _, made in desk.changes],
            }
            for desk in self.group.desks.values()
        }

    def do_group(self, size, append_bytes="1000000"):
        self.group = Group(int(size), max_append_bytes=int(append_bytes), tell=self.lines.append)

    def do_campaign(self, member):
        self.group.lose_patience(int(member))

    def do_deliver(self, _without="", kind=""):
        self.group.deliver(lambda message: type(message).__name__ != kind)

    def do_propose(self, member, *values):
        self.group.propose(int(member), *(value.encode() for value in values))

    def do_read(self, member, name):
        self.group.read(int(member), name)

    def do_heartbeat(self, member):
        self.group.heartbeat(int(member))

    def do_cut(self, *members):
        self.group.cut(*map(int, members))

    def do_heal(self):
        self.group.heal()

    def do_crash(self, member):
        self.group.crash(int(member))

    def do_start(self, member):
        self.group.start(int(member))

    def do_slow(self, member):
        self.group[int(member)].slow = True

    def do_sync(self, member):
        self.group.sync(int(member))

    def do_forget_leader(self, *members):
        self.group.forget_leader(*map(int, members))

    def do_transfer(self, member, to):
        assert self.group[int(member)].core.transfer(int(to))
        self.group.serve(int(member))

    def do_snapshot(self, member):
        self.group.take_snapshot(int(member))

    def do_join(self, member):
        self.group.join(int(member))

    def do_time(self, member, ticks):
        self.group.tick(int(member), int(ticks))

    def do_change(self, member, *words):
        joint = words[0] == "joint"
        words = words[joint:]
        try:
            self.group.change(int(member), *zip(words[::2], map(int, words[1::2]), strict=True), joint=joint)
        except ChangeRefused as exc:
            self.lines.append(f"refused: {exc}")

    def do_members(self):
        for desk in self.group.desks.values():
            if desk.up:
                fields = [
                    f"{name}={_plain_set(getattr(desk.core.configuration, name))}"
                    for name in ("voters", "outgoing", "learners", "learners_next", "removed")
                    if getattr(desk.core.configuration, name)
                ]
                self.lines.append(f"{desk.id} " + (" ".join(fields) or "knows nobody"))

    def do_status(self):
        for desk in self.group.desks.values():
            if not desk.up:
                self.lines.append(f"{desk.id} down")
                continue
            core, log = desk.core, desk.core.log
            self.lines.append(
                f"{desk.id} {core.role.value} term={core.term} leader={core.leader} log={log.base.index}.."
                f"{log.last_index} saved={log.saved} committed={log.committed} applied={desk.replica.applied} "
                f"values={_plain(b' '.join(desk.values))}"
            )


def _plain_set(members):
    return ",".join(map(str, sorted(members)))


def _plain(value):
    if isinstance(value, tuple):
        return f"{value[0]} at {value[1]}"
    return value.decode() if isinstance(value, bytes) else value


def blocks(text):
    """Yield (comment lines and command, expected output) of each block."""
    for block in text.strip().split("\n\n"):
        head, _, output = block.partition("\n----")
        yield head, output.strip()


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path, request):
    player = Player()
    written = []
    for head, _ in blocks(path.read_text()):
        output = [line for command in head.splitlines() if command[0] != "#" for line in player.play(command)]
        written.append(head.strip() + "\n----\n" + "\n".join(output) + "\n")
    happened = "\n".join(written)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
    assert happened == path.read_text()


def test_there_are_transcripts():
    assert len(TRANSCRIPTS) >= 5
