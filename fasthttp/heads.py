"""What stands before a body: the request line and the fields, read strictly.

Whatever two readers of one stream could take for different requests is refused: bare line feeds, folded lines, space
before a colon, two lengths, a length beside chunks (RFC 9112, 5.1, 5.2, 6.1 and 6.3).

Errors
    Malformed    the bytes are no request that is served; ``code`` is the HTTP status that says why
"""

import re
from functools import lru_cache

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

# Fields longer than this are parsed anew each time: the memory stays small whatever clients send.
_REMEMBERED_BYTES = 4096


class Malformed(Exception):
    """The connection cannot be read on: its other end is told ``code``, and it is closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Fields(msgspec.Struct, frozen=True):
    """The fields of a head, and what they say about its body and the connection. Shared between requests."""

    headers: CIMultiDictProxy[str]
    length: int | None  # of the body; None: no Content-Length was sent
    chunked: bool
    connection: frozenset[str]  # options of Connection, in lower case
    expects_continue: bool


class Head(msgspec.Struct, frozen=True):
    """One request up to its body."""

    method: str
    target: str
    minor: int  # of HTTP/1.x
    fields: Fields
    raw: bytes  # as it came, with the empty line

    @property
    def keeps_alive(self) -> bool:
        """Return whether the client wants to ask more over this connection."""
        options = self.fields.connection
        return "close" not in options if self.minor else "keep-alive" in options

    @property
    def wants_upgrade(self) -> bool:
        """Return whether the client would speak another protocol from here on."""
        return "Upgrade" in self.fields.headers


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_LINE = re.compile(rb"(%b) ([^\x00-\x20\x7f]+) HTTP/(\d)\.(\d)" % TOKEN)
# Each line can be matched in one way only, so that a long one costs no more than its length.
_BLOCK = re.compile(rb"(?:%b:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*" % TOKEN)


def parse_head(raw: bytes) -> Head:
    """Return the request that ``raw``, which ends with the empty line, begins; raises Malformed."""
    line, _, block = raw[:-2].partition(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise Malformed(400, "malformed request line")
    method, target, major, minor = found.groups()
    if major != b"1" or minor not in b"01":
        raise Malformed(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    fields = _fields(block) if len(block) <= _REMEMBERED_BYTES else _fields.__wrapped__(block)
    if minor == b"1" and len(fields.headers.getall("Host", ())) != 1:
        raise Malformed(400, "a request of HTTP/1.1 names one Host")
    if minor == b"0" and fields.chunked:
        raise Malformed(400, "HTTP/1.0 knows no chunks")
    return Head(method.decode(), target.decode("utf-8", "surrogateescape"), int(minor), fields, raw)


@lru_cache(maxsize=1024)
def _fields(block: bytes) -> Fields:
    if _BLOCK.fullmatch(block) is None:
        raise Malformed(400, "malformed header field")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.add(name.decode(), value.strip(b" \t").decode("utf-8", "surrogateescape"))
    chunked = _is_chunked(headers)
    length = _length(headers)
    if chunked and length is not None:
        raise Malformed(400, "a body has a length or chunks, not both")
    options = ",".join(headers.getall("Connection", ()))
    return Fields(
        headers=CIMultiDictProxy(headers),
        length=length,
        chunked=chunked,
        connection=frozenset(each.strip().lower() for each in options.split(",")),
        expects_continue=headers.get("Expect", "").lower() == "100-continue",
    )


def _is_chunked(headers: CIMultiDict[str]) -> bool:
    codings = headers.getall("Transfer-Encoding", ())
    if not codings:
        return False
    if [each.lower() for each in codings] != ["chunked"]:
        raise Malformed(400, "the only transfer coding that is read is chunked")
    return True


def _length(headers: CIMultiDict[str]) -> int | None:
    lengths = headers.getall("Content-Length", ())
    if not lengths:
        return None
    text = lengths[0]
    if len(lengths) > 1 or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Malformed(400, "malformed Content-Length")
    return int(text)
