"""One request and its answer, as metrics, audit log and flow control see it."""

import random
import time

from master import notes
from master.access.audit import Told
from master.access.flows import Flow
from master.access.rules import Request
from master.access.user import User
from master.rest import routes
from master.rest.http import Answer
from master.rest.request import Request as HttpRequest

NOBODY = User("")  # who sent it is not known yet, or could not be proved
Found = routes.Target | routes.Unserved | None


_chance = random.Random()  # noqa: S311 - tells requests apart, and hides nothing


def _new_id() -> str:
    """Return a version 4 UUID, without asking the system for each one's chance."""
    digits = f"{_chance.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


class Exchange:
    """What becomes known of a request while it is served."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.received = time.time()
        self.started = time.perf_counter()
        self.audit_id = request.headers.get("Audit-Id", "")[:128] or _new_id()
        self.headers = {"Audit-Id": self.audit_id}  # that every answer carries
        self.notes = notes.collect()
        self.real_user: User = NOBODY
        self.found: Found = None
        self.asked: Request | None = None  # what authorization decides upon
        self.verb = request.method.lower()
        self.lasting = False  # it goes on for as long as the client likes

    @property
    def resource(self) -> str:
        """Return the plural of the kind, empty if there is none."""
        return self.found.kind.plural if isinstance(self.found, routes.Target) else ""

    def belongs_to(self, flow: Flow) -> None:
        """Let the answer say which flow the request belongs to."""
        self.headers.update(flow.headers)

    def told(self, code: int, answer: Answer | None, *, stage: str = "ResponseComplete") -> Told | None:
        """Return what the audit log takes; None if nobody knows yet what was asked."""
        if self.asked is None:
            return None
        request, found = self.request, self.found
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        version = ""
        if found is not None:
            version = found.kind.version if isinstance(found, routes.Target) else found.version
        return Told(
            request=self.asked,
            real_user=self.real_user,
            audit_id=self.audit_id,
            uri=request.path_qs,
            code=code,
            received=self.received,
            done=time.time(),
            stage=stage,
            version=version,
            source=str(peer[0]) if peer else "",
            agent=request.headers.get("User-Agent", ""),
            annotations=self.notes.annotations,
            request_body=request.kept_body,
            response_body=answer.body if answer is not None else b"",
        )
