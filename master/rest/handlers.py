"""The verbs: what a client asks by HTTP, asked of the registry, and its answer in the form the client wants."""

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from api import apply as managed_fields
from api import codec, fields, selectors
from api.errors import BadRequest, UnsupportedMediaType, invalid
from api.faults import forbidden
from api.kinds.pods import Binding
from api.kinds.table import Kind
from api.meta import DeleteOptions
from master import strictness
from master.access.reviews import Reviews
from master.access.user import User
from master.rest import http, parameters
from master.rest.documents import fit_to_url, unrecognized
from master.rest.http import Answer
from master.rest.negotiation import JSON, Form, pick_form
from master.rest.request import Request, Stream
from master.rest.routes import ACTIONS, Target
from master.rest.seam import Page, Query, Registry, Stored, WriteOptions, Written
from master.rest.tables import Printer, partial_metadata
from master.rest.watch import OpenStreams, stream_events

OBJECT_FORMS = frozenset({"Table", "PartialObjectMetadata"})
LIST_FORMS = frozenset({"Table", "PartialObjectMetadataList"})
WATCH_FORMS = frozenset({"Table", "PartialObjectMetadata"})
# Of what is answered and not stored nobody prints a table.
ASKED_FORMS = frozenset({"PartialObjectMetadata"})
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}
# Actions that are answered with a document; the others with a Status.
ANSWERED = ("token",)
# Kinds whose last state answers a delete; of others it is a Status. Strict clients decode one or the other.
RETURNED_WHEN_GONE = frozenset({
    ("", "pods"), ("", "podtemplates"), ("", "services"), ("", "serviceaccounts"), ("", "resourcequotas"),
    ("", "persistentvolumes"), ("", "persistentvolumeclaims"), ("storage.k8s.io", "storageclasses"),
})  # fmt: skip
# Without timeoutSeconds a watch ends by itself, at a random time so that clients do not come back together.
WATCH_S = (1800.0, 3600.0)


class Call(NamedTuple):
    """One request for a resource, authenticated and authorized."""

    request: Request
    user: User
    target: Target
    query: Mapping[str, str]
    headers: dict[str, str]  # that every answer carries

    @property
    def pretty(self) -> bool:
        """Return whether a person reads the answer."""
        if "pretty" in self.query:
            return parameters.read_bool(self.query, "pretty")
        agent = self.request.headers.get("User-Agent", "")
        return agent.startswith(("curl", "Wget", "Mozilla"))

    def form(self, transforms: frozenset[str]) -> Form:
        """Return the form of the answer."""
        return pick_form(self.request.headers.get("Accept", ""), transforms=transforms)


