"""What a master asks of a node while pods run: logs, exec, attach, port-forward, figures; over gRPC."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from node_agent.server import NodeAgentService, serve
from tests.docker.agents import IMAGE, SLEEP, Lab, lab, shell, tools_image
from trireme_pb.node import node_pb2, node_pb2_grpc

pytestmark = pytest.mark.docker
__all__ = ["lab", "tools_image"]


class Master:
    """A master's view of the node, over a socket file: network namespaces do not matter there."""

    def __init__(self, stub: node_pb2_grpc.NodeAgentStub) -> None:
        self.stub = stub

    def ref(self, pod: str, container: str = "") -> node_pb2.ContainerRef:
        return node_pb2.ContainerRef(namespace="default", pod=pod, container=container)

    async def logs(self, pod: str, **options: object) -> bytes:
        call = self.stub.Logs(node_pb2.LogsRequest(target=self.ref(pod), **options))
        return b"".join([chunk.data async for chunk in call])

    async def exec(
        self, pod: str, command: list[str], *, stdin: list[node_pb2.ExecInput] | None = None, tty: bool = False
    ) -> tuple[bytes, bytes, int]:
        async def requests() -> AsyncIterator[node_pb2.ExecInput]:
            start = node_pb2.ExecStart(target=self.ref(pod), command=command, stdin=stdin is not None, tty=tty)
            yield node_pb2.ExecInput(start=start)
            for each in stdin or []:
                yield each
            await asyncio.sleep(0 if stdin is not None else 3600)

        out, err, code = b"", b"", -1
        call = self.stub.Exec(requests())
        async for part in call:
            match part.WhichOneof("output"):
                case "stdout":
                    out += part.stdout
                case "stderr":
                    err += part.stderr
                case "exit_code":
                    code = part.exit_code
                    break  # a master ends the call when it knows how the command ended
        call.cancel()
        return out, err, code


def run(lab: Lab, scenario: object) -> None:
    async def main(lab: Lab) -> None:
        async with lab.agent() as agent:
            service = NodeAgentService(agent._manager, agent._runtime, agent._statistics, {}, secure=False)
            address = f"unix:{lab.directory}/node.sock"
            stop = await serve(service, address, None)
            try:
                async with grpc.aio.insecure_channel(address) as channel:
                    await scenario(lab, Master(node_pb2_grpc.NodeAgentStub(channel)))
            finally:
                await stop()

    lab.run(main)


def test_logs(lab: Lab) -> None:
    async def scenario(lab: Lab, master: Master) -> None:
        script = "if [ -e /work/again ]; then echo second; else touch /work/again; echo first; exit 1; fi; " + SLEEP
        mounts = [{"name": "work", "mountPath": "/work"}]
        await lab.create(
            "talker",
            {"containers": [shell(script, volumeMounts=mounts)], "volumes": [{"name": "work", "emptyDir": {}}]},
        )
        await lab.until(lambda: (s := lab.pod("talker").status.container_statuses) and s[0].restart_count == 1)
        await lab.ready("talker")
        assert await master.logs("talker") == b"second\n"
        assert await master.logs("talker", previous=True) == b"first\n"
        stamped = await master.logs("talker", timestamps=True)
        assert stamped.endswith(b"Z second\n")
        assert await master.logs("talker", limit_bytes=3) == b"sec"
        assert await master.logs("talker", tail_lines=0) == b""
        follow = master.stub.Logs(node_pb2.LogsRequest(target=master.ref("talker"), follow=True))
        assert (await follow.read()).data == b"second\n"
        await lab.delete("talker")
        assert await follow.read() is grpc.aio.EOF
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await master.logs("talker")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    run(lab, scenario)


