"""Many watches on one key at so little cost that the server under test is the limit.

Nothing is decoded: what arrives is searched for a mark, and the windows are opened once and for all.
"""

import asyncio
import contextlib
import time

from fastgrpc import frames
from fastgrpc.calls import call_fields, frame_message
from fastgrpc.frames import Setting
from fastgrpc.hpack import Encoder
from trireme_pb.etcdserverpb import rpc_pb2 as pb


class Watchers:
    """``count`` watches, spread over connections."""

    def __init__(self, each: int) -> None:
        self.count = 0
        self._each = each
        self._lines: list[_Line] = []
        self._mark = b""
        self._arrivals: list[float] = []
        self._all: asyncio.Future[list[float]] | None = None

    @classmethod
    async def connect(cls, endpoint: str, *, key: bytes, connections: int, each: int) -> "Watchers":
        watchers = cls(each)
        host, _, port = endpoint.rpartition(":")
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, line = await loop.create_connection(lambda: _Line(watchers, endpoint, key, each), host, int(port))
            watchers._lines.append(line)
            watchers.count += each
        created = pb.WatchResponse(created=True).SerializeToString()
        while sum(line.seen.count(created) for line in watchers._lines) < watchers.count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for line in watchers._lines:
            line.seen = b""
        return watchers

    def expect(self, mark: bytes) -> "asyncio.Future[list[float]]":
        """Return what will hold, once every watcher has got ``mark``, when each did."""
        self._mark, self._arrivals = mark, []
        self._all = asyncio.get_running_loop().create_future()
        return self._all

    def arrived(self, line: "_Line", data: bytes) -> None:
        if self._all is None or self._all.done():
            return
        # A mark may be cut by the end of a read.
        data = line.seen + data
        found = data.count(self._mark)
        line.seen = data[data.rfind(self._mark) + len(self._mark) :] if found else data
        line.seen = line.seen[-len(self._mark) + 1 :]
        self._arrivals += [time.perf_counter()] * found
        if len(self._arrivals) >= self.count:
            self._all.set_result(self._arrivals)

    def close(self) -> None:
        for line in self._lines:
            line.transport.close()


class _Line(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, watchers: Watchers, endpoint: str, key: bytes, each: int) -> None:
        self.seen = b""
        self._watchers = watchers
        self._endpoint, self._key, self._each = endpoint, key, each

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        window = {Setting.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW, Setting.MAX_FRAME_SIZE: 1 << 20}
        parts = [frames.PREFACE, frames.settings(window)]
        parts.append(frames.window_update(0, frames.MAX_WINDOW - frames.DEFAULT_WINDOW))
        fields = call_fields("/etcdserverpb.Watch/Watch", authority=self._endpoint)
        wanted = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=self._key)).SerializeToString()
        encoder = Encoder()
        for i in range(self._each):
            stream = 2 * i + 1
            parts.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, encoder.encode(fields)))
            parts.append(frames.frame(frames.DATA, 0, stream, frame_message(wanted)))
        self.transport.write(b"".join(parts))

    def data_received(self, data: bytes) -> None:
        if self._watchers._all is None:  # noqa: SLF001
            self.seen += data
        else:
            self._watchers.arrived(self, data)
        if len(data) < 1000:
            self._answer(data)

    def _answer(self, data: bytes) -> None:
        """Acknowledge pings and settings, as a server may insist; only in small reads, where they stand alone."""
        at = 0
        with contextlib.suppress(frames.FrameTooLarge):
            while (found := frames.frame_at(data, at, 1 << 20)) is not None:
                (kind, flags, _, payload), at = found
                if kind == frames.PING and not flags & frames.ACK:
                    self.transport.write(frames.ping(payload, ack=True))
                elif kind == frames.SETTINGS and not flags & frames.ACK:
                    self.transport.write(frames.SETTINGS_ACK)
