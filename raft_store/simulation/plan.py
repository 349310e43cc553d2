"""What is going to happen in one history, as values: weather, faults, requests.

A plan is drawn from its seed before anything runs. What the world adds by chance while it runs (which message is lost,
how long a sync takes) comes from streams of chance that are named after the plan's seed and the place. So a plan is
the whole history, can be run again, and can be cut down: whoever removes an action still has a plan.

A member is named by its number, counted from 1; ``LEADER`` is whoever leads when the action happens.
"""

from random import Random
from typing import TypeAlias

import msgspec

from raft_store.raft.reads import lease_ms

LEADER = 0
TICK_JITTER = 0.05  # a tick comes so much early or late
CLOCK_DRIFT = 0.17  # of two clocks that run apart by 5 % each, and of ticks that come early
LEASES = 0.3  # of the seeds read by the clock
PATIENT = 0.5  # of the seeds have members that wait longer where messages come late
RESETS = 0.5  # of the seeds have connections that break audibly; in the others whole machines die, and walls swallow
NOTICED = 0.7  # of the ends of processes, where that is so, by each other member: nobody listens any more where it did
DELAYS = 0.5  # of the seeds have leaders that let wait what can wait
STRETCH = 4  # ... up to so many times as long


def chance(seed: int, name: str) -> Random:
    """Return the stream of chance of that name in the histories of that seed."""
    return Random(f"{seed}/{name}")  # noqa: S311 - has to be replayable


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens at a moment."""

    at_ms: float

    def told(self) -> str:
        """Return what happens, in the fewest words."""
        fields = (f"{name}={_told(getattr(self, name))}" for name in self.__struct_fields__ if name != "at_ms")
        return f"{self.at_ms / 1000:8.3f}  {type(self).__name__} {' '.join(fields)}"


def _told(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


class Crash(Action, frozen=True):
    """A member dies: what was not synced is lost or torn. It starts again after ``down_ms``."""

    who: int
    down_ms: float
    noticed: float = NOTICED  # by so many of the others


class FailSync(Action, frozen=True):
    """The member's next sync fails. It has to end at once, and starts again after ``down_ms``."""

    who: int
    down_ms: float


class Rot(Action, frozen=True):
    """A member dies, and a bit that it had synced long before flips. It must refuse to start, for good."""

    who: int


class Pause(Action, frozen=True):
    """A member stands still, its clock does not: SIGSTOP, a long garbage collection, a virtual machine that moves."""

    who: int
    for_ms: float


class SlowDisk(Action, frozen=True):
    """Every write of a member takes ``times`` as long."""

    who: int
    for_ms: float
    times: float


class Partition(Action, frozen=True):
    """``side`` is cut off from the others: in "both" directions, or only what comes "in" or goes "out"."""

    side: tuple[int, ...]  # LEADER may be one of them
    direction: str
    against: tuple[int, ...] = ()  # not from all others, but from these alone


class Heal(Action, frozen=True):
    """Every partition ends."""


class Transfer(Action, frozen=True):
    """The leader is asked to hand over."""

    to: int


class Reconfigure(Action, frozen=True):
    """The leader is asked to change the group: (what, which member) each, by joint consensus if ``joint``."""

    changes: tuple[tuple[str, int], ...]
    joint: bool = False


Fault: TypeAlias = Crash | FailSync | Rot | Pause | SlowDisk | Partition | Heal | Transfer | Reconfigure
FAULTS = (Crash, FailSync, Rot, Pause, SlowDisk, Partition, Heal, Transfer, Reconfigure)


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """What may happen to any message and any clock; chances are per message."""

    drop: float = 0.05
    repeat: float = 0.03
    straggle: float = 0.03  # delayed so long that later ones overtake it
    slow_sync: float = 0.02  # of all syncs
    drift: float = 0.05  # clocks run at most so much faster or slower than true time


CALM = Weather(drop=0, repeat=0, straggle=0)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of this small world, chosen so that the rare things happen often."""

    tick_ms: float = 20.0
    election_ticks: int = 10
    election_stretch: int = 1
    max_append_bytes: int = 200
    segment_bytes: int = 2000
    snapshot_entries: int = 30
    keep_entries: int = 5
    lease_reads: bool = False
    resets: bool = False
    delays: bool = False

    @property
    def lease_ms(self) -> float:
        """Return how long a leader may answer reads by its clock; 0: never."""
        if not self.lease_reads:
            return 0
        return lease_ms(election_ticks=self.election_ticks, tick_ms=self.tick_ms, drift=CLOCK_DRIFT)


def draw_settings(seed: int) -> Settings:
    """Return one seed's settings, which are no business of the plan's own chance."""
    patient = chance(seed, "patience").random() < PATIENT
    return Settings(
        lease_reads=chance(seed, "lease").random() < LEASES,
        election_stretch=STRETCH if patient else 1,
        resets=chance(seed, "resets").random() < RESETS,
        delays=chance(seed, "delays").random() < DELAYS,
    )


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One history."""

    seed: int
    members: int  # that found the group
    spares: int = 0  # that may join it later
    duration_ms: float
    weather: Weather
    actions: tuple[Action, ...]
    settings: Settings = Settings()

    @property
    def founders(self) -> range:
        """Return the numbers of the members that found the group."""
        return range(1, self.members + 1)

    @property
    def ids(self) -> range:
        """Return the numbers of all members that may ever be."""
        return range(1, self.members + self.spares + 1)

    def chance(self, name: str) -> Random:
        """Return the stream of chance of one place in this history."""
        return chance(self.seed, name)


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """How often each kind of fault is drawn, as weights, and how often any (mean time between two)."""

    every_ms: float = 250.0
    crash: float = 0.4
    fail_sync: float = 0.08
    rot: float = 0.04
    pause: float = 0.2
    slow_disk: float = 0.1
    partition: float = 0.35
    heal: float = 0.15
    transfer: float = 0.1
    aimed: float = 0.3  # the fault hits a leader
    regroup: float = 0.5  # of the seeds change their group


