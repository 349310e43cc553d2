"""The wires between members, in user space: proxies that can be cut, one way too, slowed down and made to stall.

Every member is known to the others by the address of a proxy. Who dials it is found by the dialler's port, which
belongs to one of our processes: so one set of addresses does for everybody, as the members' list demands.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

CHUNK_BYTES = 1 << 16
LOOK_AGAIN_S = 0.02


class Wires:
    """What is wrong with the wires just now."""

    def __init__(self, random: Random) -> None:
        self.cut: set[tuple[str, str]] = set()  # (from, to)
        self.delay_s = 0.0  # of every chunk, give or take its half
        self.stall = 0.0  # chance that a chunk waits for TCP to send it again
        self._random = random

    def heal(self) -> None:
        """Mend everything."""
        self.cut.clear()
        self.delay_s = self.stall = 0.0

    async def let_through(self, sender: str, to: str) -> None:
        """Return when the next chunk may pass."""
        if self.delay_s:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * self.delay_s)
        if self.stall and self._random.random() < self.stall:
            await asyncio.sleep(0.2)
        while (sender, to) in self.cut:  # noqa: ASYNC110 - healed from outside, now and then
            await asyncio.sleep(LOOK_AGAIN_S)


class Proxy:
    """The way to one member."""

    def __init__(self, member: str, *, target: int, wires: Wires, pids: Callable[[], Mapping[str, int]]) -> None:
        """target: the port where the member really listens; pids: the processes of all members that run."""
        self.port = 0
        self._member = member
        self._target = target
        self._wires = wires
        self._pids = pids
        self._server: asyncio.Server | None = None
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._inner: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()  # the loop holds those that are open

    async def start(self, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = port

    async def stop(self) -> None:
        """Hang up everything."""
        self._stopped = True
        if self._server is not None:
            self._server.close()
        while self._tasks or self._writers:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # A task that was canceled before it began has closed nothing.
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()
            await asyncio.sleep(0)
        for transport in list(self._inner):
            # They are closing; but that would wait until a member that stands still takes what is left.
            transport.abort()
        await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopped:  # it was accepted just before the server was closed
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        try:
            sender = owner_of(port, self._pids())
            if sender is None:
                return
            # Both ways: a handshake needs an answer.
            await self._wires.let_through(sender, self._member)
            await self._wires.let_through(self._member, sender)
            with contextlib.suppress(OSError):
                inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
                await self._pump_both(reader, writer, inner_reader, inner_writer, sender)
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inner_reader: asyncio.StreamReader,
        inner_writer: asyncio.StreamWriter,
        sender: str,
    ) -> None:
        self._inner.add(inner_writer.transport)
        pumps = [
            asyncio.ensure_future(self._pump(reader, inner_writer, sender, self._member)),
            asyncio.ensure_future(self._pump(inner_reader, writer, self._member, sender)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            inner_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: str, to: str) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._wires.let_through(sender, to)
                writer.write(data)
                await writer.drain()


def owner_of(port: int, pids: Mapping[str, int]) -> str | None:
    """Return whose process has a TCP socket bound to a local ``port``; None if nobody's has (any more).

    Read from /proc at once, without a library: a dialler gives up within a quarter of a second.
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(port)}
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return name
    return None


def _inodes(port: int) -> Iterator[str]:
    """Yield the inodes of the sockets bound to a local port; gRPC's speak IPv4 through IPv6 sockets."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]
