"""From method and path to a verb on a resource, by the table alone.

Resource paths: ``/api/v1`` and ``/apis/<group>/<version>`` followed by ``[watch/][namespaces/<namespace>/]<plural>
[/<name>[/<subresource>]]``; ``watch/``, in which old clients ask to watch, goes without subresource. Source:
kubernetes.io, "API Concepts".
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from api.errors import MethodNotAllowed, NotFound
from api.kinds.table import Kind, Table


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a resource path names."""

    kind: Kind
    namespace: str = ""  # "": all namespaces, or the kind has none
    name: str = ""  # "": the collection
    subresource: str = ""
    watches: bool = False  # the path itself says so, whatever the parameters say


class Unserved(msgspec.Struct, frozen=True):
    """A well-formed resource path whose resource is in no table: authorization comes before the 404."""

    group: str
    version: str
    resource: str
    namespace: str
    name: str
    subresource: str
    watches: bool = False


# Subresources that a client talks through rather than stores: subresource -> methods.
CONNECTED: Mapping[str, tuple[str, ...]] = {
    "log": ("GET",),
    "exec": ("GET", "POST"),
    "attach": ("GET", "POST"),
    "portforward": ("GET", "POST"),
    "proxy": ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
}
# Subresources that one only creates: each POST acts on the object.
ACTIONS = ("binding", "eviction", "token")


def parse_path(table: Table, path: str) -> Target | Unserved | None:
    """Return what ``path`` (already unquoted) names, or None if it is no resource path."""
    match path.split("/"):
        case ["", "api", version, *rest] if rest:
            return _resource(table, "", version, rest)
        case ["", "apis", group, version, *rest] if rest:
            return _resource(table, group, version, rest)
    return None


def _resource(table: Table, group: str, version: str, rest: list[str]) -> Target | Unserved | None:
    if rest[0] == "watch" and rest[1:] not in ([], [""]):
        return _watched(_named(table, group, version, rest[1:]))
    return _named(table, group, version, rest)


def _named(table: Table, group: str, version: str, rest: list[str]) -> Target | Unserved | None:
    namespace = ""
    if (end := _proxy_end(rest)) is not None:
        rest = rest[:end]  # what follows is a path of whoever answers
    if rest[-1] == "":
        rest = rest[:-1]  # a trailing slash means nothing
    if not rest or "" in rest:
        return None
    # "namespaces/x/status" and "namespaces/x/finalize" are the namespace's own subresources, not kinds in it.
    own = table.resource("", "v1", "namespaces")
    inside = len(rest) >= 3 and rest[0] == "namespaces" and not (own and rest[2] in own.subresources and not group)
    if inside:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = rest[0], "", ""
    if len(rest) >= 2:
        name = rest[1]
    if len(rest) >= 3:
        subresource = "/".join(rest[2:])
    kind = table.resource(group, version, plural)
    fits = kind is not None and (inside if kind.namespaced and name else kind.namespaced or not inside)
    if kind is None or not fits or (subresource and subresource not in kind.subresources):
        return Unserved(group, version, plural, namespace, name, subresource)
    return Target(kind=kind, namespace=namespace, name=name, subresource=subresource)


def _watched(found: Target | Unserved | None) -> Target | Unserved | None:
    """Return what the rest of a path behind ``watch/`` names, to be watched."""
    match found:
        case Target(kind=kind) if found.subresource or "watch" not in kind.verbs:
            return Unserved(
                kind.group, kind.version, kind.plural, found.namespace, found.name, found.subresource, watches=True
            )
        case Target() | Unserved():
            return replace(found, watches=True)
    return None


def _proxy_end(rest: list[str]) -> int | None:
    """Return how many segments lead to a proxy subresource; None if the path leads to none."""
    above = 2 if len(rest) > 2 and rest[0] == "namespaces" else 0
    at = above + 2
    return at + 1 if len(rest) > at and rest[at] == "proxy" and rest[above] in ("nodes", "pods", "services") else None


_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ANY = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def request_verb(method: str, found: Target | Unserved, *, watch: bool) -> str:
    """Return the verb by which a request is authorized, also one that will be refused later.

    watch: whether the parameters say that the client wants to watch.
    """
    if found.watches:
        return "watch"
    if found.name or found.subresource:
        return _ANY.get(method, method.lower())
    if method in ("GET", "HEAD"):
        return "watch" if watch else "list"
    return _COLLECTION.get(method, _ANY.get(method, method.lower()))


def pick_verb(target: Target, method: str, *, watch: bool) -> str:
    """Return what to do: a standard verb, or "connect"; raises MethodNotAllowed."""
    if target.watches:
        if method == "GET":
            return "watch"
    elif target.subresource in CONNECTED:
        if method in CONNECTED[target.subresource]:
            return "connect"
    elif target.subresource in ACTIONS:
        if method == "POST":
            return "create"
    elif target.subresource:
        verb = _OBJECT.get(method, "")
        if verb in ("get", "update", "patch"):
            return verb
    elif target.name:
        verb = _OBJECT.get(method, "")
        if verb in target.kind.verbs:
            return verb
    else:
        verb = _COLLECTION.get(method, "")
        if verb == "list" and watch:
            verb = "watch"
        # A namespaced kind is created in a namespace; only reviews that have none are posted without.
        if verb in target.kind.verbs and not (verb == "create" and target.kind.namespaced and not target.namespace):
            return verb
    raise MethodNotAllowed("the server does not allow this method on the requested resource")


def unknown_path() -> NotFound:
    """Return the refusal for a path that nothing serves."""
    return NotFound("the server could not find the requested resource")
