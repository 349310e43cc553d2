"""The paths of the OpenAPI documents: one entry for each route of each kind, in v2 or v3 form.

kubectl looks here for the parameters that a write takes (dryRun, fieldValidation) and for the kind behind a resource.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api import schema
from api.kinds.table import Kind
from api.meta import DeleteOptions, Status
from master.rest.discovery import answer_kind, subresource_verbs
from master.rest.handlers import PATCH_TYPES, RETURNED_WHEN_GONE
from master.rest.negotiation import JSON, YAML

_WRITE = ("dryRun", "fieldManager", "fieldValidation", "pretty")
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "pretty", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
_DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "pretty", "propagationPolicy")
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "get": ("pretty",),
    "list": _LIST,
    "create": _WRITE,
    "update": _WRITE,
    "patch": (*_WRITE, "force"),
    "delete": _DELETE,
    "deletecollection": (*_DELETE, *(each for each in _LIST if each not in ("pretty", "watch", "allowWatchBookmarks"))),
}
_TYPES = {
    "limit": "integer", "timeoutSeconds": "integer", "gracePeriodSeconds": "integer", "watch": "boolean",
    "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean", "force": "boolean", "orphanDependents": "boolean",
}  # fmt: skip
_METHODS = {
    "get": "get", "list": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete",
    "deletecollection": "delete",
}  # fmt: skip


class PathWriter:
    """Writes the paths of kinds; ``version`` is 2 or 3, the forms differ in where schemas stand."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._prefix = schema.PREFIXES[version]

    def paths(self, kinds: Iterable[Kind]) -> dict[str, Any]:
        """Return path template -> item for every route of ``kinds``."""
        return {path: item for kind in kinds for path, item in self._of_kind(kind)}

    def _of_kind(self, kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        collection = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
        below = ("namespace",) if kind.namespaced else ()
        yield collection, self._item(kind, ("list", "create", "deletecollection"), below)
        if kind.namespaced and "list" in kind.verbs:
            yield f"{root}/{kind.plural}", self._item(kind, ("list",), ())
        if "get" in kind.verbs:
            yield f"{collection}/{{name}}", self._item(kind, ("get", "update", "patch", "delete"), (*below, "name"))
        for name in kind.subresources:
            yield f"{collection}/{{name}}/{name}", self._subresource(kind, name, (*below, "name"))

    def _item(self, kind: Kind, verbs: tuple[str, ...], in_path: tuple[str, ...]) -> dict[str, Any]:
        own = schema.group_version_kind(kind)
        item: dict[str, Any] = {}
        for verb in verbs:
            if verb in kind.verbs:
                name = schema.list_name(kind) if verb == "list" else schema.kind_name(kind)
                returned = verb != "deletecollection" and (verb != "delete" or kind.place in RETURNED_WHEN_GONE)
                answer = name if returned else schema.definition_name(Status)
                item[_METHODS[verb]] = self._operation(
                    verb, own, _operation_id(kind, verb, in_path), body=_body(verb, name), answer=answer
                )
        item["parameters"] = [self._parameter(each, "path") for each in in_path]
        return item

    def _subresource(self, kind: Kind, subresource: str, in_path: tuple[str, ...]) -> dict[str, Any]:
        group, version, answer = answer_kind(kind, subresource)
        of = {"group": group, "version": version, "kind": answer}
        item: dict[str, Any] = {}
        for verb in subresource_verbs(subresource):
            operation_id = f"{_operation_id(kind, verb, in_path)}{subresource.capitalize()}"
            own = answer == kind.kind and subresource != "log"
            name = schema.kind_name(kind) if own else ""
            item[_METHODS[verb]] = self._operation(verb, of, operation_id, body=_body(verb, name), answer=name)
        item["parameters"] = [self._parameter(each, "path") for each in in_path]
        return item

    def _operation(
        self, verb: str, of: Mapping[str, str], operation_id: str, *, body: str, answer: str
    ) -> dict[str, Any]:
        parameters = [self._parameter(each, "query") for each in _PARAMETERS[verb]]
        content = {"$ref": self._prefix + answer} if answer else {"type": "string"}
        action = {"create": "post", "update": "put"}.get(verb, verb)
        operation: dict[str, Any] = {
            "operationId": operation_id,
            "parameters": parameters,
            "responses": {"200": {"description": "OK", **self._content(content, (JSON, YAML))}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": dict(of),
        }
        consumes = tuple(PATCH_TYPES) if verb == "patch" else (JSON, YAML)
        if body:
            reference = {"type": "object"} if verb == "patch" else {"$ref": self._prefix + body}
            if self._version == 3:
                operation["requestBody"] = self._content(reference, consumes)
            else:
                required = not verb.startswith("delete")
                parameters.insert(0, {"name": "body", "in": "body", "required": required, "schema": reference})
        if self._version == 2:
            operation |= {"consumes": list(consumes), "produces": [JSON, YAML]}
        return operation

    def _content(self, reference: dict[str, Any], media_types: tuple[str, ...]) -> dict[str, Any]:
        if self._version == 2:
            return {"schema": reference}
        return {"content": {each: {"schema": reference} for each in media_types}}

    def _parameter(self, name: str, where: str) -> dict[str, Any]:
        kind = {"type": _TYPES.get(name, "string")}
        parameter: dict[str, Any] = {"name": name, "in": where}
        parameter |= {"schema": kind} if self._version == 3 else kind
        return parameter | ({"required": True} if where == "path" else {})


def _body(verb: str, name: str) -> str:
    if verb in ("create", "update", "patch"):
        return name
    return schema.definition_name(DeleteOptions) if verb.startswith("delete") else ""


def _operation_id(kind: Kind, verb: str, in_path: tuple[str, ...]) -> str:
    group = kind.group.partition(".")[0].capitalize() or "Core"
    words = {"get": "read", "update": "replace", "deletecollection": "deleteCollection"}
    scope = "Namespaced" if "namespace" in in_path else "ForAllNamespaces" if kind.namespaced else ""
    middle = f"{group}{kind.version.capitalize()}"
    if scope == "ForAllNamespaces":
        return f"{words.get(verb, verb)}{middle}{kind.kind}{scope}"
    return f"{words.get(verb, verb)}{middle}{scope}{kind.kind}"
