"""The proxy subresource of pods, services and nodes: an HTTP request passed on to whom the path names, and its answer.

A pod's ports are reached through its node's agent, as ``kubectl port-forward`` reaches them: a master need have no
route into the pod network. Source: kubernetes.io, "Access Services Running on Clusters".
"""

import asyncio
import ipaddress
import random
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import grpc
from aiohttp import web

from api.errors import BadRequest, InternalError, MethodNotAllowed, NotFound, Unavailable
from api.kinds.core import Endpoints, Node, Service
from api.kinds.pods import Pod
from master.rest.agent_errors import refusal
from master.rest.duplex import TakenOver, take_over
from master.rest.hops import end_to_end, hop, upgrade_of
from master.rest.node_agents import NodeAgents, Stub, address_of
from master.rest.pipes import AgentPipe, Pipe, SocketPipe, TlsPipe
from master.rest.proxied_answers import Answer, body_of, read_answer, read_or_end
from master.rest.proxied_pages import Page, is_readable, rewritten
from master.rest.seam import Registry
from master.rest.upgradable import Call, UpgradableRequest
from trireme_pb.node import node_pb2

# What we say ourselves of the request that we make, and credentials, which are for us alone.
_OURS = ("authorization", "content-length", "expect", "host")
# What is about an answer's bytes, which change with its links.
_OF_BYTES = ("content-length", "content-encoding", "content-md5", "digest")


class _Name(NamedTuple):
    """``[scheme:]name[:port]`` of a proxied path."""

    scheme: str
    name: str
    port: str


def parse_name(text: str) -> _Name:
    """Return the parts of a proxied name; raises BadRequest."""
    parts = text.split(":")
    match parts:
        case [name]:
            found = _Name("http", name, "")
        case [name, port]:
            found = _Name("http", name, port)
        case [scheme, name, port]:
            found = _Name(scheme or "http", name, port)
        case _:
            raise BadRequest(f"invalid proxy name {text!r}: use name, name:port or scheme:name:port")
    if found.scheme not in ("http", "https"):
        raise BadRequest(f"invalid proxy name {text!r}: the scheme is http or https")
    return found


def _number(text: str, *, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65536):
        raise BadRequest(f"invalid port {text!r}")
    return int(text)


