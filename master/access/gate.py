"""What every request passes before it is served, over REST and over gRPC: who sends it, as whom, its turn, whether.

One gate for all faces of a master, so that none admits what another would not, seats are shared, and the audit log is
told the same of each. A face says what a request shows and asks (``Passage``), takes the steps in this order, and
answers refusals in its own way:

    identify    certificate or bearer token, then impersonation
    seat        its turn, held while it is served
    check       whether it may; that an answer begins which may last is told here
    finish      what came of it, also when its client has gone
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from multidict import MultiMapping

from master import notes
from master.access.audit import AuditLog, Told
from master.access.authentication import Authenticator, user_of_certificate
from master.access.authorization import Authorizer
from master.access.fairness import Fairness, Seat
from master.access.flows import Flow
from master.access.impersonation import effective_user
from master.access.rules import Request
from master.access.user import User

NOBODY = User("")  # who sent it is not known yet, or could not be proved
GONE = 499  # what the audit log is told of a request whose client did not wait for the answer; no client ever sees it

_chance = random.Random()  # noqa: S311 - tells requests apart, and hides nothing


def _new_id() -> str:
    """Return a version 4 UUID, without asking the system for each one's chance."""
    digits = f"{_chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class Certificate(NamedTuple):
    """A client's certificate, verified: as ``ssl`` describes it, and in DER."""

    described: Mapping[str, Any]
    encoded: bytes


class Passage(ABC):
    """One request on its way through the gate: what it shows, what it asks, and what becomes known of it.

    Notes that are made while it is served belong to it: make it in the task that serves.
    """

    def __init__(self, *, asked: Request | None, audit_id: str, source: str) -> None:
        """asked: what it asks, by nobody yet; None: not known yet. audit_id: what the client calls it, or empty.

        source: the client's address, which nobody can be asked for any more once it has gone.
        """
        self.source = source
        self.received = time.time()
        self.audit_id = audit_id[:128] or _new_id()
        self.notes = notes.collect()
        self.real_user = NOBODY
        self.asked = asked
        self.lasting = False  # it goes on for as long as the client likes

    @property
    @abstractmethod
    def fields(self) -> MultiMapping[str]:
        """Return what stands at its head, names without case: Authorization, Impersonate-User, User-Agent."""

    @property
    @abstractmethod
    def memo(self) -> dict[str, Any]:
        """Return what is kept from one request of a connection to the next."""

    @property
    @abstractmethod
    def certificate(self) -> Certificate | None:
        """Return the certificate that its connection showed."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """Return where it goes."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Return the version of the resource, empty without one."""

    @property
    @abstractmethod
    def body(self) -> bytes:
        """Return the object that it carries, empty without one."""

    def told(self, code: int, answer: bytes = b"", *, stage: str = "ResponseComplete") -> Told | None:
        """Return what the audit log takes; None if nobody knows yet what was asked."""
        if self.asked is None:
            return None
        return Told(
            request=self.asked,
            real_user=self.real_user,
            audit_id=self.audit_id,
            uri=self.uri,
            code=code,
            received=self.received,
            done=time.time(),
            stage=stage,
            version=self.version,
            source=self.source,
            agent=self.fields.get("User-Agent", ""),
            annotations=self.notes.annotations,
            request_body=self.body,
            response_body=answer,
        )


class Gate:
    """The way in; see above.

    audit: what is told of every request; None for no audit log.
    """

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer, *, audit: AuditLog | None = None) -> None:
        self.authenticator = authenticator
        self.authorizer = authorizer
        self._audit = audit
        self._fairness = Fairness()

    async def identify(self, passage: Passage) -> User:
        """Find out who sends a request, and return whom it acts as; raises Unauthorized, BadRequest, Forbidden."""
        passage.real_user = real = await self._real_user(passage)
        if passage.asked is not None:
            passage.asked = passage.asked._replace(user=real)  # told, too, if it may not act as whom it names
        user = await effective_user(real, passage.fields, self.authorizer)
        if user is not real and passage.asked is not None:
            passage.asked = passage.asked._replace(user=user)
        return user

    async def _real_user(self, passage: Passage) -> User:
        """Return who sent a request. A certificate vouches for a whole connection, so it is looked at once."""
        known: User | None = passage.memo.get("certified")
        if known is not None:
            return known
        shown = passage.certificate
        user = await self.authenticator.authenticate(
            certificate=shown.described if shown is not None else None,
            authorization=passage.fields.get("Authorization", ""),
            encoded=shown.encoded if shown is not None else None,
        )
        if shown is not None and user_of_certificate(shown.described) is not None:
            passage.memo["certified"] = user
        return user

    def seat(self, flow: Flow, *, lasting: bool = False) -> Seat:
        """Return what holds a request's seat while it is entered; see ``Fairness.seat``."""
        return self._fairness.seat(flow, lasting=lasting)

    async def check(self, passage: Passage) -> None:
        """Return if a request is allowed; raises Forbidden."""
        assert passage.asked is not None, passage
        await self.authorizer.check(passage.asked)
        if passage.lasting and self._audit is not None:
            begun = passage.told(200, stage="ResponseStarted")
            assert begun is not None, passage
            self._audit.tell(begun)

    def finish(self, passage: Passage, code: int, answer: Callable[[], bytes] = bytes) -> None:
        """Tell what came of a request; ``answer`` makes the object that went back, if the policy wants it told."""
        if self._audit is None or passage.asked is None:
            return
        wanted = self._audit.rule(passage.asked).level == "RequestResponse"
        told = passage.told(code, answer() if wanted else b"")
        assert told is not None, passage
        self._audit.tell(told)
