"""One request and its answer over HTTP, as metrics, the gate and its audit log see it."""

import time
from typing import Any

from multidict import MultiMapping

from master.access.flows import Flow
from master.access.gate import Certificate, Passage
from master.rest import routes
from master.rest.request import Request

Found = routes.Target | routes.Unserved | None


class Exchange(Passage):
    """What becomes known of a request while it is served."""

    def __init__(self, request: Request) -> None:
        super().__init__(asked=None, audit_id=request.headers.get("Audit-Id", ""), source=_source(request))
        self.request = request
        self.started = time.perf_counter()
        self.headers = {"Audit-Id": self.audit_id}  # that every answer carries
        self.found: Found = None
        self.verb = request.method.lower()

    @property
    def fields(self) -> MultiMapping[str]:
        """See ``Passage``."""
        return self.request.headers

    @property
    def memo(self) -> dict[str, Any]:
        """See ``Passage``."""
        return self.request.memo

    @property
    def certificate(self) -> Certificate | None:
        """See ``Passage``."""
        transport = self.request.transport
        described = transport.get_extra_info("peercert") if transport is not None else None
        if not described or transport is None:
            return None
        encoded = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return Certificate(described, encoded)

    @property
    def uri(self) -> str:
        """See ``Passage``."""
        return self.request.path_qs

    @property
    def version(self) -> str:
        """See ``Passage``."""
        match self.found:
            case routes.Target(kind=kind):
                return kind.version
            case routes.Unserved(version=version):
                return version
        return ""

    @property
    def body(self) -> bytes:
        """See ``Passage``."""
        return self.request.kept_body

    @property
    def resource(self) -> str:
        """Return the plural of the kind, empty if there is none."""
        return self.found.kind.plural if isinstance(self.found, routes.Target) else ""

    def belongs_to(self, flow: Flow) -> None:
        """Let the answer say which flow the request belongs to."""
        self.headers.update(flow.headers)


def _source(request: Request) -> str:
    """Return the client's address: the same for a whole connection."""
    found: str | None = request.memo.get("source")
    if found is None:
        transport = request.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        found = request.memo["source"] = str(peer[0]) if peer else ""
    return found
