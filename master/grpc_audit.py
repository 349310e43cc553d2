"""What the audit log is told of a gRPC call."""

import time
import uuid
from urllib.parse import unquote

from master import notes
from master.access.audit import AuditLog, Told
from master.access.rules import Request


def source_of(peer: str) -> str:
    """Return the address in ``ipv4:10.0.0.1:40000`` or ``ipv6:%5B::1%5D:40000``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")


class Call:
    """A call from its beginning to its end; notes that are made meanwhile belong to it."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._notes = notes.collect()
        self._received = time.time()
        self._id = str(uuid.uuid4())

    def tell(
        self, audit: AuditLog, asked: Request, *, version: str, peer: str, code: int, stage: str, body: bytes
    ) -> None:
        """Tell that the call has come to ``stage``."""
        if audit.rule(asked).level == "None":
            return
        told = Told(
            request=asked,
            real_user=asked.user,
            audit_id=self._id,
            uri=f"/trireme.cluster.Resources/{self._method}",
            code=code,
            received=self._received,
            done=time.time(),
            stage=stage,
            version=version,
            source=source_of(peer),
            annotations=self._notes.annotations,
            request_body=body,
        )
        audit.tell(told)
