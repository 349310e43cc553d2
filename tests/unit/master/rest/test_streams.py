"""Logs, commands and ports through a real HTTP server to a node agent in this process."""

import asyncio
import base64
import contextlib
import json
import struct

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasthttp.heads import parse_head
from master.rest import server, spdy
from master.rest.exec import SpdyPeer
from tests.unit.master.conftest import until
from tests.unit.master.rest.test_spdy import Client

POD = "/api/v1/namespaces/default/pods/web"


async def test_logs(api, agent, pod):
    async with api.ask(
        "GET", f"{POD}/log?tailLines=2&timestamps=true&sinceSeconds=5&limitBytes=9&previous=1"
    ) as answer:
        assert answer.content_type == "text/plain"
        assert await answer.read() == b"line 3\nline 4\n"
    (seen,) = agent.logs
    assert (seen.target.pod, seen.target.container, seen.target.pod_uid) == ("web", "a", pod["metadata"]["uid"])
    assert (seen.tail_lines, seen.since_seconds, seen.limit_bytes) == (2, 5, 9)
    assert seen.timestamps
    assert seen.previous
    assert not seen.follow


async def test_a_followed_log_flows_and_ends_with_its_reader(api, agent, pod):
    async with api.ask("GET", f"{POD}/log?follow=true&tailLines=0") as answer:
        assert await asyncio.wait_for(answer.content.readline(), 5) == b"line 5\n"
        assert await asyncio.wait_for(answer.content.readline(), 5) == b"line 6\n"
        answer.close()
    await asyncio.wait_for(agent.cancelled.wait(), 5)


@pytest.mark.parametrize("protocol", ["", "binary.k8s.io", "base64.binary.k8s.io"])
async def test_logs_over_a_websocket(api, pod, protocol):
    headers = {"Authorization": "Bearer admin"}
    offered = (protocol,) if protocol else ()
    url = f"{api.url}{POD}/log?tailLines=2"
    async with api.session.ws_connect(url, headers=headers, protocols=offered) as socket:
        found = b""
        async for message in socket:
            found += base64.b64decode(message.data) if protocol.startswith("base64") else message.data
    assert found == b"line 3\nline 4\n"


async def test_a_followed_log_over_a_websocket_ends_with_its_reader(api, agent, pod):
    headers = {"Authorization": "Bearer admin"}
    async with api.session.ws_connect(f"{api.url}{POD}/log?follow=true&tailLines=0", headers=headers) as socket:
        assert (await asyncio.wait_for(socket.receive(), 5)).data == b"line 5\n"
    await asyncio.wait_for(agent.cancelled.wait(), 5)


async def test_a_log_that_cannot_be_had_is_a_status(api, agent, pod):
    sleepy = {"metadata": {"name": "sleepy"}, "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}]}}
    await api.create("/api/v1/namespaces/default/pods", sleepy)
    status = await api.json("GET", "/api/v1/namespaces/default/pods/sleepy/log", code=400)
    assert status["message"] == 'container "a" is waiting to start'
    await agent.stop()
    status = await api.json("GET", f"{POD}/log", code=500)
    assert "error dialing the agent of node n1" in status["message"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("tailLines=-1", 422), ("limitBytes=0", 422), ("sinceSeconds=0", 422), ("sinceTime=yesterday", 422),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422), ("tailLines=x", 400), ("container=zz", 400),
    ],
)  # fmt: skip
async def test_log_options_that_make_no_sense_are_refused(api, pod, query, code):
    await api.json("GET", f"{POD}/log?{query}", code=code)


async def test_a_container_must_be_named_when_there_are_several(api, agent, pod):
    containers = [{"name": name, "image": "i"} for name in ("a", "b")]
    many = {"metadata": {"name": "many"}, "spec": {"nodeName": "n1", "containers": containers}}
    await api.create("/api/v1/namespaces/default/pods", many)
    status = await api.json("GET", "/api/v1/namespaces/default/pods/many/log", code=400)
    assert status["message"] == "a container name must be specified for pod many, choose one of: [a b]"
    many["metadata"] = {"name": "told", "annotations": {"kubectl.kubernetes.io/default-container": "b"}}
    await api.create("/api/v1/namespaces/default/pods", many)
    async with api.ask("GET", "/api/v1/namespaces/default/pods/told/log") as answer:
        assert answer.status == 200
    assert agent.logs[-1].target.container == "b"


