"""What the audit log is told of a gRPC call."""

import time
import uuid
from typing import Any
from urllib.parse import unquote

from master import notes
from master.access.audit import AuditLog, Told
from master.access.rules import Request
from master.access.user import User


def source_of(peer: str) -> str:
    """Return the address in ``ipv4:10.0.0.1:40000`` or ``ipv6:%5B::1%5D:40000``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


class Call:
    """A call from its beginning to its end; notes that are made meanwhile belong to it."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._notes = notes.collect()
        self._received = time.time()

    def tell(self, audit: AuditLog, target: Any, *, user: User, peer: str, code: int, body: bytes) -> None:
        """Tell what came of it; target: what the call was about, as the contract has it."""
        asked = Request(
            user,
            self._method.lower(),
            target.group,
            target.resource,
            target.subresource,
            target.namespace,
            target.name,
        )
        if audit.rule(asked).level == "None":
            return
        told = Told(
            request=asked,
            real_user=user,
            audit_id=str(uuid.uuid4()),
            uri=f"/trireme.cluster.Resources/{self._method}",
            code=code,
            received=self._received,
            done=time.time(),
            version=target.version,
            source=source_of(peer),
            annotations=self._notes.annotations,
            request_body=body,
        )
        audit.tell(told)
