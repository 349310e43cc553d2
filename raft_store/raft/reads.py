"""Linearizable reads without a log entry (thesis 6.4).

A leader answers a question "what was committed when I asked?" with its commit mark of the moment the question came,
once a majority has confirmed, after that moment, that it still leads. All questions that wait share one round of
heartbeats. The commit mark says nothing before an entry of the leader's own term is committed: the core asks for a
round only from then on.
"""

from collections import deque

import msgspec

from raft_store.engine import Index, MemberId, Term

ASK_AGAIN_TICKS = 8  # a question without an answer is asked again after so long


class Question(msgspec.Struct, frozen=True):
    """Who asked, and the name of the question there."""

    asker: MemberId
    session: int
    number: int


class ReadRounds:
    """A leader's open questions. ``newest`` grows for the whole life of the core: old replies confirm nothing new."""

    __slots__ = ("_rounds", "_waiting", "newest")

    def __init__(self) -> None:
        self.newest = 0
        self._waiting: list[Question] = []
        self._rounds: deque[tuple[int, Index, list[Question]]] = deque()  # (round, commit mark, questions), in order

    @property
    def waiting(self) -> bool:
        """Whether questions wait for a round to begin."""
        return bool(self._waiting)

    def ask(self, question: Question) -> None:
        """Take a question; it waits for the next round."""
        self._waiting.append(question)

    def begin(self, committed: Index) -> int:
        """Begin a round for all that wait; return its number, which heartbeats have to carry."""
        self.newest += 1
        self._rounds.append((self.newest, committed, self._waiting))
        self._waiting = []
        return self.newest

    def confirm(self, up_to: int) -> list[tuple[Question, Index]]:
        """A majority confirmed round ``up_to``: return the answers that it settles."""
        answers: list[tuple[Question, Index]] = []
        while self._rounds and self._rounds[0][0] <= up_to:
            _, index, questions = self._rounds.popleft()
            answers.extend((question, index) for question in questions)
        return answers

    def clear(self) -> None:
        """We lead no more: nobody here can answer, the askers ask again elsewhere."""
        self._waiting = []
        self._rounds.clear()


class Readers:
    """As any member: whoever waits here for an answer, and then for the machine to get there.

    One question is open at a time; all who come meanwhile share the next one. A question may get lost with a message or
    a leader, and is then asked anew under another number, so that a late answer never meets a younger question.
    """

    __slots__ = ("_asked", "_asked_term", "_number", "_quiet_ticks", "_ready", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[object] = []
        self._asked: list[object] = []
        self._asked_term = Term(0)
        self._number = 0
        self._quiet_ticks = 0
        self._ready: list[tuple[Index, list[object]]] = []

    def add(self, owner: object) -> None:
        """Take a reader."""
        self._waiting.append(owner)

    def tick(self) -> None:
        """Let time pass for the open question."""
        self._quiet_ticks += 1

    def ask(self, term: Term) -> int | None:
        """A leader of ``term`` is known: return the number of a question to ask it now, if there is one."""
        if self._asked and (term != self._asked_term or self._quiet_ticks >= ASK_AGAIN_TICKS):
            self._waiting = self._asked + self._waiting
            self._asked = []
        if self._asked or not self._waiting:
            return None
        self._asked, self._waiting = self._waiting, []
        self._asked_term, self._quiet_ticks = term, 0
        self._number += 1
        return self._number

    def answered(self, number: int, index: Index) -> None:
        """The answer to question ``number`` came."""
        if self._asked and number == self._number:
            self._ready.append((index, self._asked))
            self._asked = []

    def release(self, applied: Index) -> list[tuple[object, Index]]:
        """The machine has applied up to ``applied``: return whoever may read now, and what they waited for."""
        if not self._ready:
            return []
        released = [(owner, index) for index, owners in self._ready if index <= applied for owner in owners]
        self._ready = [waiting for waiting in self._ready if waiting[0] > applied]
        return released
