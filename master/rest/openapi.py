"""OpenAPI documents: made from the table when they are first asked for, kept until the table changes."""

import hashlib
from collections.abc import Callable
from typing import Any

from aiohttp import web

from api import schema
from api.kinds.table import Kind, Table
from master.rest.http import Answer, encode_json
from master.rest.negotiation import JSON, parse_accept
from master.rest.openapi_paths import PathWriter
from master.rest.routes import unknown_path
from master.rest.version import VERSION

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients ask for; the @ is no legal part of a media type and Go refuses it in an answer.
_ASKED = (PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
# A document asked for by its hash never changes.
_FOREVER = "public, max-age=31536000, immutable"


def _info() -> dict[str, str]:
    return {"title": "Trireme", "version": VERSION["gitVersion"]}


def v2_document(kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """Return the whole API as one OpenAPI v2 document."""
    return {
        "swagger": "2.0",
        "info": _info(),
        "paths": PathWriter(2).paths(kinds),
        "definitions": schema.definitions(kinds, version=2),
    }


def v3_document(kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """Return one group version's API as an OpenAPI v3 document."""
    return {
        "openapi": "3.0.0",
        "info": _info(),
        "paths": PathWriter(3).paths(kinds),
        "components": {"schemas": schema.definitions(kinds, version=3)},
    }


def _v2_json(kinds: tuple[Kind, ...]) -> bytes:
    return encode_json(v2_document(kinds))


def _v2_protobuf(kinds: tuple[Kind, ...]) -> bytes:
    from master.rest import gnostic  # noqa: PLC0415 - only old kubectl asks for this form; others need not pay for it

    return gnostic.encode_document(v2_document(kinds))


def _v3_json(kinds: tuple[Kind, ...]) -> bytes:
    return encode_json(v3_document(kinds))


class Documents:
    """Serves ``/openapi/v2`` and ``/openapi/v3``."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._kinds: tuple[Kind, ...] = ()
        self._version = -1  # of the table
        self._made: dict[tuple[str, str], tuple[bytes, str]] = {}  # (form, root) -> (document, hash)

    def serve(self, request: web.BaseRequest, version: str, rest: str) -> Answer:
        """Return the document; raises NotFound for one that is not served."""
        self._follow_table()
        if version == "v2" and not rest:
            return self._v2(request)
        if version == "v3":
            return self._v3(request, rest) if rest else self._index()
        raise unknown_path()

    def _follow_table(self) -> None:
        """Forget the documents of what has changed: a new custom kind leaves those of other groups as they are."""
        if self._table.version == self._version:
            return
        former = self._roots()
        self._kinds, self._version = tuple(self._table), self._table.version
        present = self._roots()
        self._made = {
            (form, root): made
            for (form, root), made in self._made.items()
            if form == "v3" and former.get(root) == present.get(root)
        }

    def _document(
        self, form: str, root: str, make: Callable[[tuple[Kind, ...]], bytes], kinds: tuple[Kind, ...]
    ) -> tuple[bytes, str]:
        if (form, root) not in self._made:
            body = make(kinds)
            self._made[form, root] = (body, hashlib.sha256(body).hexdigest().upper())
        return self._made[form, root]

    def _v2(self, request: web.BaseRequest) -> Answer:
        protobuf = _wants_protobuf(request.headers.get("Accept", ""))
        form, make = ("protobuf", _v2_protobuf) if protobuf else ("json", _v2_json)
        body, digest = self._document(form, "", make, self._kinds)
        return _answer(request, body, digest, PROTOBUF if protobuf else JSON)

    def _roots(self) -> dict[str, tuple[Kind, ...]]:
        """Return ``api/v1``, ``apis/apps/v1``, ... -> its kinds."""
        found: dict[str, tuple[Kind, ...]] = {}
        for kind in self._kinds:
            root = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
            found[root] = (*found.get(root, ()), kind)
        return found

    def _index(self) -> Answer:
        paths = {}
        for root, kinds in self._roots().items():
            _, digest = self._document("v3", root, _v3_json, kinds)
            paths[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash={digest}"}
        return Answer(body=encode_json({"paths": paths}))

    def _v3(self, request: web.BaseRequest, root: str) -> Answer:
        kinds = self._roots().get(root)
        if kinds is None:
            raise unknown_path()
        body, digest = self._document("v3", root, _v3_json, kinds)
        asked = request.rel_url.query.get("hash")
        if asked and asked != digest:
            return Answer(code=301, headers={"Location": f"/openapi/v3/{root}?hash={digest}"})
        answer = _answer(request, body, digest, JSON)
        if asked:
            answer = Answer(code=answer.code, body=answer.body, headers={**answer.headers, "Cache-Control": _FOREVER})
        return answer


def _answer(request: web.BaseRequest, body: bytes, digest: str, content_type: str) -> Answer:
    etag = f'"{digest}"'
    headers = {"Etag": etag, "Vary": "Accept"}
    if etag in request.headers.get("If-None-Match", ""):
        return Answer(code=304, content_type=content_type, headers=headers)
    return Answer(body=body, content_type=content_type, headers=headers)


def _wants_protobuf(accept: str) -> bool:
    """Return whether the protobuf form comes before JSON in the client's order."""
    for each in parse_accept(accept):
        if each.type in _ASKED:
            return True
        if each.type in (JSON, "application/*", "*/*"):
            return False
    return False
