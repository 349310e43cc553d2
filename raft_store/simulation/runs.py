"""Running a plan, and cutting a plan that breaks something down to what it takes to break it."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from raft_store.disk.directory import DiskError
from raft_store.simulation import requests, store, values
from raft_store.simulation.host import Guest
from raft_store.simulation.invariants import Violation
from raft_store.simulation.plan import CALM, Action, Plan, Weather
from raft_store.simulation.world import World


class Kind(msgspec.Struct, frozen=True):
    """A kind of history: how its plans are drawn, and who lives in its world."""

    draw: Callable[[int], Plan]
    invite: Callable[[World], Guest]


KINDS: Mapping[str, Kind] = {
    "raft": Kind(values.draw, values.Proposers),
    "clock": Kind(values.draw_clock, values.Proposers),
    "storm": Kind(values.draw_storm, values.Proposers),
    "store": Kind(requests.draw, store.StoreGuest),
}


class Breach(msgspec.Struct, frozen=True):
    """A broken promise: which, how, and when."""

    rule: str
    text: str
    at_ms: float


def simulate(kind: Kind, plan: Plan, *, tell: Callable[[str], None] | None = None) -> World:
    """Run a whole history; return the world at its end. Raises Violation, or whatever the code itself noticed."""
    world = World(plan, kind.invite, tell=tell)
    world.run()
    return world


def breach_of(kind: Kind, plan: Plan, *, tell: Callable[[str], None] | None = None) -> Breach | None:
    """Return what a plan breaks: a promise, an invariant that the code asserts, or its own reading of a sound disk."""
    world: World | None = None

    def invite(new: World) -> Guest:
        nonlocal world
        world = new
        return kind.invite(new)

    try:
        simulate(Kind(kind.draw, invite), plan, tell=tell)
    except (AssertionError, DiskError, ValueError, KeyError, IndexError, msgspec.MsgspecError) as exc:
        rule = exc.rule if isinstance(exc, Violation) else _place(exc)
        return Breach(rule, str(exc), world.timeline.now_ms if world is not None else 0.0)
    return None


def shrink(kind: Kind, plan: Plan, breach: Breach, *, tries: int = 400) -> tuple[Plan, Breach]:
    """Return a smaller plan that breaks the same rule, and how it does. The same plan always shrinks to the same.

    tries: so many runs at most; nothing is promised about being the smallest.
    """
    left = tries

    def still(smaller: Plan) -> Breach | None:
        nonlocal left
        if left <= 0:
            return None
        left -= 1
        found = breach_of(kind, smaller)
        return found if found is not None and found.rule == breach.rule else None

    for make in (_ended_at(breach.at_ms), *_CALMER):
        candidate = make(plan)
        if candidate != plan and (found := still(candidate)) is not None:
            plan, breach = candidate, found
    size = max(1, len(plan.actions) // 2)
    while left > 0:
        removed = False
        place = 0
        while place < len(plan.actions) and left > 0:
            rest = (*plan.actions[:place], *plan.actions[place + size :])
            if (found := still(_with(plan, rest))) is not None:
                plan, breach, removed = _with(plan, rest), found, True
            else:
                place += size
        if size == 1 and not removed:
            break
        size = max(1, size // 2)
    candidate = _ended_at(breach.at_ms)(plan)
    if candidate != plan and (found := still(candidate)) is not None:
        plan, breach = candidate, found
    return plan, breach


def _with(plan: Plan, actions: Sequence[Action]) -> Plan:
    return msgspec.structs.replace(plan, actions=tuple(actions))


def _ended_at(at_ms: float) -> Callable[[Plan], Plan]:
    """Nothing after the breach can have caused it."""

    def shorten(plan: Plan) -> Plan:
        return _with(plan, [action for action in plan.actions if action.at_ms <= at_ms])

    return shorten


def _calm(*fields: str) -> Callable[[Plan], Plan]:
    def change(plan: Plan) -> Plan:
        weather: Weather = msgspec.structs.replace(plan.weather, **{name: getattr(CALM, name) for name in fields})
        return msgspec.structs.replace(plan, weather=weather)

    return change


_CALMER = (_calm("drop", "repeat", "straggle"), _calm("drop"), _calm("repeat"), _calm("straggle"))


def _place(exc: BaseException) -> str:
    """Name the place where the code itself noticed: its own assertions are rules too."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_globals.get('__name__')}.{trace.tb_frame.f_code.co_name}" if trace else "somewhere"
    return f"{type(exc).__name__} in {where}"
