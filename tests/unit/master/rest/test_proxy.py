"""Requests passed on to pods, services and nodes, and their answers passed back."""

import asyncio
import gzip
import ssl

import aiohttp
import pytest
from aiohttp import web

from deploy.pki import Authority, Subject
from master.rest.pipes import SocketPipe
from master.rest.proxied_answers import chunks_of

POD = "/api/v1/namespaces/default/pods/web:8888/proxy"
SERVICE = "/api/v1/namespaces/default/services"


async def _echo(request):
    if request.path == "/stream":
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for part in (b"one ", b"two ", b"x" * 200_000):
            await response.write(part)
        return response
    if request.path == "/ws":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket
    if request.path == "/hop":
        about_us = {"Connection": "X-Secret", "X-Secret": "1", "Keep-Alive": "timeout=5", "Trailer": "X-Sum"}
        return web.Response(body=b"body", headers={"X-Kept": "2", **about_us})
    body = await request.read()
    seen = {key.lower(): value for key, value in request.headers.items()}
    told = {"method": request.method, "path": request.path_qs, "body": body.decode(), "headers": seen}
    return web.json_response(told, status=418 if request.path == "/teapot" else 200, headers={"X-Answer": "yes"})


@pytest.fixture
async def behind(agent):
    """An HTTP server that the fake agent reaches as port 8888 of every pod."""
    runner = web.ServerRunner(web.Server(_echo))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    agent.behind = runner.addresses[0][1]
    yield agent.behind
    await runner.cleanup()


async def test_method_path_query_and_body_reach_the_pod(api, pod, behind):
    headers = {"X-Mine": "1", "Impersonate-User": "boss", "Impersonate-Group": "system:masters"}
    told = await api.json("POST", f"{POD}/a%2Fb/c?x=1&y=a%20b", data=b"hello", headers=headers)
    assert (told["method"], told["path"], told["body"]) == ("POST", "/a%2Fb/c?x=1&y=a%20b", "hello")
    assert told["headers"]["x-mine"] == "1"
    assert "authorization" not in told["headers"], "our credentials are not for the pod"
    assert not [each for each in told["headers"] if each.startswith("impersonate-")]


async def test_what_is_about_one_connection_ends_here(api, pod, behind):
    headers = {
        "Connection": "close, X-Secret,  x-other",
        "X-Secret": "1",
        "X-Other": "2",
        "X-Kept": "3",
        "Keep-Alive": "timeout=5",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Upgrade": "h2c",  # asked for by nobody: Connection does not name it
    }
    told = await api.json("GET", f"{POD}/", headers=headers)
    left = {"x-secret", "x-other", "keep-alive", "proxy-connection", "te", "upgrade", "x-kept"} & told["headers"].keys()
    assert (left, told["headers"]["connection"]) == ({"x-kept"}, "close")
    async with api.ask("GET", f"{POD}/hop") as answer:
        assert (answer.status, await answer.read()) == (200, b"body")
        assert {"X-Kept", "X-Secret", "Keep-Alive", "Trailer"} & set(answer.headers) == {"X-Kept"}


async def raw_answers(reader, writer):
    """Answer every connection with hints, an answer that says two lengths, and fields for one connection alone."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    writer.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\nX-Length: 4\r\n\r\n"
        b"4\r\nbody\r\n0\r\n\r\n"
    )
    writer.close()


async def test_hints_are_passed_over_and_one_length_counts(api, pod, agent):
    async with await asyncio.start_server(raw_answers, "127.0.0.1", 0) as server:
        agent.behind = server.sockets[0].getsockname()[1]
        async with api.ask("GET", f"{POD}/") as answer:
            assert (answer.status, await answer.read(), answer.headers["X-Length"]) == (200, b"body", "4")
            assert answer.headers.get("Content-Length", "4") == "4"


async def switch(reader, writer):
    """Change the protocol for everybody, whatever they ask."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Secret\r\nUpgrade: echo\r\nX-Secret: 1\r\n"
        b"X-Kept: 2\r\n\r\n"
    )
    writer.write(await reader.read(100))
    writer.close()


async def test_an_upgrade_passes_and_nothing_else_of_the_connection(api, pod, agent):
    async with await asyncio.start_server(switch, "127.0.0.1", 0) as server:
        agent.behind = server.sockets[0].getsockname()[1]
        status = await api.json("GET", f"{POD}/", code=503)
        assert status["message"].endswith('it switched to "echo" when asked for ""')
        host, port = api.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            f"GET {POD}/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nConnection: upgrade\r\n"
            "Upgrade: echo\r\n\r\n".encode()
        )
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().lower()
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.read(100), 5) == b"ping"
        writer.close()
    assert head.startswith("http/1.1 101 ")
    assert "x-kept: 2" in head
    assert "upgrade: echo" in head
    assert "secret" not in head


