"""Priority and fairness: each level serves so many requests at once, and those that wait take turns by flow.

A client that asks a thousand times at once waits behind itself: another flow of its level is served after at most one
of its requests, other levels are not touched. Waiting is bounded in number and in time; beyond that a client is told to
come again. Seats are not lent between levels.
"""

import asyncio
import contextlib
from collections import OrderedDict, deque
from types import TracebackType

from api.errors import TooManyRequests
from master.access.flows import LEVELS, Flow, Level

PATIENCE_S = 15.0  # how long a request may wait for its turn
RETRY_AFTER_S = 1
REFUSAL = "Too many requests, please try again later."


class Seats:
    """The seats of one level, and who waits for them."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._taken = 0
        # Flow -> those of it that wait, oldest first. The flow at the front is served next and goes to the back.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def taken(self) -> int:
        """Return how many requests are being served."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return sum(len(queue) for queue in self._waiting.values())

    async def take(self, flow: str) -> None:
        """Return when it is the flow's turn; raises TooManyRequests if too many wait already, or it took too long."""
        if self._taken < self._level.seats and not self._waiting:
            self._taken += 1
            return
        turn = self._enqueue(flow)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back()  # its turn came in the moment in which it gave up
            else:
                self._leave(flow, turn)
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _enqueue(self, flow: str) -> asyncio.Future[None]:
        queue = self._waiting.get(flow)
        if queue is None:
            if len(self._waiting) >= self._level.flows:
                raise self._refusal()
            queue = self._waiting[flow] = deque()
        elif len(queue) >= self._level.waiting:
            raise self._refusal()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        return turn

    def _leave(self, flow: str, turn: asyncio.Future[None]) -> None:
        """Forget one that waits no more."""
        if (queue := self._waiting.get(flow)) is not None:
            with contextlib.suppress(ValueError):
                queue.remove(turn)
            if not queue:
                del self._waiting[flow]

    def give_back(self) -> None:
        """Let the next flow have the seat."""
        while self._waiting:
            flow, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            if queue:
                self._waiting.move_to_end(flow)
            else:
                del self._waiting[flow]
            if not turn.done():
                turn.set_result(None)
                return
        self._taken -= 1

    @staticmethod
    def _refusal() -> TooManyRequests:
        return TooManyRequests(REFUSAL, retry_after_s=RETRY_AFTER_S)


class Fairness:
    """The seats of every level."""

    def __init__(self) -> None:
        self.levels = {level.name: Seats(level) for level in LEVELS}

    def seat(self, flow: Flow, *, lasting: bool = False) -> "Seat":
        """Return what holds a seat for a request while it is entered; entering raises TooManyRequests.

        lasting: the request goes on for as long as its client likes (a watch, a stream): it only waits for its turn.
        """
        return Seat(self.levels[flow.level.name] if flow.level.seats else None, flow.key, lasting=lasting)


class Seat:
    """A seat for one request; of a level without limits there is nothing to hold."""

    __slots__ = ("_flow", "_lasting", "_seats")

    def __init__(self, seats: Seats | None, flow: str, *, lasting: bool) -> None:
        self._seats = seats
        self._flow = flow
        self._lasting = lasting

    async def __aenter__(self) -> None:
        if self._seats is not None:
            await self._seats.take(self._flow)
            if self._lasting:
                self._seats.give_back()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._seats is not None and not self._lasting:
            self._seats.give_back()
