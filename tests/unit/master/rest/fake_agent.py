"""A node agent in this process: echoes, counts and fails as the first word of a command says."""

import asyncio

import grpc

from trireme_pb.node import node_pb2, node_pb2_grpc


class FakeAgent(node_pb2_grpc.NodeAgentServicer):
    """Speaks ``proto/node`` on a free port."""

    def __init__(self):
        self.port = 0
        self.logs = []  # requests seen
        self.starts = []
        self.sizes = []
        self.cancelled = asyncio.Event()
        self.behind = 0  # the port of a server in this process
        self.server = grpc.aio.server()
        node_pb2_grpc.add_NodeAgentServicer_to_server(self, self.server)

    async def start(self):
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()

    async def stop(self):
        await self.server.stop(None)

    async def Logs(self, request, context):  # noqa: N802 - the name of the call
        self.logs.append(request)
        if request.target.pod == "sleepy":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'container "a" is waiting to start')
        lines = [f"line {number}\n".encode() for number in range(5)]
        if request.HasField("tail_lines"):
            lines = lines[len(lines) - request.tail_lines :]
        for line in lines:
            yield node_pb2.Chunk(data=line)
        try:
            number = 5
            while request.follow:
                await asyncio.sleep(0.05)
                yield node_pb2.Chunk(data=f"line {number}\n".encode())
                number += 1
        finally:
            if request.follow:
                self.cancelled.set()

    async def Exec(self, requests, context):  # noqa: N802
        start = (await anext(aiter(requests))).start
        self.starts.append(start)
        word, *rest = [*start.command] or ["attached"]
        if word != "abort":
            await context.send_initial_metadata(())
        match word:
            case "echo":
                yield node_pb2.ExecOutput(stdout=(" ".join(rest) + "\n").encode())
            case "fail":
                yield node_pb2.ExecOutput(stderr=b"it failed\n")
                yield node_pb2.ExecOutput(exit_code=int(rest[0]))
                return
            case "head":
                data = (await anext(aiter(requests))).stdin
                yield node_pb2.ExecOutput(stdout=data[: int(rest[0])])
                yield node_pb2.ExecOutput(exit_code=0)
                async for _ in requests:  # until the master ends the call
                    pass
                return
            case "abort":
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "container is not running")
            case "cat":
                async for message in requests:
                    match message.WhichOneof("input"):
                        case "stdin":
                            yield node_pb2.ExecOutput(stdout=message.stdin)
                        case "stdin_closed":
                            break
                        case "resize":
                            self.sizes.append((message.resize.width, message.resize.height))
            case "big":
                for _ in range(int(rest[0])):
                    yield node_pb2.ExecOutput(stdout=b"x" * 65536)
            case "hang":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case _:
                yield node_pb2.ExecOutput(stdout=f"{word}\n".encode())
        yield node_pb2.ExecOutput(exit_code=0)

    async def Page(self, request, context):  # noqa: N802
        """Show a page in two parts; the agent is not well at /healthz."""
        if request.path == "/healthz":
            yield node_pb2.PagePart(data=b"the engine is down\n")
        elif request.path == "/metrics":
            yield node_pb2.PagePart(content_type="text/plain; version=0.0.4", data=b"one 1\n")
            yield node_pb2.PagePart(data=b"two 2\n")
        else:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"the agent has no page {request.path}")

    async def PortForward(self, requests, context):  # noqa: N802
        """Answer each chunk in capitals; port 81 refuses, port 8888 leads to ``self.behind`` of this machine."""
        start = (await anext(aiter(requests))).start
        if start.port != 81:
            await context.send_initial_metadata(())
        if start.port == 82:  # says one word and hangs up
            yield node_pb2.PortForwardData(data=b"bye")
            yield node_pb2.PortForwardData(closed=True)
            async for _ in requests:  # until the master ends the call
                pass
            return
        if start.port == 8888:
            async for answer in self._bridge(requests):
                yield answer
            return
        if start.port == 81:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "connection refused")
        async for message in requests:
            match message.WhichOneof("content"):
                case "data":
                    yield node_pb2.PortForwardData(data=message.data.upper())
                case "closed":
                    break
        yield node_pb2.PortForwardData(closed=True)

    async def _bridge(self, requests):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.behind)

        async def up():
            async for message in requests:
                if message.WhichOneof("content") == "data":
                    writer.write(message.data)

        task = asyncio.create_task(up())
        try:
            while data := await reader.read(65536):
                yield node_pb2.PortForwardData(data=data)
            yield node_pb2.PortForwardData(closed=True)
        finally:
            task.cancel()
            writer.close()