async def test_the_answers_code_headers_and_length_come_back(api, pod, behind):
    async with api.ask("GET", f"{POD}/teapot") as answer:
        assert answer.status == 418
        assert answer.headers["X-Answer"] == "yes"
        assert (await answer.json())["path"] == "/teapot"


async def test_bodies_without_a_length_flow_both_ways(api, pod, behind):
    async with api.ask("GET", f"{POD}/stream") as answer:
        assert await answer.read() == b"one two " + b"x" * 200_000

    async def parts():
        yield b"a" * 70_000
        yield b"b"

    assert len((await api.json("PUT", f"{POD}/", data=parts()))["body"]) == 70_001


async def test_a_websocket_goes_through(api, pod, behind):
    async with api.session.ws_connect(f"{api.url}{POD}/ws", headers={"Authorization": "Bearer admin"}) as socket:
        await socket.send_str("hello")
        assert (await asyncio.wait_for(socket.receive(), 5)).data == "HELLO"


async def test_a_compressed_body_goes_through_as_it_is(api, pod, behind):
    headers = {"Content-Encoding": "gzip"}
    told = await api.json("POST", f"{POD}/", data=gzip.compress(b"hello" * 1000), headers=headers)
    assert told["body"] == "hello" * 1000
    assert told["headers"]["content-encoding"] == "gzip"


async def test_a_client_that_waits_for_a_word_gets_it(api, pod, behind):
    asking = api.json("POST", f"{POD}/", data=b"hello", headers={"Expect": "100-continue"})
    assert (await asyncio.wait_for(asking, 5))["body"] == "hello"


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b'{"metadata":{"name":"a"}}', mtime=0), gzip.compress(b"{}", mtime=0)[:9]],
    ids=["whole", "cut off"],
)
async def test_a_compressed_body_is_read_beside_an_upgrade_too(api, data):
    """Some clients offer to speak HTTP/2 with every request."""
    headers = {
        "Content-Encoding": "gzip",
        "Content-Type": "application/json",
        "Connection": "Upgrade",
        "Upgrade": "h2c",
    }
    async with api.ask("POST", "/api/v1/namespaces/default/configmaps", data=data, headers=headers) as answer:
        assert answer.status == (201 if len(data) > 9 else 400)


@pytest.fixture
async def behind_tls(agent, tmp_path):
    """The same server, with a certificate that nobody knows."""
    pair = Authority.create("stranger").issue(Subject("elsewhere", server=True))
    (tmp_path / "pem").write_bytes(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    runner = web.ServerRunner(web.Server(_echo))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    agent.behind = runner.addresses[0][1]
    yield
    await runner.cleanup()


async def test_tls_is_spoken_where_the_path_says_so(api, pod, behind_tls):
    secure = POD.replace("/web:", "/https:web:")
    body = b"x" * 300_000
    assert (await api.json("POST", f"{secure}/a", data=body))["body"] == body.decode()
    async with api.ask("GET", f"{secure}/stream") as answer:
        assert await answer.read() == b"one two " + b"x" * 200_000
    async with api.session.ws_connect(f"{api.url}{secure}/ws", headers={"Authorization": "Bearer admin"}) as socket:
        await socket.send_str("hello")
        assert (await asyncio.wait_for(socket.receive(), 5)).data == "HELLO"


async def test_tls_with_one_who_does_not_speak_it_is_an_answer(api, pod, behind):
    status = await api.json("GET", POD.replace("/web:", "/https:web:") + "/", code=503)
    assert status["message"].startswith("error trying to reach service: TLS: ")


async def test_relative_links_need_a_slash(api, pod, behind):
    async with api.ask("GET", f"{POD}?a=b", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, f"{POD}/?a=b")


async def test_a_service_leads_to_a_pod_that_is_ready(api, pod, behind):
    ports = [{"name": "http", "port": 80}, {"name": "other", "port": 81}]
    await api.create(SERVICE, {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    refused = await api.json("GET", f"{SERVICE}/web:http/proxy/", code=503)
    assert refused["message"] == 'no endpoints available for service "web"'
    address = {"ip": "10.0.0.9", "targetRef": {"kind": "Pod", "name": "web"}}
    subset = {"addresses": [address], "ports": [{"name": "http", "port": 8888}]}
    await api.create("/api/v1/namespaces/default/endpoints", {"metadata": {"name": "web"}, "subsets": [subset]})
    assert (await api.json("GET", f"{SERVICE}/web:http/proxy/x"))["path"] == "/x"
    assert (await api.json("GET", f"{SERVICE}/http:web:80/proxy/x"))["path"] == "/x"
    refused = await api.json("GET", f"{SERVICE}/web/proxy/", code=503)
    assert refused["message"] == 'no service port "" found for service "web"'


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "169.254.169.254"])
async def test_no_service_leads_to_the_master_itself(api, behind, address):
    await api.create(SERVICE, {"metadata": {"name": "me"}, "spec": {"ports": [{"port": 80}]}})
    subset = {"addresses": [{"ip": address}], "ports": [{"port": behind}]}
    await api.create("/api/v1/namespaces/default/endpoints", {"metadata": {"name": "me"}, "subsets": [subset]})
    assert (await api.json("GET", f"{SERVICE}/me/proxy/", code=400))["message"] == "address not allowed"


async def test_a_node_is_asked_itself(api, pod, behind, monkeypatch):
    dialled, here = [], SocketPipe.open

    async def open_here(host, port):
        dialled.append((host, port))
        return await here("127.0.0.1", port)

    monkeypatch.setattr(SocketPipe, "open", open_here)
    address = {"type": "InternalIP", "address": "192.0.2.7"}
    await api.create("/api/v1/nodes", {"metadata": {"name": "n2"}, "status": {"addresses": [address]}})
    assert (await api.json("GET", f"/api/v1/nodes/n2:{behind}/proxy/metrics"))["path"] == "/metrics"
    assert dialled == [("192.0.2.7", behind)]


async def test_the_agent_of_a_node_shows_its_own_pages(api, agent, pod):
    for name in ("n1", f"n1:{agent.port}"):
        async with api.ask("GET", f"/api/v1/nodes/{name}/proxy/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
            assert await answer.read() == b"one 1\ntwo 2\n"
    async with api.ask("GET", "/api/v1/nodes/n1/proxy/healthz") as answer:
        assert (answer.status, await answer.read()) == (503, b"the engine is down\n")
    status = await api.json("GET", "/api/v1/nodes/n1/proxy/secret", code=404)
    assert status["message"] == "the agent has no page /secret"
    await api.json("POST", "/api/v1/nodes/n1/proxy/metrics", code=405)
    await agent.stop()
    status = await api.json("GET", "/api/v1/nodes/n1/proxy/metrics", code=500)
    assert "error dialing the agent of node n1" in status["message"]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "somewhere.example"])