class Proxy:
    """Passes requests on."""

    def __init__(self, registry: Registry, agents: NodeAgents) -> None:
        self._registry = registry
        self._agents = agents

    async def serve(self, call: Call) -> web.StreamResponse:
        """Answer with what the pod, service or node answers."""
        way = _way(call)
        if not way and call.request.method in ("GET", "HEAD"):
            # Relative links of a page need the slash.
            query = f"?{call.request.rel_url.raw_query_string}" if call.request.rel_url.raw_query_string else ""
            location = f"{call.request.rel_url.raw_path}/{query}"
            return web.Response(status=301, headers={"Location": location, **call.headers})
        if (node := await self._own_pages(call)) is not None:
            return await _show_page(call, await self._agents.stub(node), node.metadata.name, way or "/")
        wanted = parse_name(call.target.name)
        pipe = await self._pipe(call)
        try:
            if wanted.scheme == "https":
                pipe = await TlsPipe.open(pipe, wanted.name)
            return await _pass_on(call, pipe, way or "/")
        finally:
            pipe.close()

    async def _own_pages(self, call: Call) -> Node | None:
        """Return the node if the agent itself is asked: its pages are read over the connection that masters have."""
        target = call.target
        if target.kind.plural != "nodes":
            return None
        wanted = parse_name(target.name)
        node = (await self._registry.get(target.kind, namespace="", name=wanted.name)).obj
        assert isinstance(node, Node), target.kind
        return node if not wanted.port or wanted.port == address_of(node).rpartition(":")[2] else None

    async def _pipe(self, call: Call) -> Pipe:
        target = call.target
        wanted = parse_name(target.name)
        stored = await self._registry.get(target.kind, namespace=target.namespace, name=wanted.name)
        match stored.obj:
            case Pod() as pod:
                ports = [port.container_port for each in pod.spec.containers for port in each.ports]
                return await self._to_pod(pod, _number(wanted.port, default=ports[0] if ports else 80))
            case Service() as service:
                return await self._to_service(service, wanted.port)
            case Node() as node:
                address = next((each.address for each in node.status.addresses if each.type == "InternalIP"), "")
                if not address:
                    raise BadRequest(f"node {wanted.name} has no InternalIP yet")
                return await SocketPipe.open(_checked(address), _number(wanted.port, default=0))
        raise InternalError(f"{target.kind.plural} cannot be proxied")

    async def _to_pod(self, pod: Pod, port: int) -> Pipe:
        if not pod.spec.node_name:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        kind = self._registry.table.of(Node)
        node = (await self._registry.get(kind, namespace="", name=pod.spec.node_name, resource_version="0")).obj
        assert isinstance(node, Node)
        return await AgentPipe.open(await self._agents.stub(node), pod, port)

    async def _to_service(self, service: Service, port: str) -> Pipe:
        meta, spec = service.metadata, service.spec
        if not port and len(spec.ports) != 1:
            raise Unavailable(f'no service port "{port}" found for service "{meta.name}"')
        chosen = [each for each in spec.ports if not port or port in (each.name, str(each.port))]
        if not chosen:
            raise Unavailable(f'no service port "{port}" found for service "{meta.name}"')
        addresses = await self._addresses(service, chosen[0].name)
        if not addresses:
            raise Unavailable(f'no endpoints available for service "{meta.name}"')
        address, number = random.choice(addresses)  # noqa: S311 - spreads load, hides nothing
        reference = address.target_ref
        if reference is None or reference.kind != "Pod":
            return await SocketPipe.open(_checked(address.ip), number)
        kind = self._registry.table.of(Pod)
        pod = (await self._registry.get(kind, namespace=meta.namespace, name=reference.name)).obj
        assert isinstance(pod, Pod)
        return await self._to_pod(pod, number)

    async def _addresses(self, service: Service, port: str) -> Sequence[tuple[Any, int]]:
        """Return (address, port number) of everything that is ready to answer for a service's port."""
        meta = service.metadata
        kind = self._registry.table.of(Endpoints)
        try:
            found = (await self._registry.get(kind, namespace=meta.namespace, name=meta.name)).obj
        except NotFound:
            return ()
        assert isinstance(found, Endpoints)
        return [
            (address, each.port)
            for subset in found.subsets
            for each in subset.ports
            if each.name == port
            for address in subset.addresses
        ]


def _checked(address: str) -> str:
    """Return an address that somebody wrote into an object; raises BadRequest for those that lead to ourselves."""
    try:
        found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    except ValueError:
        raise BadRequest("address not allowed") from None
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast:
        raise BadRequest("address not allowed")
    return address


def _root(call: Call) -> str:
    """Return the path of the proxy itself, as the client wrote it: up to ``/proxy``."""
    depth = 8 if call.target.namespace else 6  # "", api, v1, [namespaces, <namespace>,] plural, name, proxy
    return "/".join(call.request.rel_url.raw_path.split("/")[:depth])


def _way(call: Call) -> str:
    """Return the path to ask for, as the client wrote it: what follows ``/proxy``."""
    return call.request.rel_url.raw_path.removeprefix(_root(call))


async def _show_page(call: Call, stub: Stub, node: str, path: str) -> web.StreamResponse:
    """Answer with one of a node agent's own pages; raises ApiError."""
    if call.request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    parts: Any = stub.Page(node_pb2.PageRequest(path=path))
    try:
        first = await parts.read()
        well = bool(first.content_type)
        headers = {"Content-Type": first.content_type or "text/plain; charset=utf-8", **call.headers}
        response = web.StreamResponse(status=200 if well else 503, headers=headers)
        await response.prepare(call.request)
        part = first
        while part is not grpc.aio.EOF and call.request.method != "HEAD":
            await response.write(part.data)
            part = await parts.read()
    except grpc.aio.AioRpcError as error:
        raise refusal(error, node) from error
    finally:
        parts.cancel()
    await response.write_eof()
    return response