class Handlers:
    """One method for each verb."""

    def __init__(self, registry: Registry, streams: OpenStreams, reviews: Reviews) -> None:
        self._registry = registry
        self._reviews = reviews
        self._streams = streams

    async def serve(self, verb: str, call: Call) -> Answer | Stream:
        """Do ``verb``, one of those that ``routes.pick_verb`` returns except "connect"."""
        match verb:
            case "get":
                return await self._get(call)
            case "list":
                return await self._list(call)
            case "watch":
                return await self._watch(call)
            case "create":
                return await self._create(call)
            case "update":
                return await self._update(call)
            case "patch":
                return await self._patch(call)
            case "delete":
                return await self._delete(call)
            case "deletecollection":
                return await self._delete_collection(call)
        raise AssertionError(f"verb {verb!r}")

    async def _get(self, call: Call) -> Answer:
        form = call.form(OBJECT_FORMS)
        target = call.target
        stored = await self._registry.get(
            target.kind,
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            resource_version=parameters.read_resource_version(call.query),
        )
        return _object_answer(call, form, stored)

    async def _list(self, call: Call) -> Answer:
        form = call.form(LIST_FORMS)
        kind = call.target.kind
        page = await self._registry.list(kind, _query(call))
        if form.transform == "Table":
            table = _printer(call, form).table(
                page.items, revision=page.revision, continue_token=page.continue_token, remaining=page.remaining
            )
            body = http.encode_json(table)
        elif form.transform:
            body = http.encode_json(_metadata_list(page, form.version))
        else:
            body = list_body(kind, page)
        return _answer(call, form, body)

    async def _watch(self, call: Call) -> Stream:
        form = call.form(WATCH_FORMS)
        kind = call.target.kind
        query = _query(call)
        if not query.timeout_s:
            query = replace(query, timeout_s=random.uniform(*WATCH_S))  # noqa: S311 - spreads load, hides nothing
        include = call.query.get("includeObject", "")
        if form.transform == "Table":
            Printer(kind, version=form.version, include=include)
        return await stream_events(
            call.request,
            self._registry.watch(kind, query),
            kind=kind,
            form=form,
            include=include,
            timeout_s=query.timeout_s,
            headers=call.headers,
            streams=self._streams,
        )

    async def _create(self, call: Call) -> Answer:
        target = call.target
        document, options = await self._document(call, "CreateOptions")
        is_asked = "get" not in target.kind.verbs or target.subresource in ACTIONS
        form = call.form(ASKED_FORMS if is_asked else OBJECT_FORMS)
        if self._reviews.answers(target.kind.model):
            unknown: list[str] = []
            asked = codec.decode(target.kind, document, unknown=unknown)
            warnings = strictness.tell(target.kind, document, options, unknown=unknown)
            answer = await self._reviews.answer(asked, call.user)
            whole = form.transform == ""
            body = codec.encode(answer) if whole else http.encode_json(partial_metadata(answer, form.version))
            return _answer(call, form, body, code=201, warnings=warnings)
        written = await self._registry.create(
            target.kind,
            document,
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            options=options,
        )
        if target.kind.model is Binding or (target.subresource in ACTIONS and target.subresource not in ANSWERED):
            body = http.encode_json(http.success_status())
            return _answer(call, Form(form.media_type), body, code=201, warnings=written.warnings)
        return _written_answer(call, form, written, code=201)

    async def _update(self, call: Call) -> Answer:
        form = call.form(OBJECT_FORMS)
        target = call.target
        document, options = await self._document(call, "UpdateOptions")
        written = await self._registry.update(
            target.kind,
            document,
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            options=options,
        )
        return _written_answer(call, form, written, code=201 if written.created else 200)

    async def _patch(self, call: Call) -> Answer:
        form = call.form(OBJECT_FORMS)
        target, options = call.target, _write_options(call, "PatchOptions")
        content_type = http.media_type(call.request)
        patch_type = PATCH_TYPES.get(content_type)
        if patch_type is None:
            supported = ", ".join(PATCH_TYPES)
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {supported}"
            )
        if patch_type == "apply":
            managed_fields.check_manager(call.query.get("fieldManager", ""))
        elif options.force:
            fault = forbidden("force", "may not be specified for non-apply patch")
            raise invalid("PatchOptions", "", [fault], group="meta.k8s.io")
        body = await http.read_body(call.request)
        repeated: list[str] | None = [] if strictness.listens(options) else None
        patch = await http.parse_body(body, content_type if patch_type == "apply" else JSON, repeated)
        http.check_depth(patch)
        if not isinstance(patch, list if patch_type == "json" else dict):
            wanted = "a list of operations" if patch_type == "json" else "an object"
            raise BadRequest(f"a {content_type} body must be {wanted}")
        if patch_type == "apply":
            patch = fit_to_url(patch, target)
        written = await self._registry.patch(
            target.kind,
            patch,
            patch_type,
            namespace=target.namespace,
            name=target.name,
            subresource=target.subresource,
            options=replace(options, repeated=tuple(repeated or ())),
        )
        return _written_answer(call, form, written, code=201 if written.created else 200)

    async def _delete(self, call: Call) -> Answer:
        form = call.form(OBJECT_FORMS)
        target = call.target
        options = await self._delete_options(call)
        deleted = await self._registry.delete(
            target.kind, namespace=target.namespace, name=target.name, options=options, user=call.user
        )
        if not deleted.gone or target.kind.place in RETURNED_WHEN_GONE:
            return _object_answer(call, form, deleted.stored)
        details = {"name": target.name, "group": target.kind.group, "kind": target.kind.plural}
        status = http.success_status(**details, uid=deleted.stored.obj.metadata.uid)
        return _answer(call, Form(form.media_type), http.encode_json(status))

    async def _delete_collection(self, call: Call) -> Answer:
        form = call.form(LIST_FORMS)
        kind = call.target.kind
        options = await self._delete_options(call)
        query = _query(call)
        items = await self._registry.delete_collection(kind, query, options=options, user=call.user)
        page = Page(items, max((each.revision for each in items), default=0))
        return _answer(call, Form(form.media_type), list_body(kind, page))

    async def _document(self, call: Call, options_kind: str) -> tuple[dict[str, Any], WriteOptions]:
        """Return the body's object, made to agree with the URL, and the options, which say what stands twice in it."""
        options = _write_options(call, options_kind)
        body = await http.read_body(call.request)
        repeated: list[str] | None = [] if strictness.listens(options) else None
        try:
            document = await http.parse_body(body, http.media_type(call.request), repeated)
        except BadRequest as error:
            raise unrecognized(call.target, error.message, body) from None
        http.check_depth(document)
        replaces = call.request.method == "PUT"
        fitting = fit_to_url(document, call.target, replaces=replaces)
        return fitting, replace(options, repeated=tuple(repeated or ()))

    async def _delete_options(self, call: Call) -> DeleteOptions:
        body = await http.read_body(call.request)
        if not body.strip():
            return parameters.read_delete_options(call.query, None)
        document = await http.parse_body(body, http.media_type(call.request))
        http.check_depth(document)
        if isinstance(document, dict) and document.get("kind", "DeleteOptions") != "DeleteOptions":
            raise BadRequest(f"{document['kind']!r} cannot be handled as a DeleteOptions")
        try:
            options = msgspec.convert(_without_nulls(document), DeleteOptions)
        except msgspec.ValidationError as error:
            raise BadRequest(f"DeleteOptions in the body cannot be read: {error}") from None
        return parameters.read_delete_options(call.query, options)