def draw_weather(random: Random) -> Weather:
    """Return one seed's weather: mostly foul, each part now and then absent, so that it hides nothing."""
    return Weather(
        drop=random.choice((0, 0.02, 0.05, 0.05, 0.15)),
        repeat=random.choice((0, 0.03, 0.03, 0.1)),
        straggle=random.choice((0, 0.03, 0.03, 0.1)),
    )


def draw_faults(random: Random, mix: Mix, *, members: int, duration_ms: float) -> list[Fault]:
    """Return the faults of one history, in order."""
    weights = {
        kind: getattr(mix, kind) * (random.random() < 0.8)
        for kind in ("crash", "fail_sync", "rot", "pause", "slow_disk", "partition", "heal", "transfer")
    }
    if not any(weights.values()):
        return []
    faults: list[Fault] = []
    at_ms = random.expovariate(1 / mix.every_ms)
    while at_ms < duration_ms:
        kind = random.choices(list(weights), list(weights.values()))[0]
        who = LEADER if random.random() < mix.aimed else random.randint(1, members)
        faults.append(_draw_fault(random, kind, at_ms, who, members))
        at_ms += random.expovariate(1 / mix.every_ms)
    return faults


def draw_trouble(random: Random, mix: Mix, *, members: int, duration_ms: float) -> tuple[list[Action], int]:
    """Return faults and, in some seeds, changes of the group; and how many members may join it.

    Not both rotten disks and changes: whoever changes a group that has lost members for good can end it by that alone.
    """
    spares = 3 if random.random() < mix.regroup else 0
    if spares:
        mix = msgspec.structs.replace(mix, rot=0)
    actions: list[Action] = list(draw_faults(random, mix, members=members, duration_ms=duration_ms))
    if spares:
        actions += draw_changes(random, members=members, spares=spares, duration_ms=duration_ms)
    return actions, spares


def draw_changes(random: Random, *, members: int, spares: int, duration_ms: float) -> list[Fault]:
    """Return changes of the group; many make no sense when their time comes, and are refused."""
    changes: list[Fault] = _draw_split(random, members, duration_ms)
    for _ in range(random.randint(0, 6)):
        new = random.randint(members + 1, members + spares)
        old = random.choice([number for number in range(1, members + spares + 1) if number != new])
        other = random.randint(members + 1, members + spares)
        steps: tuple[tuple[str, int], ...] = random.choice(
            (
                (("ADD", new),),
                (("ADD_LEARNER", new),),
                (("PROMOTE", new),),
                (("DEMOTE", old),),
                (("REMOVE", old),),
                (("REMOVE", LEADER),),
                (("ADD", new), ("REMOVE", old)),
                (("ADD", new), ("REMOVE", LEADER)),
                (("ADD", new), ("ADD", other)),
                (("PROMOTE", new), ("DEMOTE", LEADER)),
            )
        )
        joint = random.random() < 0.2
        changes.append(Reconfigure(at_ms=random.uniform(0, duration_ms), changes=steps, joint=joint))
    return changes


def _draw_split(random: Random, members: int, duration_ms: float) -> list[Fault]:
    """Return the worst moment for a change: its leader is cut off, with the new members, as it takes effect."""
    at_ms, new, other = random.uniform(400, duration_ms / 2), members + 1, members + 2
    change, side = random.choice(
        (
            ((("ADD", new), ("ADD", other)), (LEADER, new, other)),
            ((("ADD", new), ("REMOVE", random.randint(1, members))), (LEADER, new)),
            ((("ADD", new),), (LEADER, new)),
            ((("ADD_LEARNER", new),), (LEADER, new)),
        )
    )
    cut_ms = at_ms + random.uniform(2, 25)
    return [
        Heal(at_ms=at_ms - 300),
        Reconfigure(at_ms=at_ms, changes=change),
        Partition(at_ms=cut_ms, side=side, direction="both"),
        Heal(at_ms=cut_ms + random.uniform(500, 1500)),
    ]


def _draw_fault(random: Random, kind: str, at_ms: float, who: int, members: int) -> Fault:
    match kind:
        case "crash":
            return Crash(at_ms=at_ms, who=who, down_ms=random.uniform(10, 1500))
        case "fail_sync":
            return FailSync(at_ms=at_ms, who=who, down_ms=random.uniform(10, 1500))
        case "rot":
            return Rot(at_ms=at_ms, who=who)
        case "pause":
            return Pause(at_ms=at_ms, who=who, for_ms=random.uniform(50, 1500))
        case "slow_disk":
            return SlowDisk(at_ms=at_ms, who=who, for_ms=random.uniform(200, 2000), times=random.uniform(5, 60))
        case "partition":
            side = random.sample(range(1, members + 1), random.randint(1, members // 2))
            if who not in side:
                side[0] = who
            direction = random.choice(("both", "both", "in", "out"))
            return Partition(at_ms=at_ms, side=tuple(side), direction=direction)
        case "heal":
            return Heal(at_ms=at_ms)
        case _:
            return Transfer(at_ms=at_ms, to=random.randint(1, members))
