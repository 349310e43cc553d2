"""Probes: thresholds, and when they are tried."""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from typing import Self

import msgspec
import pytest

from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import HTTPGetAction, LifecycleHandler, Probe
from node_agent.pods.checks import Verdict, check_http, check_tcp, resolve_port
from node_agent.pods.hooks import HookFailed, run_hook
from node_agent.pods.probes import Counter, Prober, extra_tries
from node_agent.runtime.hollow import HollowRuntime
from tests.unit.node_agent.pods.situations import instance, pod


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ("", None),
        ("+", None),
        ("++", True),
        ("-", None),
        ("+-+", None),
        ("++-", True),
        ("++--", True),
        ("++---", False),
        ("---+", False),
        ("---++", True),
        ("--+--", None),
    ],
)
def test_thresholds(results: str, *, verdict: bool | None) -> None:
    counter = Counter(success_threshold=2, failure_threshold=3)
    for result in results:
        counter = counter.after(ok=result == "+")
    assert counter.verdict is verdict


def test_extra_tries_stay_within_the_first_period() -> None:
    pauses = list(extra_tries(10))
    assert sum(pauses) < 10
    assert len(pauses) < 15
    assert pauses == sorted(pauses)


class Probed:
    """One running container whose probes answer as told, on a loop whose sleeps take no time."""

    def __init__(self, answers: dict[str, Iterable[bool]], probes: dict[str, dict[str, int]]) -> None:
        self.answers = {kind: iter(each) for kind, each in answers.items()}
        self.tries = dict.fromkeys(answers, 0)
        self.recorded: list[str] = []
        self.changed = asyncio.Event()
        spec = {"name": "main", "image": "i"}
        for kind, fields in probes.items():
            spec[f"{kind}Probe"] = {"httpGet": {"port": 1, "path": kind}, **fields}  # type: ignore[assignment]
        self.pod = pod(spec)
        self.container = instance()
        self.prober = Prober(
            self.ask, on_change=self.changed.set, record=lambda _, __, message: self.recorded.append(message)
        )
        self.prober.sync(self.pod, [self.container], "10.0.0.1")

    async def ask(self, probe: Probe, container: ContainerSpec, container_id: str, pod_ip: str, /) -> Verdict:
        kind = probe.http_get.path
        self.tries[kind] += 1
        answer = next(self.answers[kind], None)
        if answer is None:
            await asyncio.Event().wait()
        return Verdict(bool(answer), "no")

    @property
    def health(self):
        return self.prober.health([self.container])["main-0"]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The probes' sleeps, which take no time."""
    pauses: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    monkeypatch.setattr("node_agent.pods.probes.asyncio.sleep", sleep)
    return pauses


async def test_the_first_success_counts_at_once(slept: list[float]) -> None:
    probed = Probed({"readiness": [False, False, True]}, {"readiness": {"periodSeconds": 10}})
    assert not probed.health.ready
    await probed.until(lambda: probed.health.ready)
    assert probed.tries["readiness"] == 3
    assert sum(slept[:3]) < 1
    assert probed.recorded == []  # tries in between are nobody's failure
    probed.prober.stop()


async def test_liveness_fails_after_its_threshold(slept: list[float]) -> None:
    fields = {"periodSeconds": 5, "failureThreshold": 3, "terminationGracePeriodSeconds": 7}
    probed = Probed({"liveness": [True, False, True, False, False, False]}, {"liveness": fields})
    await probed.until(lambda: bool(probed.health.failed))
    assert probed.tries["liveness"] == 6
    assert probed.health.failed == "Container main failed liveness probe, will be restarted"
    assert probed.prober.grace_override("main-0") == 7
    assert len(probed.recorded) == 4
    probed.prober.stop()


async def test_startup_holds_the_others_back(slept: list[float]) -> None:
    probed = Probed(
        {"startup": [False] * 4 + [True], "readiness": [True], "liveness": []},
        {kind: {"periodSeconds": 1, "failureThreshold": 30} for kind in ("startup", "readiness", "liveness")},
    )
    assert not probed.health.started
    assert probed.tries["readiness"] == 0
    await probed.until(lambda: probed.health.started and probed.health.ready)
    assert probed.tries["startup"] == 5
    probed.prober.stop()


async def test_startup_fails_for_good(slept: list[float]) -> None:
    probed = Probed({"startup": itertools.repeat(False, 40)}, {"startup": {"periodSeconds": 1, "failureThreshold": 4}})
    await probed.until(lambda: bool(probed.health.failed))
    assert "failed startup probe" in probed.health.failed
    assert len(probed.recorded) == 4
    probed.prober.stop()