def _query(call: Call) -> Query:
    """Return what the client asks for; what is wrong with the question is said here, before a watch's stream starts."""
    target = call.target
    query = parameters.read_query(call.query, namespace=target.namespace, name=target.name, watches=target.watches)
    selectors.parse_labels(query.label_selector)
    fields.check(call.target.kind, selectors.parse_fields(query.field_selector))
    return query


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


def _write_options(call: Call, options: str) -> WriteOptions:
    agent = call.request.headers.get("User-Agent", "")
    return parameters.read_write_options(call.query, call.user, agent=agent, options=options)


def _printer(call: Call, form: Form) -> Printer:
    return Printer(call.target.kind, version=form.version, include=call.query.get("includeObject", ""))


def _object_answer(
    call: Call, form: Form, stored: Stored, *, code: int = 200, warnings: tuple[str, ...] = ()
) -> Answer:
    if form.transform == "Table" and not call.target.subresource:
        body = http.encode_json(_printer(call, form).table([stored], revision=stored.revision))
    elif form.transform == "PartialObjectMetadata":
        body = http.encode_json(partial_metadata(stored.obj, form.version))
    else:
        body = stored.json
    return _answer(call, form, body, code=code, warnings=warnings)


def _written_answer(call: Call, form: Form, written: Written, *, code: int) -> Answer:
    return _object_answer(call, form, written.stored, code=code, warnings=written.warnings)


def _answer(call: Call, form: Form, body: bytes, *, code: int = 200, warnings: tuple[str, ...] = ()) -> Answer:
    encoded = http.encode_as(body, form.media_type, pretty=call.pretty)
    if call.target.kind.deprecated:
        warnings = (call.target.kind.deprecated, *warnings)
    return Answer(code=code, body=encoded, content_type=form.media_type, warnings=warnings)


def _list_metadata(page: Page) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": str(page.revision)} if page.revision else {}
    if page.continue_token:
        metadata["continue"] = page.continue_token
    if page.remaining is not None:
        metadata["remainingItemCount"] = page.remaining
    return metadata


def list_body(kind: Kind, page: Page) -> bytes:
    """Return the list as stored bytes joined, without decoding one of them."""
    fields = {"kind": kind.list_kind, "apiVersion": kind.group_version, "metadata": _list_metadata(page)}
    head, tail = http.encode_json(fields)[:-1] + b',"items":[', b"]}"
    items = [each.json for each in page.items]
    if not items:
        return head + tail
    # One join: megabytes that are copied once more to get a head or a tail cost ten times as much as the join.
    items[0] = head + items[0]
    items[-1] += tail
    return b",".join(items)


def _metadata_list(page: Page, version: str) -> dict[str, Any]:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": _list_metadata(page),
        "items": [partial_metadata(each.obj, version) for each in page.items],
    }
