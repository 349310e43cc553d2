"""Linearizable reads without a log entry (thesis 6.4).

A leader answers a question "what was committed when I asked?" with its commit mark of the moment the question came,
once a majority has confirmed, after that moment, that it still leads. All questions that wait share one round of
heartbeats. The commit mark says nothing before an entry of the leader's own term is committed: the core asks for a
round only from then on.

Lease reads (thesis 6.4.1) save the round, and rest on clocks. A majority that confirmed a heartbeat ignores candidates
for an election time-out after it *received* that; for so long after it was *sent*, less what clocks may differ by,
nobody else can lead, and the leader answers at once. If a clock runs further off than allowed, or stands still while
time goes on (a suspended machine), a deposed leader may answer with old data. Off unless wished for.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from raft_store.engine import Index, MemberId, Term

ASK_AGAIN_TICKS = 8  # a question without an answer is asked again after so long


def lease_ms(*, election_ticks: int, tick_ms: float, drift: float) -> float:
    """Return how long a majority that heard a heartbeat is sure to ignore candidates, by its leader's clock.

    drift: as a part of 1, how much faster the others' ticks may come than that clock lets expect. The last tick of a
    time-out may be short.
    """
    return (election_ticks - 1) * tick_ms / (1 + drift)


class Question(msgspec.Struct, frozen=True):
    """Who asked, and the name of the question there."""

    asker: MemberId
    session: int
    number: int


class ReadRounds:
    """A leader's open questions. ``newest`` grows for the whole life of the core: old replies confirm nothing new."""

    __slots__ = ("_rounds", "newest", "waiting")

    def __init__(self) -> None:
        self.newest = 0
        self.waiting: list[Question] = []  # for a round to begin
        self._rounds: deque[tuple[int, Index, list[Question]]] = deque()  # (round, commit mark, questions), in order

    def ask(self, question: Question) -> None:
        """Take a question; it waits for the next round."""
        self.waiting.append(question)

    def begin(self, committed: Index) -> int:
        """Begin a round for all that wait; return its number, which heartbeats have to carry."""
        self.newest += 1
        self._rounds.append((self.newest, committed, self.waiting))
        self.waiting = []
        return self.newest

    def confirm(self, up_to: int) -> list[tuple[Question, Index]]:
        """A majority confirmed round ``up_to``: return the answers that it settles."""
        answers: list[tuple[Question, Index]] = []
        while self._rounds and self._rounds[0][0] <= up_to:
            _, index, questions = self._rounds.popleft()
            answers.extend((question, index) for question in questions)
        return answers

    def answer(self, committed: Index) -> list[tuple[Question, Index]]:
        """Answer all that wait right now: the leader holds a lease."""
        answers = [(question, committed) for question in self.waiting]
        self.waiting = []
        return answers

    def next_round(self) -> int:
        """Return a number for a round of heartbeats that carries no questions."""
        self.newest += 1
        return self.newest

    def clear(self) -> None:
        """We lead no more: nobody here can answer, the askers ask again elsewhere."""
        self.waiting = []
        self._rounds.clear()


class Lease:
    """Until when nobody else can lead; ``duration_ms`` of 0: we never know."""

    __slots__ = ("_duration_ms", "_given_up", "_sent", "_until_ms")

    def __init__(self, duration_ms: float) -> None:
        self._duration_ms = duration_ms
        self._sent: deque[tuple[int, float]] = deque()  # (round, when its heartbeats left)
        self._until_ms = 0.0
        self._given_up = False

    @property
    def wanted(self) -> bool:
        """Whether rounds have to be told to us."""
        return self._duration_ms > 0

    def sent(self, round_: int, now_ms: float) -> None:
        """Heartbeats of a round leave."""
        self._sent.append((round_, now_ms))

    def confirmed(self, up_to: int) -> None:
        """A majority confirmed round ``up_to``."""
        while self._sent and self._sent[0][0] <= up_to:
            self._until_ms = self._sent.popleft()[1] + self._duration_ms

    def holds(self, now_ms: float) -> bool:
        """Return whether nobody else can lead now."""
        return now_ms < self._until_ms and not self._given_up

    def renew(self) -> None:
        """Other voters count from now on: what was confirmed by the old ones is worth nothing."""
        self._until_ms = 0.0

    def give_up(self) -> None:
        """We have told another member to campaign; it may do so at any time, and its wish overrides every promise."""
        self._given_up = True

    def clear(self) -> None:
        """Another term, or no lead: nothing is known."""
        self._sent.clear()
        self._until_ms = 0.0
        self._given_up = False


class Readers:
    """As any member: whoever waits here for an answer, and then for the machine to get there.

    One question is open at a time; all who come meanwhile share the next one. A question may get lost with a message or
    a leader, and is then asked anew under another number, so that a late answer never meets a younger question.
    """

    __slots__ = ("_asked_term", "_number", "_quiet_ticks", "answers", "asked", "waiting")

    def __init__(self) -> None:
        self.waiting: list[object] = []  # for the next question
        self.asked: list[object] = []  # for the answer to the open one
        self._asked_term = Term(0)
        self._number = 0
        self._quiet_ticks = 0
        self.answers: list[tuple[Index, list[object]]] = []  # for the machine to get there, and who waits for that

    def add(self, owner: object) -> None:
        """Take a reader."""
        self.waiting.append(owner)

    def tick(self) -> None:
        """Let time pass for the open question."""
        self._quiet_ticks += 1

    @property
    def open(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self.asked or self.waiting)

    def ask(self, term: Term) -> int | None:
        """A leader of ``term`` is known: return the number of a question to ask it now, if there is one."""
        if self.asked and (term != self._asked_term or self._quiet_ticks >= ASK_AGAIN_TICKS):
            self.waiting = self.asked + self.waiting
            self.asked = []
        if self.asked or not self.waiting:
            return None
        self.asked, self.waiting = self.waiting, []
        self._asked_term, self._quiet_ticks = term, 0
        self._number += 1
        return self._number

    def forget(self, gone: Callable[[object], bool]) -> None:
        """Let go of whoever waits no more; without a leader nobody else would."""
        self.waiting = [owner for owner in self.waiting if not gone(owner)]
        self.asked = [owner for owner in self.asked if not gone(owner)]

    def answered(self, number: int, index: Index) -> None:
        """The answer to question ``number`` came."""
        if self.asked and number == self._number:
            self.answers.append((index, self.asked))
            self.asked = []

    def release(self, applied: Index) -> list[tuple[object, Index]]:
        """The machine has applied up to ``applied``: return whoever may read now, and what they waited for."""
        released = [(owner, index) for index, owners in self.answers if index <= applied for owner in owners]
        self.answers = [waiting for waiting in self.answers if waiting[0] > applied]
        return released
