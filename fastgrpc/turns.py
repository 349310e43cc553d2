"""Calls that wait for a stream: a server takes only so many at once, and says how many when it is there.

A stream that becomes free is given away in that very turn of the loop, to who has waited longest. So there is never
room while somebody waits, and whoever finds room has nobody to let pass: it costs such a call nothing that others wait.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from .calling import ClientCall
from .calls import CallFailed, Status
from .connection import Refused


class Turns:
    """Whoever waits on one connection, first come, first served; ``most`` at once."""

    def __init__(self, most: int) -> None:
        # Who waits for what, in the order of whose turn it is: futures that are not done. ``Wire`` looks whether there
        # are any whenever something comes or ends.
        self.waiting: OrderedDict[asyncio.Future[ClientCall | None], Callable[[], ClientCall]] = OrderedDict()
        self._most = most

    async def wait(self, begin: Callable[[], ClientCall], timeout_s: float | None) -> ClientCall | None:
        """Return what ``begin`` returns once it is its turn; None: the connection goes away, and has no room any more.

        begin: raises Refused if there is no room. Raises CallFailed (UNAVAILABLE, DEADLINE_EXCEEDED): it did not begin;
        and whatever else ``begin`` raises.
        """
        if not self.waiting:
            try:
                return begin()
            except Refused:
                pass
        if len(self.waiting) >= self._most:
            raise CallFailed(Status.UNAVAILABLE, f"the server takes no more calls at once, and {self._most} wait")
        future: asyncio.Future[ClientCall | None] = asyncio.get_running_loop().create_future()
        self.waiting[future] = begin
        try:
            await asyncio.wait({future}, timeout=timeout_s)
        except asyncio.CancelledError:
            self.waiting.pop(future, None)
            if future.done() and future.exception() is None and (call := future.result()) is not None:
                call.cancel()  # it had its turn in the moment in which it was given up
            raise
        if self.waiting.pop(future, None) is not None:
            raise CallFailed(Status.DEADLINE_EXCEEDED, "the server had no room for the call in time")
        return future.result()

    def give(self) -> None:
        """Let begin who waits, as far as there is room."""
        while self.waiting:
            future, begin = next(iter(self.waiting.items()))
            try:
                call = begin()
            except Refused:
                return
            except Exception as mistake:  # noqa: BLE001 - whose call cannot be said is told; the others have their turn
                del self.waiting[future]
                future.set_exception(mistake)
            else:
                del self.waiting[future]
                future.set_result(call)

    def send_away(self) -> None:
        """Let everyone look for another connection."""
        waiting, self.waiting = self.waiting, OrderedDict()
        for future in waiting:
            future.set_result(None)

    def fail(self, reason: str) -> None:
        """Tell everyone that it is over; UNAVAILABLE."""
        waiting, self.waiting = self.waiting, OrderedDict()
        for future in waiting:
            future.set_exception(CallFailed(Status.UNAVAILABLE, reason))