def test_exec_and_attach(lab: Lab) -> None:
    async def scenario(lab: Lab, master: Master) -> None:
        await lab.create("box", {"containers": [shell("while read line; do echo got $line; done", stdin=True)]})
        await lab.ready("box")
        out, err, code = await master.exec("box", ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (out, err, code) == (b"out\n", b"err\n", 7)
        stdin = [node_pb2.ExecInput(stdin=b"hello"), node_pb2.ExecInput(stdin_closed=True)]
        assert await master.exec("box", ["/bin/cat"], stdin=stdin) == (b"hello", b"", 0)
        large = [node_pb2.ExecInput(stdin=b"x" * 60_000)] * 20 + [node_pb2.ExecInput(stdin_closed=True)]
        out, _, _ = await master.exec("box", ["/bin/sh", "-c", "wc -c; head -c 300000 /dev/zero"], stdin=large)
        assert out == b"1200000\n" + b"\0" * 300_000
        resize = [node_pb2.ExecInput(resize=node_pb2.TerminalSize(width=91, height=33))]
        script = ["/bin/sh", "-c", "until stty size 2>&1 | grep -q '33 91'; do :; done; echo sized; exit 4"]
        out, _, code = await master.exec("box", script, stdin=[*resize, node_pb2.ExecInput(stdin=b"")], tty=True)
        assert out.endswith(b"sized\r\n")
        assert code == 4
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await master.exec("nobody", ["/bin/true"])
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        out, _, _ = await master.exec("box", ["/no/such/program"])
        assert b"no such file" in out

        async def typed() -> AsyncIterator[node_pb2.ExecInput]:
            yield node_pb2.ExecInput(start=node_pb2.ExecStart(target=master.ref("box"), stdin=True))
            yield node_pb2.ExecInput(stdin=b"one\n")
            await asyncio.sleep(3600)

        attached = master.stub.Exec(typed())
        assert (await attached.read()).stdout == b"got one\n"
        attached.cancel()

        async def typed_and_ended() -> AsyncIterator[node_pb2.ExecInput]:
            yield node_pb2.ExecInput(start=node_pb2.ExecStart(target=master.ref("box"), stdin=True))
            yield node_pb2.ExecInput(stdin_closed=True)
            async for each in typed():
                if each.WhichOneof("input") != "start":
                    yield each

        # One client's end of input is not the process's: it goes on reading, and we hearing.
        attached = master.stub.Exec(typed_and_ended())
        assert (await attached.read()).stdout == b"got one\n"
        attached.cancel()

    run(lab, scenario)


def test_port_forward_reaches_the_loopback_of_the_pod(lab: Lab) -> None:
    async def scenario(lab: Lab, master: Master) -> None:
        server = {"name": "web", "image": IMAGE, "command": ["/bin/httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/www"]}
        await lab.create("inward", {"containers": [server]})
        await lab.ready("inward")

        async def requests(port: int) -> AsyncIterator[node_pb2.PortForwardData]:
            start = node_pb2.PortForwardStart(namespace="default", pod="inward", port=port)
            yield node_pb2.PortForwardData(start=start)
            yield node_pb2.PortForwardData(data=b"GET /healthz HTTP/1.0\r\n\r\n")
            await asyncio.sleep(3600)

        async def fetch(port: int) -> bytes:
            call, found = master.stub.PortForward(requests(port)), b""
            async for part in call:
                found += part.data
                if part.closed:
                    break
            assert part.closed
            call.cancel()
            return found

        for _ in range(50):
            try:
                answer = await fetch(8080)
                break
            except grpc.aio.AioRpcError as refused:  # it is running, and listens a moment later
                assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017 - then it is tried again
                await asyncio.sleep(0.05)
        assert answer.endswith(b"ok\n")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await fetch(9)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "refused" in refused.value.details()

    run(lab, scenario)


def test_figures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node_agent.program._SAMPLE_S", 0.3)

    async def scenario(lab: Lab, master: Master) -> None:
        await lab.create("busy", {"containers": [shell("while :; do :; done")]})
        await lab.ready("busy")
        for _ in range(100):
            await asyncio.sleep(0.1)
            try:
                stats = await master.stub.Stats(node_pb2.StatsRequest())
            except grpc.aio.AioRpcError as refused:
                assert refused.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - then it is tried again
                continue
            if stats.containers:
                break
        (container,) = stats.containers
        assert container.container.pod == "busy"
        assert container.cpu_cores > 0.05
        assert 0 < container.memory_working_set_bytes < 50_000_000
        assert stats.node_memory_working_set_bytes > container.memory_working_set_bytes
        reader, writer = await asyncio.open_connection("127.0.0.1", 10255)
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        assert 'container_memory_working_set_bytes{container="main",namespace="default",pod="busy"}' in text

    run(lab, scenario)
