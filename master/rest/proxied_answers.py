"""The answer to a proxied request as it comes out of a pipe: its head, and its body up to the end that the head tells.

Whoever answers may say anything: a head is bounded, and a body that breaks off ends there.
"""

import re
from collections.abc import AsyncIterator
from typing import NamedTuple

from api.errors import ApiError, Unavailable
from master.rest.hops import Fields
from master.rest.pipes import Pipe

_HEAD_BYTES = 64 * 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class Answer(NamedTuple):
    """The head of an answer."""

    code: int
    fields: Fields


async def read_answer(pipe: Pipe) -> tuple[Answer, bytes]:
    """Return the answer that counts and what came behind its head; raises Unavailable."""
    rest = b""
    while True:
        head, rest = await _read_head(pipe, rest)
        answer = _parse_head(head)
        # Others from 100 to 199 only say that the answer comes, as 103 does with hints for it.
        if answer.code == 101 or not 100 <= answer.code < 200:
            return answer, rest


async def _read_head(pipe: Pipe, data: bytes) -> tuple[bytes, bytes]:
    """Return (head, what came behind it); ``data`` has come already. Raises Unavailable."""
    while (end := data.find(b"\r\n\r\n")) < 0:
        more = await pipe.read()
        if not more or len(data) > _HEAD_BYTES:
            raise Unavailable("error trying to reach service: EOF")
        data += more
    return data[:end], data[end + 4 :]


def _parse_head(head: bytes) -> Answer:
    """Return what a head says; raises Unavailable for what is no HTTP."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise Unavailable("error trying to reach service: malformed HTTP response")
    pairs = (line.partition(":") for line in lines)
    return Answer(int(words[1]), [(key.strip(), value.strip()) for key, _, value in pairs])


async def body_of(pipe: Pipe, headers: dict[str, str], rest: bytes) -> AsyncIterator[bytes]:
    """Yield an answer's body, whichever way its end is told."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        async for data in chunks_of(pipe, rest):
            yield data
        return
    left = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else None
    data = rest
    while left is None or left > 0:
        data = data or await read_or_end(pipe)
        if not data:
            return
        data = data if left is None else data[:left]
        left = None if left is None else left - len(data)
        yield data
        data = b""


async def read_or_end(pipe: Pipe) -> bytes:
    """Return the next bytes; a connection that breaks behind the head ends the answer."""
    try:
        return await pipe.read()
    except ApiError:
        return b""


async def chunks_of(pipe: Pipe, data: bytes) -> AsyncIterator[bytes]:
    """Yield the bytes of chunks as they come: whoever answers says how long one is, and may say anything."""
    while True:
        while (end := data.find(b"\r\n")) < 0:
            if len(data) > _HEAD_BYTES or not (more := await read_or_end(pipe)):
                return
            data += more
        if (left := _chunk_size(data[:end])) == 0:
            return
        data = data[end + 2 :]
        while left > 0:
            if not data and not (data := await read_or_end(pipe)):
                return
            piece, data = data[:left], data[left:]
            left -= len(piece)
            yield piece
        while len(data) < 2:
            if not (more := await read_or_end(pipe)):
                return
            data += more
        data = data[2:]


def _chunk_size(line: bytes) -> int:
    """Return the size that a chunk's first line tells; 0, the end, for what is none."""
    size = line.partition(b";")[0].strip()
    return int(size, 16) if _CHUNK_SIZE.fullmatch(size) else 0
