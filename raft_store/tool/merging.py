"""What several members tell of themselves, each by its own clock, as one sequence of scenes.

A message has two ends, and each end may be missing: whoever sent it was killed before anybody could ask, or whoever
should have received it never did. So scenes wait a moment (``HOLD_S``) before they are told, until both ends had time
to be heard of. What was sent and not received is drawn as lost; of what was received, but nobody told of sending, the
arrival is drawn.
"""

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from raft_store.engine import TraceEvent, TracePage
from raft_store.tool.sequence import Aside, Became, Said, Scene

HOLD_S = 0.3  # as long as a message may be under way
CLOCKS_S = 0.03  # so far two members' times may be apart after they were put on one clock
MOST_LINES = 40  # messages drawn for each second; the others are counted

_Key = tuple[int, int, str]  # sender, receiver, what was said


class Merger:
    """Takes pages and silences, gives scenes; times are one clock's, in seconds."""

    def __init__(self, members: Sequence[str], names: Sequence[str]) -> None:
        """members: ids in hexadecimal, in the order of their lifelines; names: theirs."""
        self._places = {member: place for place, member in enumerate(members)}
        self._names: Mapping[str, str] = dict(zip(members, names, strict=True))
        self._queue: list[tuple[float, int, int, TraceEvent | Scene]] = []
        self._order = itertools.count()
        self._received: dict[_Key, list[tuple[float, int]]] = {}  # arrivals not drawn yet: (when, which)
        self._tells_since: list[float] = [math.inf] * len(members)  # from then on it has told of every message
        self._silent: list[bool | None] = [None] * len(members)
        self._applied: list[int | None] = [None] * len(members)
        self._beats = 0  # told since something else happened
        self._second, self._lines, self._untold = 0, 0, 0

    def add(self, place: int, page: TracePage, *, offset_s: float, at_s: float, first: bool) -> None:
        """A member has told us what happened; offset_s: from its clock to ours; first: it begins to with this."""
        self.answers(place, at_s=at_s)
        if first or page.missed:
            self._tells_since[place] = at_s
        if page.missed:
            self._put(at_s, place, Aside(f"{page.missed} events of {self._name(place)} came too fast to be seen"))
        for event in page.events:
            when_s = event.at_s + offset_s
            if event.kind != "received":
                self._put(when_s, place, event)
            elif (peer := self._places.get(event.peer)) is not None:
                # An arrival is looked at after its departure, also if clocks differ a little.
                number = self._put(when_s + 2 * CLOCKS_S, place, event)
                self._received.setdefault((peer, place, event.text), []).append((when_s, number))
        before, self._applied[place] = self._applied[place], page.applied
        if before is not None and page.applied > before:
            self._put(at_s, place, Became(at_s, place, _applied(before + 1, page.applied), "quiet"))

    def answers(self, place: int, *, at_s: float) -> None:
        """A member answers."""
        if self._silent[place]:
            self._put(at_s, place, Became(at_s, place, "answers again", "good"))
        self._silent[place] = False

    def silent(self, place: int, *, at_s: float) -> None:
        """A member does not answer."""
        if not self._silent[place]:
            self._put(at_s, place, Became(at_s, place, "does not answer", "bad", up=False))
        self._silent[place], self._applied[place], self._tells_since[place] = True, None, math.inf

    def tell(self, scene: Scene, *, place: int, at_s: float) -> None:
        """Somebody else knows what happened at a member that tells no messages."""
        self._put(at_s, place, scene)

    def drain(self, until_s: float) -> Iterator[Scene]:
        """Yield what happened up to ``until_s``, in order: ``HOLD_S`` before the last time that everybody was asked."""
        while self._queue and self._queue[0][0] <= until_s:
            at_s, number, place, what = heapq.heappop(self._queue)
            if not isinstance(what, TraceEvent):
                yield from self._told(what, at_s)
            elif what.kind == "became":
                self._beats = 0
                text = what.text.replace(TraceEvent.LEADER, self._names.get(what.peer, what.peer))
                yield from self._told(Became(at_s, place, text, "new" if text.startswith("LEADS") else ""), at_s)
            elif (peer := self._places.get(what.peer)) is not None and (
                said := self._said(at_s, number, place, peer, what)
            ):
                yield from self._told(said, at_s)

    def _said(self, at_s: float, number: int, place: int, peer: int, event: TraceEvent) -> Said | None:
        tone = "quiet" if event.beat else ""
        if event.kind == "received":
            arrivals = self._received[peer, place, event.text]
            if not any(arrival == number for _, arrival in arrivals):
                return None  # drawn when it left
            self._received[peer, place, event.text] = [one for one in arrivals if one[1] != number]
            return Said(at_s - 2 * CLOCKS_S, peer, place, event.text, tone=tone)
        arrivals = self._received.get((place, peer, event.text), [])
        arrived = next((one for one in arrivals if -CLOCKS_S <= one[0] - at_s <= HOLD_S), None)
        if arrived is not None:
            arrivals.remove(arrived)
        lost = arrived is None and (bool(self._silent[peer]) or at_s > self._tells_since[peer] + CLOCKS_S)
        return Said(at_s, place, peer, event.text, lost=lost, tone=tone)

    def _told(self, scene: Scene, at_s: float) -> Iterator[Scene]:
        if (second := int(at_s)) > self._second:
            if self._untold:
                yield Aside(f"and {self._untold} more messages")
            self._second, self._lines, self._untold = second, 0, 0
        if isinstance(scene, Said):
            if scene.tone == "quiet":
                self._beats += 1
                if self._beats > 2 * (len(self._names) - 1):
                    return
            self._lines += 1
            if self._lines > MOST_LINES:
                self._untold += 1
                return
        elif isinstance(scene, Became) and scene.tone == "bad":
            self._beats = 0
        yield scene

    def _name(self, place: int) -> str:
        return list(self._names.values())[place]

    def _put(self, at_s: float, place: int, what: TraceEvent | Scene) -> int:
        number = next(self._order)
        heapq.heappush(self._queue, (at_s, number, place, what))
        return number


def _applied(first: int, last: int) -> str:
    return f"applied {first}" if first == last else f"applied {first}..{last}"
