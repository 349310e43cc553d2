"""The wires between members: they lose, repeat, delay and reorder messages, and may be cut."""

from collections.abc import Callable

from raft_store.engine import MemberId
from raft_store.raft import messages as m
from raft_store.simulation.plan import CALM, Plan
from raft_store.simulation.timeline import Timeline


class Network:
    """Every pair of members has a wire of its own, and a stream of chance for it."""

    def __init__(self, plan: Plan, timeline: Timeline, deliver: Callable[[m.AnyMessage], None]) -> None:
        """deliver: takes each message at the moment of its arrival."""
        self.weather = plan.weather
        self.cut: set[tuple[MemberId, MemberId]] = set()  # (from, to) that cannot be reached
        self._timeline = timeline
        self._deliver = deliver
        self._plan = plan
        self._chances = {(a, b): plan.chance(f"wire {a} to {b}") for a in plan.ids for b in plan.ids}

    def calm_down(self) -> None:
        """End every fault."""
        self.weather = CALM
        self.cut.clear()

    def send(self, message: m.AnyMessage) -> bool:
        """Take a message; return False if it is lost already."""
        weather, random = self.weather, self._chances[message.sender, message.to].random
        if random() < weather.drop:
            return False
        if random() < weather.repeat:
            self._timeline.after(1 + 300 * random(), lambda: self._arrive(message))
        straggles = random() < weather.straggle
        delay_ms = 20 + 380 * random() if straggles else 0.2 + 3.8 * random()
        if isinstance(message, m.InstallSnapshot):
            delay_ms += 100 * random()  # it comes in many chunks
        self._timeline.after(delay_ms, lambda: self._arrive(message))
        return True

    def _arrive(self, message: m.AnyMessage) -> None:
        if (message.sender, message.to) not in self.cut:
            self._deliver(message)
