"""The HTTPS server: one handler for every request, which says who, whether, what, and answers.

Routes come from the table of kinds, so one function of method and path replaces a router. HTTP itself is
``fasthttp``'s, and aiohttp's for connections that become something else.
"""

import asyncio
import importlib
import logging
import re
import ssl
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from msgspec.structs import replace

from api.errors import ApiError, BadRequest, InternalError
from api.selectors import parse_fields
from fasthttp.heads import Head, Malformed
from fasthttp.peer import Config, Hosting
from fasthttp.server import Server
from fasthttp.writing import Response
from master.access.flows import classify
from master.access.gate import GONE, Gate
from master.access.reviews import Reviews
from master.access.rules import Request as Asked
from master.access.user import User
from master.rest import http, routes
from master.rest.exchange import Exchange
from master.rest.handlers import Call, Handlers
from master.rest.http import Answer
from master.rest.metrics import Metrics
from master.rest.negotiation import JSON
from master.rest.node_agents import NodeAgents
from master.rest.parameters import read_bool
from master.rest.paths import Paths
from master.rest.request import Request, Stream
from master.rest.seam import Registry
from master.rest.watch import OpenStreams

if TYPE_CHECKING:
    from master.rest.streams import Streams
    from master.rest.upgradable import UpgradableServer

log = logging.getLogger(__name__)

KEEPALIVE_S = 180.0
SHUTDOWN_S = 2.0
WARM_AFTER_S = 10.0
WARMED = (
    "master.rest.openapi", "master.rest.yaml_bodies", "api.custom.definition_rules", "master.access.certificates",
    "master.rest.streams",
)  # fmt: skip