async def test_a_container_that_ended_is_probed_no_more(slept: list[float]) -> None:
    probed = Probed({"readiness": [True]}, {"readiness": {"periodSeconds": 1}})
    await probed.until(lambda: probed.health.ready)
    probed.prober.sync(probed.pod, [], "10.0.0.1")
    assert probed.prober.health([probed.container]) == {}


async def serve(answer: bytes) -> tuple[asyncio.Server, int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        except asyncio.IncompleteReadError:
            pass  # who only connects asks nothing
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "ok", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.0 299 x\r\n\r\n", True, ""),
        (b"HTTP/1.0 399 x\r\n\r\n", True, ""),
        (b"HTTP/1.1 500 Oops\r\n\r\n", False, "HTTP probe failed with statuscode: 500"),
        (b"SSH-2.0\r\n", False, "malformed HTTP response"),
        (b"", False, "EOF"),
    ],
)
async def test_http(answer: bytes, message: str, *, ok: bool) -> None:
    server, port = await serve(answer)
    action = msgspec.convert({"httpGet": {"port": port, "path": "/x"}}, Probe).http_get
    verdict = await check_http(action, ContainerSpec(name="c"), "127.0.0.1")
    assert verdict.ok == ok
    assert message in verdict.message
    server.close()


PAGES = {
    "/to-good": b"HTTP/1.1 302 Found\r\nLocation: /good\r\n\r\n",
    "/to-bad": b"HTTP/1.1 302 Found\r\nLocation: bad\r\n\r\n",
    "/away": b"HTTP/1.1 302 Found\r\nLocation: http://0.0.0.0/good\r\nContent-Length: 5\r\n\r\nFoundMORE",
    "/endless": b"HTTP/1.1 302 Found\r\nLocation: /endless\r\n\r\n",
    "/good": b"HTTP/1.1 200 OK\r\n\r\n",
    "/bad": b"HTTP/1.1 404 Not Found\r\n\r\n",
}


class Site:
    """A server of ``PAGES`` that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        writer.write(PAGES[request.split()[1]])
        writer.close()

    def action(self, path: str, *headers: tuple[str, str]) -> HTTPGetAction:
        named = [{"name": name, "value": value} for name, value in headers]
        return msgspec.convert({"port": self.port, "path": path, "httpHeaders": named}, HTTPGetAction)


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("/to-good", Verdict(ok=True)),
        ("/to-bad", Verdict(ok=False, message="HTTP probe failed with statuscode: 404")),
        ("/away", Verdict(ok=True, warning="Found")),
        ("/endless", Verdict(ok=False, message="stopped after 10 redirects")),
    ],
)
async def test_redirects_are_followed_at_the_same_host(path: str, verdict: Verdict) -> None:
    async with Site() as site:
        found = await check_http(site.action(path), ContainerSpec(name="c"), "127.0.0.1")
    assert (found.ok, found.warning) == (verdict.ok, verdict.warning)
    assert verdict.message in found.message


async def test_headers_of_a_probe_replace_ours() -> None:
    async with Site() as site:
        asked = (("host", "web.example"), ("accept", ""), ("X-Probe", "1"))
        await check_http(site.action("/to-good", *asked), ContainerSpec(name="c"), "127.0.0.1")
    assert len(site.requests) == 2
    for request in site.requests:
        lines = request.lower().splitlines()
        assert {"host: web.example", "user-agent: kube-probe/1.0", "x-probe: 1"} < set(lines)
        assert not [line for line in lines if line.startswith("accept") or "127.0.0.1" in line]


async def test_a_hook_that_is_answered_has_been_called() -> None:
    async with Site() as site:
        handler = LifecycleHandler(http_get=site.action("/bad"))
        await run_hook(handler, ContainerSpec(name="c"), "id", "127.0.0.1", HollowRuntime())
    with pytest.raises(HookFailed, match="Connect call failed"):
        await run_hook(handler, ContainerSpec(name="c"), "id", "127.0.0.1", HollowRuntime())


async def test_tcp() -> None:
    server, port = await serve(b"")
    action = msgspec.convert({"tcpSocket": {"port": port}}, Probe).tcp_socket
    assert (await check_tcp(action, ContainerSpec(name="c"), "127.0.0.1")).ok
    server.close()
    await server.wait_closed()
    refused = await check_tcp(action, ContainerSpec(name="c"), "127.0.0.1")
    assert (refused.ok, "connection refused" in refused.message) == (False, True)


def test_ports_by_name() -> None:
    container = msgspec.convert({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}, ContainerSpec)
    assert [resolve_port(p, container) for p in (1, "2", "http")] == [1, 2, 8080]
    with pytest.raises(ValueError, match="no port named 'x'"):
        resolve_port("x", container)