async def test_no_node_leads_to_the_master_itself(api, behind, address):
    told = [{"type": "InternalIP", "address": address}]
    await api.create("/api/v1/nodes", {"metadata": {"name": "n2"}, "status": {"addresses": told}})
    answer = await api.json("GET", f"/api/v1/nodes/n2:{behind}/proxy/metrics", code=400)
    assert answer["message"] == "address not allowed"


@pytest.mark.parametrize(
    ("path", "code", "why"),
    [
        (f"{POD}/".replace("8888", "81"), 503, "connection refused"),
        ("/api/v1/namespaces/default/pods/ftp:web:1/proxy/", 400, "the scheme is http or https"),
        ("/api/v1/namespaces/default/pods/web:x/proxy/", 400, "invalid port 'x'"),
        ("/api/v1/namespaces/default/pods/none/proxy/", 404, 'pods "none" not found'),
    ],
)
async def test_what_cannot_be_reached_is_told(api, pod, behind, path, code, why):
    assert why in (await api.json("GET", path, code=code))["message"]


async def test_nobody_is_asked_for_who_may_not(api, pod, behind):
    await api.json("GET", f"{POD}/", user="alice", code=403)


async def test_a_client_that_leaves_ends_the_request(api, pod, behind):
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": "Bearer admin"}
        async with session.get(f"{api.url}{POD}/stream", headers=headers) as answer:
            assert await answer.content.readexactly(4) == b"one "
    assert (await api.json("GET", f"{POD}/after"))["path"] == "/after"


class Parts:
    """What somebody answers, read after read; how much has been read is noted."""

    def __init__(self, *parts):
        self.parts = list(parts)
        self.taken = 0

    async def read(self):
        self.taken += 1
        return self.parts.pop(0) if self.parts else b""


async def chunks(*parts):
    return [each async for each in chunks_of(Parts(*parts), b"")]


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ([b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"], b"abcde"),
        ([b"3", b"\r", b"\na", b"bc", b"\r", b"\n0\r\n"], b"abc"),
        ([b"-5\r\nabc"], b""),
        ([b"x\r\nabc"], b""),
        ([b"\r\nabc"], b""),
    ],
)
async def test_chunks(parts, found):
    assert b"".join(await chunks(*parts)) == found


async def test_a_chunk_without_end_is_not_gathered():
    pipe = Parts(b"FFFFFFFFFF\r\n", *[b"x" * 1000] * 50)
    async for each in chunks_of(pipe, b""):
        assert each == b"x" * 1000
        assert pipe.taken == 2, "it is passed on before more is read"
        return


async def test_a_chunk_without_size_ends_the_answer():
    pipe = Parts(*[b"x" * 65536] * 50)
    assert [each async for each in chunks_of(pipe, b"")] == []
    assert pipe.taken < 5
