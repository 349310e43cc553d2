"""Everything served that is no resource: discovery, OpenAPI, version, health and metrics."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from api.errors import MethodNotAllowed
from master.rest import discovery, http
from master.rest.http import Answer
from master.rest.metrics import Metrics
from master.rest.negotiation import pick_form
from master.rest.request import Request
from master.rest.routes import unknown_path
from master.rest.seam import Registry
from master.rest.version import version_document
from master.rest.watch import OpenStreams

if TYPE_CHECKING:
    from master.rest.openapi import Documents

ROOT_PATHS = (
    "/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version",
)  # fmt: skip


class Paths:
    """Serves the paths outside ``/api/v1/...`` and ``/apis/<group>/<version>/...``."""

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics,
        streams: OpenStreams,
        *,
        address: str,
        documents: Mapping[str, tuple[str, Any]],
    ) -> None:
        self._documents = documents
        self._registry = registry
        self._metrics = metrics
        self._streams = streams
        self._address = address

    @cached_property
    def _openapi(self) -> "Documents":
        from master.rest.openapi import Documents  # noqa: PLC0415 - a master is ready before anybody asks for it

        return Documents(self._registry.table)

    async def serve(self, request: Request, path: str) -> Answer:
        """Return the answer; raises NotFound for a path that nothing serves."""
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        segments = path.strip("/").split("/")
        if segments[0] in ("api", "apis", "openapi"):
            # Whoever has seen a kind established finds it described, whichever master answers.
            await self._registry.catch_up()
        match segments:
            case [""]:
                return self._document(request, {"paths": sorted((*ROOT_PATHS, *self._documents))})
            case _ if (fixed := self._documents.get("/" + "/".join(segments))) is not None:
                content_type, document = fixed
                headers = {"Cache-Control": "public, max-age=3600"}
                return Answer(body=http.encode_json(document), content_type=content_type, headers=headers)
            case ["api" | "apis", *rest] if (found := self._discovery(request, segments[0], rest)) is not None:
                return found
            case ["version"]:
                return self._document(request, version_document())
            case ["healthz" | "livez" | "readyz" as check, *rest] if len(rest) <= 1:
                return self._health(check, rest[0] if rest else "", verbose="verbose" in request.rel_url.query)
            case ["metrics"]:
                text = self._metrics.render(open_streams=len(self._streams))
                return Answer(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")
            case ["openapi", version, *rest]:
                return await self._openapi.serve(request, version, "/".join(rest))
        raise unknown_path()

    def _document(self, request: Request, document: Any) -> Answer:
        form = pick_form(request.headers.get("Accept", ""))
        pretty = "pretty" in request.rel_url.query or request.headers.get("User-Agent", "").startswith("curl")
        return Answer(body=http.encode_as(document, form.media_type, pretty=pretty), content_type=form.media_type)

    def _discovery(self, request: Request, root: str, rest: list[str]) -> Answer | None:
        table = self._registry.table
        if not rest:
            if (aggregated := discovery.pick_aggregated(request.headers.get("Accept", ""))) is not None:
                version, content_type = aggregated
                body = http.encode_json(discovery.aggregated(table, version, core=root == "api"))
                etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
                headers = {"Vary": "Accept", "Etag": etag, "Cache-Control": "public"}
                if etag in request.headers.get("If-None-Match", ""):
                    return Answer(code=304, content_type=content_type, headers=headers)
                return Answer(body=body, content_type=content_type, headers=headers)
            listed = discovery.api_versions(self._address) if root == "api" else discovery.group_list(table)
            return self._document(request, listed)
        document = None
        if root == "api" and len(rest) == 1:
            document = discovery.resource_list(table, "", rest[0])
        elif root == "apis" and len(rest) == 1:
            document = discovery.group(table, rest[0])
        elif root == "apis" and len(rest) == 2:
            document = discovery.resource_list(table, rest[0], rest[1])
        return None if document is None else self._document(request, document)

    def _health(self, check: str, only: str, *, verbose: bool) -> Answer:
        """Answer a health check; being alive needs no store, being ready does."""
        problems = {"ping": "", **(self._registry.problems() if check == "readyz" else {})}
        if only:
            if only not in problems:
                raise unknown_path()
            problems = {only: problems[only]}
        failed = any(problems.values())
        if not failed and not verbose:
            return Answer(body=b"ok", content_type="text/plain; charset=utf-8")
        lines = [f"[-]{name} failed: {why}" if why else f"[+]{name} ok" for name, why in problems.items()]
        lines.append(f"{check} check {'failed' if failed else 'passed'}")
        body = ("\n".join(lines) + "\n").encode()
        return Answer(code=500 if failed else 200, body=body, content_type="text/plain; charset=utf-8")
