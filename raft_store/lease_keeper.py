"""Who ends leases, and when: the leader, by its own clock, and only in the term in which it gave them their time."""

from .engine import Term
from .machine import Machine
from .mvcc.requests import LeaseExpire

EXPIRE_BATCH = 500


class LeaseKeeper:
    """One member's judgement over the leases; without I/O: ``look`` and ``due`` are called in turn, for ever."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._led_term: Term | None = None  # the term whose leases we have given their whole time anew, if we lead

    def look(self, *, leads: bool, term: Term) -> None:
        """See whether we lead, and in which term.

        A new leader cannot know how much time had passed for the old one: every lease starts anew.
        """
        if not leads:
            self._led_term = None
        elif self._led_term != term:
            self._led_term = term
            self._machine.lease_clock.restart(self._machine.leases.all())

    def due(self) -> LeaseExpire | None:
        """Return the command that ends what has run out; None if nothing has, or if it is not ours to say."""
        if self._led_term is None:
            return None
        expired = self._machine.lease_clock.expired(self._machine.leases, EXPIRE_BATCH)
        return LeaseExpire(self._led_term, expired) if expired else None
