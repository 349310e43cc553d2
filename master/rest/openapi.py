"""OpenAPI documents: written from the table when they are first asked for, kept until the table changes."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from api import schema
from api.errors import NotFound
from api.kinds.table import Kind, Table
from master.rest.http import Answer, encode_json
from master.rest.negotiation import JSON, parse_accept
from master.rest.openapi_paths import PathWriter
from master.rest.request import Request
from master.rest.routes import unknown_path
from master.rest.version import version_document

PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients ask for; the @ is no legal part of a media type and Go refuses it in an answer.
_ASKED = (PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
# A document asked for by its hash never changes.
_FOREVER = "public, max-age=31536000, immutable"


def _info() -> dict[str, str]:
    return {"title": "Trireme", "version": version_document()["gitVersion"]}


class _Part(NamedTuple):
    """What the kinds of one group version add to a document: name -> encoded."""

    paths: Mapping[str, bytes]
    definitions: Mapping[str, bytes]


class _Form(NamedTuple):
    """One way of writing a document."""

    version: int  # of OpenAPI
    content_type: str
    path: Callable[[str, Any], bytes]
    definition: Callable[[str, Any], bytes]
    join: Callable[[Iterable[bytes], Iterable[bytes]], bytes]

    def part(self, kinds: tuple[Kind, ...]) -> _Part:
        """Encode what ``kinds`` add."""
        paths, found = PathWriter(self.version).paths(kinds), schema.definitions(kinds, version=self.version)
        return _Part(
            {name: self.path(name, item) for name, item in paths.items()},
            {name: self.definition(name, each) for name, each in found.items()},
        )

    def document(self, parts: Iterable[_Part]) -> bytes:
        """Return the document of ``parts``, of which several may have a definition; the same on every master."""
        paths: dict[str, bytes] = {}
        definitions: dict[str, bytes] = {}
        for part in parts:
            paths.update(part.paths)
            definitions.update(part.definitions)
        return self.join((paths[name] for name in sorted(paths)), (definitions[name] for name in sorted(definitions)))


def _json_entry(name: str, value: Any) -> bytes:
    return encode_json(name) + b":" + encode_json(value)


def _join_v2(paths: Iterable[bytes], definitions: Iterable[bytes]) -> bytes:
    head = encode_json({"swagger": "2.0", "info": _info()})[:-1]
    return b'%b,"paths":{%b},"definitions":{%b}}' % (head, b",".join(paths), b",".join(definitions))


def _join_v3(paths: Iterable[bytes], definitions: Iterable[bytes]) -> bytes:
    head = encode_json({"openapi": "3.0.0", "info": _info()})[:-1]
    return b'%b,"paths":{%b},"components":{"schemas":{%b}}}' % (head, b",".join(paths), b",".join(definitions))


V2, V3 = (_Form(version, JSON, _json_entry, _json_entry, join) for version, join in ((2, _join_v2), (3, _join_v3)))


@cache
def _v2_protobuf() -> _Form:
    from master.rest import gnostic  # noqa: PLC0415 - only old kubectl asks for this form; others need not pay for it

    return _Form(2, PROTOBUF, gnostic.encode_path, gnostic.encode_definition, partial(gnostic.join, _info()))


class _Document(NamedTuple):
    body: bytes
    digest: str


class Documents:
    """Serves ``/openapi/v2`` and ``/openapi/v3``.

    Documents are put together from parts, one for each group version; when a custom kind comes or changes only its
    own group's part is written anew. That is done in a thread: a whole API takes a tenth of a second.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._version = -1  # of the table
        self._roots: dict[str, tuple[Kind, ...]] = {}  # api/v1, apis/apps/v1, ... -> its kinds
        self._parts: dict[tuple[_Form, str], _Part] = {}
        self._documents: dict[tuple[_Form, str], _Document] = {}  # root "": the whole API
        self._writing = asyncio.Lock()

    async def serve(self, request: Request, version: str, rest: str) -> Answer:
        """Return the document; raises NotFound for one that is not served."""
        if version == "v2" and not rest:
            form = _v2_protobuf() if _wants_protobuf(request.headers.get("Accept", "")) else V2
            return _answer(request, await self._document(form, ""), form.content_type)
        if version == "v3":
            return await self._v3(request, rest) if rest else await self._index()
        raise unknown_path()

    async def _document(self, form: _Form, root: str) -> _Document:
        """Return one document; raises NotFound."""
        async with self._writing:
            self._follow_table()
            if root and root not in self._roots:
                raise unknown_path()
            if (form, root) not in self._documents:
                wanted = {root: self._roots[root]} if root else self._roots
                self._documents[form, root] = await asyncio.to_thread(self._write, form, dict(wanted))
            return self._documents[form, root]

    def _write(self, form: _Form, roots: Mapping[str, tuple[Kind, ...]]) -> _Document:
        parts = []
        for root, kinds in roots.items():
            if (form, root) not in self._parts:
                self._parts[form, root] = form.part(kinds)
            parts.append(self._parts[form, root])
        body = form.document(parts)
        return _Document(body, hashlib.sha256(body).hexdigest().upper())

    def _follow_table(self) -> None:
        """Forget the parts of what has changed: a new custom kind leaves other groups as they are."""
        if self._table.version == self._version:
            return
        former = self._roots
        self._version, self._roots = self._table.version, _by_root(self._table)
        changed = {root for root in {*former, *self._roots} if former.get(root) != self._roots.get(root)}
        if changed:
            self._parts = {key: part for key, part in self._parts.items() if key[1] not in changed}
            kept = self._documents.items()
            self._documents = {key: each for key, each in kept if key[1] and key[1] not in changed}

    async def _index(self) -> Answer:
        paths = {}
        for root in sorted(_by_root(self._table)):
            try:
                _, digest = await self._document(V3, root)
            except NotFound:
                continue  # gone meanwhile
            paths[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash={digest}"}
        return Answer(body=encode_json({"paths": paths}))

    async def _v3(self, request: Request, root: str) -> Answer:
        document = await self._document(V3, root)
        asked = request.rel_url.query.get("hash")
        if asked and asked != document.digest:
            return Answer(code=301, headers={"Location": f"/openapi/v3/{root}?hash={document.digest}"})
        answer = _answer(request, document, JSON)
        if asked:
            answer = Answer(code=answer.code, body=answer.body, headers={**answer.headers, "Cache-Control": _FOREVER})
        return answer


def _by_root(table: Table) -> dict[str, tuple[Kind, ...]]:
    found: dict[str, tuple[Kind, ...]] = {}
    for kind in table:
        root = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
        found[root] = (*found.get(root, ()), kind)
    return found


def _answer(request: Request, document: _Document, content_type: str) -> Answer:
    body, digest = document
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
