"""The HTTPS server: one handler for every request, which says who, whether, what, and answers.

Not an aiohttp application: routes come from the table of kinds, so one function of method and path replaces a router.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec.structs import replace

from api.errors import ApiError, BadRequest, InternalError
from api.selectors import parse_fields
from master.access.audit import AuditLog
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.fairness import Fairness
from master.access.flows import classify
from master.access.reviews import Reviews
from master.access.rules import Request as Asked
from master.access.user import User
from master.rest import http, impersonation, routes
from master.rest.exchange import Exchange
from master.rest.handlers import Call, Handlers
from master.rest.http import Answer
from master.rest.metrics import Metrics
from master.rest.node_agents import NodeAgents
from master.rest.parameters import read_bool
from master.rest.paths import Paths
from master.rest.seam import Registry
from master.rest.streams import Streams
from master.rest.watch import OpenStreams

log = logging.getLogger(__name__)


def _not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Keep aiohttp from logging a traceback for each request that is no HTTP: the client gets its 400."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_not_the_clients_fault)

KEEPALIVE_S = 180.0
SHUTDOWN_S = 2.0


class RestServer:
    """Serves the API on one address.

    agents: the way to the node agents; without it logs, exec, attach and port-forward are refused.
    address: "ip:port" under which clients reach the API, shown in discovery.
    documents: path -> (content type, document) of what is served as it is.
    audit: what is told of every request; None for no audit log.
    """

    def __init__(
        self,
        registry: Registry,
        authenticator: Authenticator,
        authorizer: Authorizer,
        *,
        agents: NodeAgents | None = None,
        address: str = "",
        documents: Mapping[str, tuple[str, Any]] | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = audit
        self._fairness = Fairness()
        self._registry = registry
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._streams = OpenStreams()
        self._handlers = Handlers(registry, self._streams, Reviews(authenticator, authorizer))
        self._connected = Streams(registry, agents, self._streams)
        self._metrics = Metrics()
        self._paths = Paths(registry, self._metrics, self._streams, address=address, documents=documents or {})
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; return the port, which the system chose if ``port`` is 0."""
        server = web.Server(
            self._handle, handler_cancellation=True, keepalive_timeout=KEEPALIVE_S, access_log=None, logger=_http_log
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=tls, reuse_address=True)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        log.info("REST server listens address=%s port=%d tls=%s", host, bound, tls is not None)
        return bound

    async def stop(self) -> None:
        """End watches and streams, let short requests finish, close."""
        self._streams.end_all()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request)
        try:
            answer: Answer | web.StreamResponse = await self._answer(exchange)
        except ApiError as error:
            answer = http.failure(error)
        except (ConnectionError, asyncio.CancelledError):
            if exchange.lasting:
                self._finish(exchange, 200, None)  # its client has had enough of it
            raise  # the client has gone; aiohttp cleans up
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
        if self._audit is not None and (told := exchange.told(code, answer)) is not None:
            self._audit.tell(told)

    async def _answer(self, exchange: Exchange) -> Answer | web.StreamResponse:
        request = exchange.request
        path = unquote(request.rel_url.raw_path)
        exchange.found = found = routes.parse_path(self._registry.table, path)
        # Known before who asks is: the audit log is told of those, too, whom nobody vouches for.
        if found is None:
            exchange.asked = Asked(exchange.real_user, exchange.verb, path=path)
        else:
            exchange.asked = _asked(exchange, exchange.real_user, found)
            exchange.verb = exchange.asked.verb
        user = await self._user(exchange)
        exchange.asked = exchange.asked._replace(user=user)
        connected = isinstance(found, routes.Target) and found.subresource in routes.CONNECTED
        exchange.lasting = exchange.verb == "watch" or connected
        flow = classify(exchange.asked)
        exchange.belongs_to(flow)
        async with self._fairness.seat(flow, lasting=exchange.lasting):
            await self._authorizer.check(exchange.asked)
            if exchange.lasting and self._audit is not None:
                begun = exchange.told(200, None, stage="ResponseStarted")
                assert begun is not None, exchange.asked
                self._audit.tell(begun)
            if found is None:
                return await self._paths.serve(request, path)
            return await self._resource(exchange, user, found)

    async def _user(self, exchange: Exchange) -> User:
        request = exchange.request
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        tls = transport.get_extra_info("ssl_object") if certificate and transport is not None else None
        exchange.real_user = await self._authenticator.authenticate(
            certificate=certificate,
            authorization=request.headers.get("Authorization", ""),
            encoded=tls.getpeercert(binary_form=True) if tls is not None else None,
        )
        if exchange.asked is not None:
            exchange.asked = exchange.asked._replace(user=exchange.real_user)
        return await impersonation.effective_user(exchange.real_user, request.headers, self._authorizer)

    async def _resource(
        self, exchange: Exchange, user: User, found: routes.Target | routes.Unserved
    ) -> Answer | web.StreamResponse:
        request = exchange.request
        if isinstance(found, routes.Unserved):
            exchange.found = found = await self._late(request)
        query = request.rel_url.query
        todo = routes.pick_verb(found, request.method, watch=read_bool(query, "watch"))
        call = Call(request, user, found, query, exchange.headers)
        if todo == "connect":
            return await self._connected.serve(call)
        return await self._handlers.serve(todo, call)

    async def _late(self, request: web.BaseRequest) -> routes.Target:
        """Return what a path names that named nothing at first: a kind that was defined through another master."""
        await self._registry.catch_up()
        found = routes.parse_path(self._registry.table, unquote(request.rel_url.raw_path))
        if not isinstance(found, routes.Target):
            raise routes.unknown_path()
        return found


def _name_selected(request: web.BaseRequest, verb: str) -> str:
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
    verb = routes.request_verb(request.method, name=found.name, subresource=found.subresource, watch=watch)
    if isinstance(found, routes.Unserved):
        group, resource = found.group, found.resource
    else:
        group, resource = found.kind.group, found.kind.plural
    name = found.name or _name_selected(request, verb)
    # A namespace lies in itself: whom a binding in it makes its administrator may read it.
    namespace = found.name if (group, resource) == ("", "namespaces") else found.namespace
    return Asked(user, verb, group, resource, found.subresource, namespace, name)