async def _pass_on(call: Call, pipe: Pipe, way: str) -> web.StreamResponse:
    request = call.request
    await pipe.write(_request_head(call, way))
    sending = asyncio.create_task(_send_body(request, pipe))
    try:
        answer, rest = await read_answer(pipe)
        if answer.code == 101:
            await sending
            return await _pass_both_ways(request, pipe, _switching_head(call, answer), rest)
        return await _pass_back(call, pipe, answer, rest)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


def _request_head(call: Call, way: str) -> bytes:
    request = call.request
    query = request.rel_url.raw_query_string
    lines = [
        f"{request.method} {way}{f'?{query}' if query else ''} HTTP/1.1",
        f"Host: {parse_name(call.target.name).name}",
    ]
    fields = list(request.headers.items())
    # Whom the client acts as is for us: an API behind us must not believe that we had asked for it.
    kept = [each for each in end_to_end(fields, without=_OURS) if not each[0].lower().startswith("impersonate-")]
    lines += [f"{name}: {value}" for name, value in (*kept, *hop(upgrade_of(fields)))]
    if request.remote:
        lines.append(f"X-Forwarded-For: {request.remote}")
    if request.content_length is not None:
        lines.append(f"Content-Length: {request.content_length}")
    elif request.can_read_body:
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def _send_body(request: UpgradableRequest, pipe: Pipe) -> None:
    if not request.can_read_body:
        return
    chunked = request.content_length is None
    while data := await request.read_as_sent():
        await pipe.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
    if chunked:
        await pipe.write(b"0\r\n\r\n")


def _switching_head(call: Call, answer: Answer) -> bytes:
    """Return the head by which the client's connection becomes something else; raises Unavailable."""
    asked, got = upgrade_of(list(call.request.headers.items())), upgrade_of(answer.fields)
    if not asked or not got:
        raise Unavailable(f'error trying to reach service: it switched to "{got}" when asked for "{asked}"')
    lines = [f"{name}: {value}" for name, value in (*end_to_end(answer.fields), *hop(got))]
    return ("\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines]) + "\r\n\r\n").encode("latin-1")


async def _pass_back(call: Call, pipe: Pipe, answer: Answer, rest: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.code)
    told = {key.lower(): value for key, value in answer.fields}
    has_body = call.request.method != "HEAD" and answer.code not in (204, 304)
    page = _page(call, told) if has_body else None
    # Two lengths are one too many: the chunks' is the one that counts.
    without = _OF_BYTES if page is not None else ("content-length",) if "transfer-encoding" in told else ()
    for key, value in end_to_end(answer.fields, without=without):
        is_address = key.lower() == "location"
        response.headers.add(key, _as_client_writes(call, value) if is_address else value)
    response.headers.update(call.headers)
    await response.prepare(call.request)
    if has_body:
        body = body_of(pipe, told, rest)
        async for data in body if page is None else _links_rewritten(body, page):
            await response.write(data)
    await response.write_eof()
    return response


def _as_client_writes(call: Call, address: str) -> str:
    return rewritten(address, _root(call), parse_name(call.target.name).name)


def _page(call: Call, told: dict[str, str]) -> Page | None:
    """Return what rewrites the links of an answer that is a whole page; None for any other."""
    encoding = told.get("content-encoding", "").strip().lower()
    if "content-range" in told or not is_readable(told.get("content-type", ""), encoding):
        return None
    return Page(_root(call), parse_name(call.target.name).name, encoding)


async def _links_rewritten(body: AsyncIterator[bytes], page: Page) -> AsyncIterator[bytes]:
    try:
        async for data in body:
            for part in page.give(data):
                yield part
    except zlib.error as error:
        raise Unavailable(f"error trying to reach service: {error}") from error
    yield page.rest()


async def _pass_both_ways(request: web.BaseRequest, pipe: Pipe, head: bytes, rest: bytes) -> web.StreamResponse:
    """Join the two connections after an upgrade, until either ends."""
    connection = take_over(request, head + rest)

    async def up() -> None:
        while data := await connection.read():
            await pipe.write(data)

    async def down() -> None:
        while data := await read_or_end(pipe):
            await connection.write(data)

    tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()
    return TakenOver()
