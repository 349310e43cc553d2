"""What a list of header fields says, and whether it may be sent like this (RFC 9113, section 8)."""

import re
from enum import Enum

from .hpack import Fields


class Kind(Enum):
    """Where a list of fields can stand."""

    REQUEST = "request"
    RESPONSE = "response"
    TRAILERS = "trailers"


class Headers:
    """One list of fields, read. ``memo`` is for whoever stands above: the same fields often come as the same object."""

    __slots__ = ("content_length", "fault", "fields", "is_request", "kind", "memo", "pseudo")

    def __init__(self, fields: Fields) -> None:
        """Never raises: ``fault`` tells what is wrong."""
        self.fields = fields
        self.pseudo: dict[bytes, bytes] = {}
        self.content_length: int | None = None
        self.memo: object = None
        self.fault = self._read()
        self.kind = self._kind()
        if self.fault is None and self.kind is Kind.REQUEST:
            self.fault = self._request_fault()
        self.is_request = self.fault is None and self.kind is Kind.REQUEST

    @property
    def status(self) -> int:
        """Return a response's status; 0 if it is none."""
        status = self.pseudo.get(b":status", b"")
        return int(status) if len(status) == 3 and status.isdigit() else 0

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a field."""
        return next((value for found, value in self.fields if found == name), None)

    def _read(self) -> str | None:
        pseudo, regular, padded = self.pseudo, False, False
        for name, value in self.fields:
            if name[:1] == b":":
                if regular:
                    return f"pseudo-header {name!r} stands after a field"
                if name not in _PSEUDO or name in pseudo:
                    return f"pseudo-header {name!r} is unknown, or there twice"
                pseudo[name] = value
            else:
                regular = True
                if not _NAME(name):
                    return f"{name!r} is no name of a field"
                if name in _HOP_BY_HOP or (name == b"te" and value != b"trailers"):
                    return f"field {name!r} belongs to HTTP/1.1"
                if name == b"content-length" and not self._take_length(value):
                    return f"content-length {value!r}"
            if _BAD_VALUE(value):
                if _FORBIDDEN(value) or name[:1] == b":":
                    return f"the value of {name!r} has a character that cannot stand there"
                padded = True
        if padded:
            # HTTP/2 forbids it, gRPC's libraries send it, and their protocol lets whoever receives it strip it.
            self.fields = tuple((name, value.strip(b" \t")) for name, value in self.fields)
        return None

    def _take_length(self, value: bytes) -> bool:
        if not value.isdigit() or len(value) > 18 or self.content_length not in (None, int(value)):
            return False
        self.content_length = int(value)
        return True

    def _kind(self) -> Kind:
        if not self.pseudo:
            return Kind.TRAILERS
        return Kind.RESPONSE if b":status" in self.pseudo else Kind.REQUEST

    def _request_fault(self) -> str | None:
        pseudo = self.pseudo
        if pseudo.get(b":method") == b"CONNECT":
            return "CONNECT is not offered"
        missing = [name for name in (b":method", b":scheme", b":path") if not pseudo.get(name)]
        return f"{missing[0]!r} is missing" if missing else None


_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority", b":status"})
_HOP_BY_HOP = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_FORBIDDEN = re.compile(rb"[\x00\r\n]").search
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]$").search