async def test_a_pod_without_a_node_has_no_streams(api):
    await api.create(
        "/api/v1/namespaces/default/pods",
        {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": "i"}]}},
    )
    assert (await api.json("GET", f"{POD}/log", code=400))["message"] == "pod web does not have a host assigned"


def socket(api, path, *protocols):
    headers = {"Authorization": "Bearer admin"}
    return api.session.ws_connect(api.url + path, protocols=protocols, headers=headers)


async def run(ws, *, binary=True):
    """Everything a command wrote: channel -> bytes."""
    found = {}
    async for message in ws:
        if binary:
            channel, data = message.data[0], message.data[1:]
        else:
            channel, data = int(message.data[0]), base64.b64decode(message.data[1:])
        found[channel] = found.get(channel, b"") + data
    return found


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_a_command_over_a_websocket(api, agent, pod, protocol):
    path = f"{POD}/exec?command=echo&command=hi&command=there&stdout=1&stderr=1"
    async with socket(api, path, protocol) as ws:
        assert ws.protocol == protocol
        found = await run(ws, binary="base64" not in protocol)
    assert found[1] == b"hi there\n"
    assert json.loads(found[3]) == {"metadata": {}, "status": "Success"}
    assert list(agent.starts[0].command) == ["echo", "hi", "there"]


async def test_old_protocols_have_no_status(api, pod):
    async with socket(api, f"{POD}/exec?command=fail&command=3&stdout=1&stderr=1", "channel.k8s.io") as ws:
        found = await run(ws)
    assert found[2] == b"it failed\n"
    assert b"exit status 3" in found[3]


async def test_exit_codes(api, pod):
    async with socket(api, f"{POD}/exec?command=fail&command=7&stdout=1&stderr=1", "v4.channel.k8s.io") as ws:
        status = json.loads((await run(ws))[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_a_command_that_cannot_start_says_why(api, pod):
    async with socket(api, f"{POD}/exec?command=abort&stdout=1", "v4.channel.k8s.io") as ws:
        status = json.loads((await run(ws))[3])
    assert (status["status"], status["message"]) == ("Failure", "container is not running")


async def test_a_node_that_cannot_be_reached_is_named(api, agent, pod):
    await agent.stop()
    async with socket(api, f"{POD}/exec?command=echo&stdout=1", "v5.channel.k8s.io") as ws:
        status = json.loads((await run(ws))[3])
    assert status["reason"] == "InternalError"
    assert status["message"].startswith("error dialing the agent of node n1: ")


async def test_input_resizes_and_end_of_input(api, agent, pod):
    path = f"{POD}/exec?command=cat&stdin=1&stdout=1&tty=1&stderr=1"
    async with socket(api, path, "v5.channel.k8s.io") as ws:
        await ws.send_bytes(b"\x04" + json.dumps({"Width": 80, "Height": 24}).encode())
        await ws.send_bytes(b"\x04not json")
        await ws.send_bytes(b"")
        await ws.send_bytes(b"\x09unknown channel")
        await ws.send_bytes(b"\x00hello")
        await ws.send_bytes(b"\xff\x00")
        found = await run(ws)
    assert found[1] == b"hello"
    assert agent.sizes == [(80, 24)]
    assert agent.starts[0].tty
    assert not agent.starts[0].stderr  # a terminal has one output


async def test_input_that_a_command_does_not_want_harms_nothing(api, pod):
    async with socket(api, f"{POD}/exec?command=head&command=3&stdin=1&stdout=1", "v5.channel.k8s.io") as ws:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                await ws.send_bytes(b"\0abcdef" + b"x" * 10_000)
        found = await run(ws)
    assert found[1] == b"abc"
    assert json.loads(found[3])["status"] == "Success"


async def test_a_client_that_leaves_ends_the_command(api, agent, pod):
    async with socket(api, f"{POD}/exec?command=hang&stdout=1", "v4.channel.k8s.io") as ws:
        await until(lambda: agent.starts)
        await ws.receive()
    await asyncio.wait_for(agent.cancelled.wait(), 5)


async def test_attach_sends_no_command(api, agent, pod):
    async with socket(api, f"{POD}/attach?stdout=1", "v4.channel.k8s.io") as ws:
        assert (await run(ws))[1] == b"attached\n"
    assert not agent.starts[0].command


@pytest.mark.parametrize(
    ("path", "headers", "code"),
    [
        ("exec?stdout=1", {}, 400),
        ("exec?command=x", {}, 400),
        ("exec?command=x&stdout=1", {}, 400),
        ("exec?command=x&stdout=1", {"Upgrade": "h2c", "Connection": "Upgrade"}, 400),
        ("exec?command=x&stdout=1&container=zz", {}, 400),
        ("portforward", {}, 400),
        (
            "exec?command=x&stdout=1",
            {"Upgrade": "SPDY/3.1", "Connection": "Upgrade", "X-Stream-Protocol-Version": "v9.channel.k8s.io"},
            403,
        ),
    ],
)
async def test_requests_that_cannot_become_streams_are_refused(api, pod, path, headers, code):
    await api.json("POST", f"{POD}/{path}", headers=headers, code=code)


@pytest.mark.parametrize("path", [f"{POD}/exec?command=x&stdout=1", f"{POD}/portforward?ports=80"])
async def test_unknown_websocket_protocols_are_refused(api, pod, path):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await socket(api, path, "v9.channel.k8s.io")
    assert refused.value.status == 400


class Spdy:
    """A client's SPDY connection, over raw TCP or inside a websocket."""

    def __init__(self, write, read):
        self._write = write
        self._read = read
        self._client = Client()
        self._framer = spdy.Framer()
        self._buffer = b""
        self.data = {}
        self.finished = set()
        self.frames = []

    async def open(self, stream, **headers):
        await self._write(self._client.open(stream, headers))

    async def send(self, stream, data, *, finished=False):
        await self._write(self._framer.data(stream, data, finished=finished))

    async def ping(self, number):
        await self._write(self._framer.ping(number))

    async def until(self, done):
        """Read frames until ``done()``; returns False if the connection ended first."""
        async with asyncio.timeout(10):
            while not done():
                if not (data := await self._read()):
                    return False
                self._buffer += data
                while len(self._buffer) >= 8:
                    first, rest = struct.unpack_from(">II", self._buffer)
                    length = rest & 0xFFFFFF
                    if len(self._buffer) < 8 + length:
                        break
                    payload, self._buffer = self._buffer[8 : 8 + length], self._buffer[8 + length :]
                    if first >> 31:
                        self.frames.append((first & 0xFFFF, payload))
                    else:
                        self.data[first] = self.data.get(first, b"") + payload
                        if rest >> 24 & 1:
                            self.finished.add(first)
        return True


@contextlib.asynccontextmanager
async def raw_spdy(api, path, protocol):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Authorization: Bearer admin", "Connection: Upgrade"]
    lines += ["Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {protocol}", "Content-Length: 0", "", ""]
    writer.write("\r\n".join(lines).encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert f"X-Stream-Protocol-Version: {protocol}".encode() in head

    async def write(data):
        writer.write(data)
        await writer.drain()

    yield Spdy(write, lambda: reader.read(65536))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("target", "handed"),
    [
        (f"{POD}/log", True),
        (f"{POD}/log/", True),
        (f"{POD}/exec?command=a", True),
        (f"{POD}/%65xec?command=a", True),
        (f"{POD}/proxy/a/b", True),
        (f"http://x{POD}/attach", True),
        (POD, False),
        ("/api/v1/namespaces/logging/pods?watch=1", False),
        ("/api/v1/namespaces/default/configmaps/proxy-settings", False),
    ],
)
def test_what_needs_a_connection_for_itself(target, handed):
    assert server._hands_over(parse_head(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())) is handed


async def test_a_command_may_be_long(api, agent, pod):
    path = f"{POD}/exec?command={'x' * 20_000}&stdout=1"
    async with raw_spdy(api, path, "v4.channel.k8s.io") as connection:
        for stream, kind in ((1, "error"), (3, "stdout")):
            await connection.open(stream, streamtype=kind)
        await until(lambda: agent.starts)
    assert len(agent.starts[0].command[0]) == 20_000


async def test_a_command_over_spdy(api, agent, pod):
    path = f"{POD}/exec?command=cat&stdin=1&stdout=1&stderr=1&tty=1"
    async with raw_spdy(api, path, "v4.channel.k8s.io") as connection:
        for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")):
            await connection.open(stream, streamtype=kind)
        await connection.ping(11)
        await connection.send(7, b'{"Width": 100, "Hei')
        await connection.send(7, b'ght": 50}\n{"Width":1,"Height":2}')
        await connection.send(3, b"x" * 200_000)
        await connection.until(lambda: len(connection.data.get(5, b"")) == 200_000)
        await until(lambda: len(agent.sizes) == 2)
        await connection.send(3, b"", finished=True)
        await connection.until(lambda: {1, 5} <= connection.finished)
    assert connection.data[5] == b"x" * 200_000
    assert json.loads(connection.data[1]) == {"metadata": {}, "status": "Success"}
    kinds = [kind for kind, _ in connection.frames]
    assert kinds.count(spdy.SYN_REPLY) == 4
    assert (spdy.PING, struct.pack(">I", 11)) in connection.frames
    assert agent.sizes == [(100, 50), (1, 2)]


async def test_a_spdy_client_that_leaves_ends_the_command(api, agent, pod):
    async with raw_spdy(api, f"{POD}/exec?command=hang&stdout=1", "v4.channel.k8s.io") as connection:
        await connection.open(1, streamtype="error")
        await connection.open(3, streamtype="stdout")
        await until(lambda: agent.starts)
    await asyncio.wait_for(agent.cancelled.wait(), 5)
    await until(lambda: not any("_handle_request" in repr(each.get_coro()) for each in asyncio.all_tasks()))


async def forward(connection, number, port, request="1"):
    await connection.open(number, streamtype="error", port=str(port), requestid=request)
    await connection.send(number, b"", finished=True)
    await connection.open(number + 2, streamtype="data", port=str(port), requestid=request)
    return number, number + 2


async def check_forwarding(connection):
    _, first = await forward(connection, 1, 80, "1")
    _, second = await forward(connection, 5, 8080, "2")
    await connection.send(first, b"one")
    await connection.send(second, b"two")
    await connection.until(lambda: connection.data.get(first) == b"ONE" and connection.data.get(second) == b"TWO")
    await connection.send(first, b"", finished=True)
    await connection.until(lambda: {1, 3} <= connection.finished)
    assert second not in connection.finished
    error, refused = await forward(connection, 9, 81, "3")
    await connection.until(lambda: {error, refused} <= connection.finished)
    assert b"connection refused" in connection.data[error]
    error, refused = await forward(connection, 13, 99999, "4")
    await connection.until(lambda: {error, refused} <= connection.finished)
    assert b"is not a port" in connection.data[error]


async def test_ports_over_spdy(api, pod):
    async with raw_spdy(api, f"{POD}/portforward", "portforward.k8s.io") as connection:
        await check_forwarding(connection)


async def test_ports_over_spdy_inside_a_websocket(api, pod):
    async with socket(api, f"{POD}/portforward", "SPDY/3.1+portforward.k8s.io") as ws:

        async def read():
            message = await ws.receive()
            return message.data if message.type is aiohttp.WSMsgType.BINARY else b""

        await check_forwarding(Spdy(ws.send_bytes, read))


async def test_ports_over_websocket_channels(api, pod):
    async with socket(api, f"{POD}/portforward?ports=80&ports=81", "v4.channel.k8s.io") as ws:
        greetings = {(await ws.receive()).data for _ in range(4)}
        assert greetings == {
            bytes([channel]) + struct.pack("<H", port) for channel, port in ((0, 80), (1, 80), (2, 81), (3, 81))
        }
        await ws.send_bytes(b"\x00text")
        found = {message.data[0]: message.data[1:] for message in [await ws.receive(), await ws.receive()]}
    assert found[0] == b"TEXT"
    assert b"connection refused" in found[3]


async def test_a_websocket_ends_when_the_pod_has_hung_up_on_every_port(api, pod):
    async with socket(api, f"{POD}/portforward?ports=82&ports=82", "v4.channel.k8s.io") as ws:
        greetings = {(await ws.receive_bytes())[0] for _ in range(4)}
        assert greetings == {0, 1, 2, 3}
        await ws.send_bytes(b"\0still talking")
        said = [message.data async for message in ws]
    assert sorted(said) == [b"\0bye", b"\2bye"]
    assert ws.close_code == 1000


async def test_a_port_over_spdy_is_done_when_the_pod_hangs_up_first(api, pod):
    """A client closes its own side only when both streams have ended."""
    async with raw_spdy(api, f"{POD}/portforward", "portforward.k8s.io") as connection:
        error, data = await forward(connection, 1, 82)
        await connection.until(lambda: {error, data} <= connection.finished)
    assert connection.data.get(data) == b"bye"
    assert not connection.data.get(error)


@pytest.mark.parametrize("query", ["", "ports=x", "ports=0", "ports=80,70000", "ports=" + ",".join(["1"] * 65)])
async def test_ports_that_make_no_sense_are_refused(api, pod, query):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await socket(api, f"{POD}/portforward?{query}", "v4.channel.k8s.io")
    assert refused.value.status == 400


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(junk=st.binary(min_size=1, max_size=200))
async def test_junk_after_the_upgrade_harms_nobody(api, pod, junk):
    async with raw_spdy(api, f"{POD}/portforward", "portforward.k8s.io") as connection:
        await connection._write(junk)
    await api.json("GET", POD)


class Frames:
    def __init__(self, *frames):
        self.frames = list(frames)

    async def read(self):
        return self.frames.pop(0) if self.frames else b""


class Sizes:
    def __init__(self):
        self.seen = []

    async def resize(self, width, height):
        self.seen.append((width, height))


async def test_sizes_come_in_pieces_and_what_is_none_is_not_gathered():
    sink, size = Sizes(), b'{"Width":80,"Height":24}'
    frames = Frames(size[:9], size[9:] + size, *[b"x" * 4096] * 3, size)
    await SpdyPeer(None, {}, "")._pump_sizes(frames, sink)
    assert sink.seen == [(80, 24)] * 3
