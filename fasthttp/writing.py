"""Answers as bytes."""

import time
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

import msgspec

Pairs = Iterable[tuple[str, str]]

# RFC 9110, 5.6.7: the same words whatever the locale.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class Response(msgspec.Struct, frozen=True):
    """A whole answer. ``headers`` says nothing about its length and the connection."""

    code: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def render_head(code: int, headers: Pairs, *, length: int | None, chunked: bool, connection: str) -> bytes:
    """Return the head of an answer; raises ValueError for a field that would be read as several.

    length: None for a body that has chunks, or ends with the connection, or of which nothing may be said.
    connection: what to say of it; "" for what the client expects anyway.
    """
    lines = [_status_line(code)]
    lines += [f"{name}: {value}" for name, value in headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    if connection:
        lines.append(f"Connection: {connection}")
    lines.append(_date(int(time.time())))
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError(f"a header field holds a line break: {lines!r}")
    return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"


def may_have_body(code: int) -> bool:
    """Return whether an answer with this status has a body at all."""
    return code >= 200 and code not in (204, 304)


def frame_chunk(data: bytes) -> bytes:
    """Return ``data``, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=128)
def _status_line(code: int) -> str:
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {code} {phrase}"


@lru_cache(maxsize=1)
def _date(unix_s: int) -> str:
    at = time.gmtime(unix_s)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"Date: {day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