class RestServer:
    """Serves the API on one address.

    gate: what each request has to pass.
    agents: the way to the node agents; without it logs, exec, attach and port-forward are refused.
    address: "ip:port" under which clients reach the API, shown in discovery.
    documents: path -> (content type, document) of what is served as it is.
    """

    def __init__(
        self,
        registry: Registry,
        gate: Gate,
        *,
        agents: NodeAgents | None = None,
        address: str = "",
        documents: Mapping[str, tuple[str, Any]] | None = None,
    ) -> None:
        self._gate = gate
        self._registry = registry
        self._streams = OpenStreams()
        self._handlers = Handlers(registry, self._streams, Reviews(gate.authenticator, gate.authorizer))
        self._agents = agents
        self._metrics = Metrics()
        self._paths = Paths(registry, self._metrics, self._streams, address=address, documents=documents or {})
        self._hosting = Hosting(
            handler=self._serve,
            refuse=_refuse,
            config=Config(keepalive_s=KEEPALIVE_S),
            hands_over=_hands_over,
            other_protocol=self._make_upgradable,
        )
        self._server = Server(self._hosting)
        self._warming: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; return the port, which the system chose if ``port`` is 0."""
        address, bound = await self._server.listen(host, port, tls=tls)
        log.info("REST server listens address=%s port=%d tls=%s", address, bound, tls is not None)
        self._warming = asyncio.create_task(_warm())
        return bound

    async def stop(self) -> None:
        """End watches and streams, let short requests finish, close."""
        if self._warming is not None:
            self._warming.cancel()
        self._streams.end_all()
        await self._server.stop(SHUTDOWN_S)
        if "_upgradable" in self.__dict__:
            await self._upgradable.stop(SHUTDOWN_S)

    def _make_upgradable(self) -> asyncio.Protocol:
        return self._upgradable()

    @cached_property
    def _upgradable(self) -> "UpgradableServer":
        from master.rest.upgradable import UpgradableServer  # noqa: PLC0415 - see there

        return UpgradableServer(self._serve, keepalive_s=KEEPALIVE_S)

    @cached_property
    def _connected(self) -> "Streams":
        from master.rest.streams import Streams  # noqa: PLC0415 - only connections that are handed over come here

        return Streams(self._registry, self._agents, self._streams)

    async def _serve(self, request: Request) -> Response | Stream:
        exchange = Exchange(request)
        try:
            answer: Answer | Stream = await self._answer(exchange)
        except ApiError as error:
            answer = http.failure(error)
        except Malformed as error:
            answer = http.failure(BadRequest(error.reason))
        except (ConnectionError, asyncio.CancelledError):
            self._finish(exchange, 200 if exchange.lasting else GONE, None)  # its client has had enough of it
            raise  # the client has gone; the front cleans up
        except Exception:
            log.exception("request failed method=%s path=%s audit=%s", request.method, request.path, exchange.audit_id)
            answer = http.failure(InternalError("an error on the server has prevented the request from succeeding"))
        if not isinstance(answer, Answer):
            self._finish(exchange, answer.status, None)
            return answer
        self._finish(exchange, answer.code, answer)
        if exchange.notes.warnings:
            answer = replace(answer, warnings=(*answer.warnings, *exchange.notes.warnings))
        return await http.to_response(request, answer, exchange.headers)

    def _finish(self, exchange: Exchange, code: int, answer: Answer | None) -> None:
        """Count a request that is over, and tell the audit log of it."""
        found, verb = exchange.found, exchange.verb
        if isinstance(found, routes.Target) and found.subresource in routes.CONNECTED:
            verb = "connect"
        self._metrics.observe(verb, exchange.resource, code, time.perf_counter() - exchange.started)
        self._gate.finish(exchange, code, (lambda: answer.body) if answer is not None else bytes)

    async def _answer(self, exchange: Exchange) -> Answer | Stream:
        request = exchange.request
        path = unquote(request.rel_url.raw_path)
        exchange.found = found = routes.parse_path(self._registry.table, path)
        # Known before who asks is: the audit log is told of those, too, whom nobody vouches for.
        if found is None:
            exchange.asked = Asked(exchange.real_user, exchange.verb, path=path)
        else:
            exchange.asked = _asked(exchange, exchange.real_user, found)
            exchange.verb = exchange.asked.verb
        user = await self._gate.identify(exchange)
        connected = isinstance(found, routes.Target) and found.subresource in routes.CONNECTED
        exchange.lasting = exchange.verb == "watch" or connected
        flow = classify(exchange.asked)
        exchange.belongs_to(flow)
        async with self._gate.seat(flow, lasting=exchange.lasting):
            await self._gate.check(exchange)
            if found is None:
                return await self._paths.serve(request, path)
            return await self._resource(exchange, user, found)

    async def _resource(
        self, exchange: Exchange, user: User, found: routes.Target | routes.Unserved
    ) -> Answer | Stream:
        request = exchange.request
        if isinstance(found, routes.Unserved):
            exchange.found = found = await self._late(request)
        query = request.rel_url.query
        todo = routes.pick_verb(found, request.method, watch=read_bool(query, "watch"))
        if todo == "connect":
            return await self._connect(exchange, user, found)
        return await self._handlers.serve(todo, Call(request, user, found, query, exchange.headers))

    async def _connect(self, exchange: Exchange, user: User, target: routes.Target) -> Stream:
        from master.rest.upgradable import Call as Connected  # noqa: PLC0415 - as above
        from master.rest.upgradable import UpgradableRequest  # noqa: PLC0415

        request = exchange.request
        assert isinstance(request, UpgradableRequest), "its connection was not handed over"
        return await self._connected.serve(Connected(request, user, target, request.query, exchange.headers))

    async def _late(self, request: Request) -> routes.Target:
        """Return what a path names that named nothing at first: a kind that was defined through another master."""
        await self._registry.catch_up()
        found = routes.parse_path(self._registry.table, unquote(request.rel_url.raw_path))
        if not isinstance(found, routes.Target):
            raise routes.unknown_path()
        return found


def _hands_over(head: Head) -> bool:
    """Return whether a request may need its connection for itself, or a body that is passed on as it comes."""
    if head.wants_upgrade:
        return True
    path = unquote(head.target) if "%" in head.target else head.target
    return _CONNECTED.search(path) is not None


# A whole segment: not "logging", as many a namespace is called.
_CONNECTED = re.compile(f"/(?:{'|'.join(routes.CONNECTED)})(?:[/?#]|$)")


def _refuse(code: int, reason: str) -> Response:
    """Return the answer to what is no request, in the form that clients know."""
    status = {**BadRequest(reason).status(), "code": code, "reason": "BadRequest" if code == 400 else ""}
    return Response(code, (("Content-Type", JSON), ("Cache-Control", "no-cache, private")), http.encode_json(status))


async def _warm() -> None:
    """Load, beside what is served, what a start does without and the first who needs it would have to wait for."""
    await asyncio.sleep(WARM_AFTER_S)
    for name in WARMED:
        try:
            await asyncio.to_thread(importlib.import_module, name)
        except Exception:
            log.exception("cannot be loaded module=%s", name)  # whoever needs it will be told so, too


def _name_selected(request: Request, verb: str) -> str:
    """Return the one name that a list or watch is narrowed to: it is authorized as if it were in the path."""
    selector = request.rel_url.query.get("fieldSelector", "")
    if verb not in ("list", "watch", "deletecollection") or "metadata.name" not in selector:
        return ""
    try:
        return parse_fields(selector).exact("metadata.name") or ""
    except BadRequest:
        return ""  # said of the request itself, once it may be made at all


def _asked(exchange: Exchange, user: User, found: routes.Target | routes.Unserved) -> Asked:
    """Return what a request for a resource asks, in the words of authorization."""
    request = exchange.request
    watch = read_bool(request.rel_url.query, "watch")
    verb = routes.request_verb(request.method, found, watch=watch)
    if isinstance(found, routes.Unserved):
        group, resource = found.group, found.resource
    else:
        group, resource = found.kind.group, found.kind.plural
    name = found.name or _name_selected(request, verb)
    # A namespace lies in itself: whom a binding in it makes its administrator may read it.
    namespace = found.name if (group, resource) == ("", "namespaces") else found.namespace
    return Asked(user, verb, group, resource, found.subresource, namespace, name)
