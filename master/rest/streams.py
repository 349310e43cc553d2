"""What a client talks through: a pod's log, commands in its containers, its ports. All of it is the node agent's."""

from collections.abc import Mapping

from aiohttp import web

from api.errors import BadRequest, NotFound, Unavailable
from api.kinds.core import Node
from api.kinds.pods import Pod
from master.rest import exec as commands
from master.rest.logs import read_request, serve_logs
from master.rest.node_agents import NodeAgents
from master.rest.parameters import read_bool
from master.rest.portforward import Forwarder
from master.rest.proxy import Proxy
from master.rest.seam import Registry
from master.rest.upgradable import Call
from master.rest.watch import OpenStreams
from trireme_pb.node import node_pb2

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


class Streams:
    """Serves log, exec, attach and portforward of pods."""

    def __init__(self, registry: Registry, agents: NodeAgents | None, streams: OpenStreams) -> None:
        self._registry = registry
        self._agents = agents
        self._streams = streams

    async def serve(self, call: Call) -> web.StreamResponse:
        """Find pod and node, then join client and node agent."""
        if self._agents is None:
            raise Unavailable("this server reaches no node agents")
        target = call.target
        if target.subresource == "proxy":
            return await Proxy(self._registry, self._agents).serve(call)
        stored = await self._registry.get(target.kind, namespace=target.namespace, name=target.name)
        pod = stored.obj
        assert isinstance(pod, Pod), target.kind
        match target.subresource:
            case "log":
                wanted = read_request(call.query, self._container(pod, call.query))
                stub = await self._agents.stub(await self._node(pod))
                node = pod.spec.node_name
                return await serve_logs(
                    call.request, stub, wanted, node=node, headers=call.headers, streams=self._streams
                )
            case "portforward":
                _check_running(pod)
                stub = await self._agents.stub(await self._node(pod))
                forwarder = Forwarder(stub, namespace=target.namespace, pod=target.name, node=pod.spec.node_name)
                return await forwarder.serve(call.request)
        _check_running(pod)
        start = self._start(call, pod)
        stub = await self._agents.stub(await self._node(pod))
        return await commands.serve_command(call.request, stub, start, node=pod.spec.node_name)

    def _start(self, call: Call, pod: Pod) -> node_pb2.ExecStart:
        stdin, stdout, stderr, tty = (read_bool(call.query, name) for name in ("stdin", "stdout", "stderr", "tty"))
        if not (stdin or stdout or stderr):
            raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
        command = call.request.rel_url.query.getall("command", [])
        if call.target.subresource == "exec" and not any(command):
            raise BadRequest("you must specify at least one command")
        return node_pb2.ExecStart(
            target=self._container(pod, call.query),
            command=command if call.target.subresource == "exec" else [],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr and not tty,  # a terminal has one output
            tty=tty,
        )

    async def _node(self, pod: Pod) -> Node:
        name = pod.spec.node_name
        if not name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        kind = self._registry.table.of(Node)
        try:
            stored = await self._registry.get(kind, namespace="", name=name, resource_version="0")
        except NotFound:
            raise NotFound(f'node "{name}" of pod {pod.metadata.name} not found', kind="nodes", name=name) from None
        assert isinstance(stored.obj, Node)
        return stored.obj

    def _container(self, pod: Pod, query: Mapping[str, str]) -> node_pb2.ContainerRef:
        name = query.get("container", "")
        spec = pod.spec
        containers = [each.name for each in spec.containers]
        others = [each.name for each in spec.init_containers] + [each.name for each in spec.ephemeral_containers]
        if not name:
            name = pod.metadata.annotations.get(DEFAULT_CONTAINER, "")
            if name not in containers:
                name = containers[0] if len(containers) == 1 else ""
            if not name:
                shown = f"a container name must be specified for pod {pod.metadata.name}, choose one of: "
                init = f" or one of the init containers: [{' '.join(others)}]" if others else ""
                raise BadRequest(f"{shown}[{' '.join(containers)}]{init}")
        elif name not in containers and name not in others:
            raise BadRequest(f"container {name} is not valid for pod {pod.metadata.name}")
        meta = pod.metadata
        return node_pb2.ContainerRef(namespace=meta.namespace, pod=meta.name, container=name, pod_uid=meta.uid)


def _check_running(pod: Pod) -> None:
    if pod.status.phase in ("Succeeded", "Failed"):
        what = f"cannot exec into a container in a completed pod; current phase is {pod.status.phase}"
        raise BadRequest(what)
