"""The engine's endless calls without threads: HTTP/1.1 over its Unix socket, read as asyncio streams.

The Docker SDK reads streams by blocking a thread each; a node holds hundreds of them (followed logs, exec sessions,
stops that wait for a grace period). Short calls stay with the SDK.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

from node_agent.runtime.base import ImageMissing, NoSuchContainer, NotRunning, Output, RuntimeFailed, Stderr, Stdout

_READ_BYTES = 64 * 1024
_HEAD_LIMIT = 64 * 1024
_CONNECT_S = 5.0
_ANSWER_S = 60.0
_FRAME_HEAD = 8  # stream type, three zeros, length


class Answer:
    """One answer of the engine; the connection is its own."""

    def __init__(
        self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.status = status
        self.headers = headers
        self.reader = reader
        self.writer = writer

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raw after an upgrade."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while (size := int((await self.reader.readline()).split(b";")[0].strip() or b"0", 16)) > 0:
                yield await self.reader.readexactly(size)
                await self.reader.readline()
            return
        left = int(self.headers["content-length"]) if "content-length" in self.headers else None
        while left is None or left > 0:
            data = await self.reader.read(_READ_BYTES if left is None else min(left, _READ_BYTES))
            if not data:
                return
            left = None if left is None else left - len(data)
            yield data

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the body's lines without their ends."""
        rest = b""
        async for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    async def close(self) -> None:
        """Close the connection; the engine ends what it was doing for us."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class EngineSocket:
    """Opens one connection a call."""

    def __init__(self, path: str, *, api_version: str) -> None:
        self._path = path
        self._prefix = f"/v{api_version}"

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        upgrade: bool = False,
        answer_s: float = _ANSWER_S,
    ) -> Answer:
        """Send a request and return the answer once its head is here; the caller closes it.

        Raises RuntimeFailed, or the kin that the status names, with the engine's message.
        """
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(self._path, limit=_HEAD_LIMIT)
        except (OSError, TimeoutError) as exc:
            raise RuntimeFailed(f"no container engine at {self._path}: {exc}") from exc
        try:
            writer.write(self._request(method, path, query, body, headers or {}, upgrade=upgrade))
            async with asyncio.timeout(answer_s):
                status, answer_headers = await _read_head(reader)
            answer = Answer(status, answer_headers, reader, writer)
            await _check(answer)
        except (OSError, EOFError, TimeoutError, ValueError) as exc:
            writer.close()
            raise RuntimeFailed(f"{method} {path}: {exc!r}") from exc
        except BaseException:
            writer.close()
            raise
        return answer

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        *,
        upgrade: bool,
    ) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        lines = [f"{method} {target} HTTP/1.1", "Host: engine", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if data:
            lines.append("Content-Type: application/json")
        lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode() + data


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    return int(first.split(" ", 2)[1]), headers


async def _check(answer: Answer) -> None:
    if answer.status >= 400:
        raise failure(answer.status, await _message(answer))


async def _message(answer: Answer) -> str:
    body = b"".join([chunk async for chunk in answer.chunks()])
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def failure(status: int, message: str) -> RuntimeFailed:
    """Return the error that an HTTP status of the engine stands for."""
    if status == 404:
        return ImageMissing(message) if "image" in message.lower() else NoSuchContainer(message)
    if status == 409 and "not running" in message:
        return NotRunning(message)
    return RuntimeFailed(message)


async def demultiplex(answer: Answer) -> AsyncIterator[Output]:
    """Split the engine's multiplexed stream: frames of eight bytes head and their data."""
    buffer = bytearray()
    async for chunk in answer.chunks():
        buffer += chunk
        while len(buffer) >= _FRAME_HEAD:
            end = _FRAME_HEAD + int.from_bytes(buffer[4:_FRAME_HEAD], "big")
            if len(buffer) < end:
                break
            data = bytes(buffer[_FRAME_HEAD:end])
            yield Stderr(data) if buffer[0] == 2 else Stdout(data)
            del buffer[:end]


async def raw(answer: Answer) -> AsyncIterator[Output]:
    """Yield a terminal's stream, where everything is one."""
    async for chunk in answer.chunks():
        yield Stdout(chunk)
