"""What a body says it is, against what the URL names: filled in where it says nothing, refused where it disagrees."""

from collections.abc import Mapping
from typing import Any

from api.codec import json_type
from api.errors import BadRequest
from api.kinds.table import TABLE
from master.rest.routes import ACTIONS, Target

Document = dict[str, Any]

# Subresources whose documents are of a kind of their own: (apiVersion, kind).
DOCUMENT_KINDS: Mapping[str, tuple[str, str]] = {
    "scale": ("autoscaling/v1", "Scale"),
    "binding": ("v1", "Binding"),
    "eviction": ("policy/v1", "Eviction"),
    "token": ("authentication.k8s.io/v1", "TokenRequest"),
}
# Versions of these in which older clients send the same fields.
_OLDER_DOCUMENTS: Mapping[str, tuple[str, ...]] = {"eviction": ("policy/v1beta1",)}
_KNOWN = {(row.group_version, row.kind) for row in TABLE}
_SUMMARY_BYTES = 30


def kind_of_body(target: Target) -> tuple[str, str]:
    """Return the apiVersion and kind that a body sent to ``target`` must be of."""
    return DOCUMENT_KINDS.get(target.subresource, (target.kind.group_version, target.kind.kind))


def unrecognized(target: Target, why: str, body: bytes) -> BadRequest:
    """Return the refusal of a body that cannot be read at all, with its beginning."""
    if not body:
        shown, why = "<empty>", "couldn't get version/kind; json parse error: unexpected end of JSON input"
    elif body[:1] == b"{":
        more = " ..." if len(body) > _SUMMARY_BYTES else ""
        shown = body[:_SUMMARY_BYTES].decode(errors="replace") + more
    else:
        shown = body[:_SUMMARY_BYTES].hex() + (" ..." if len(body) > _SUMMARY_BYTES else "")
    kind = kind_of_body(target)[1]
    return BadRequest(f"the object provided is unrecognized (must be of type {kind}): {why} ({shown})")


def fit_to_url(document: Any, target: Target, *, replaces: bool = False) -> Document:
    """Return ``document`` with what the URL implies filled in; raises BadRequest where the two disagree.

    replaces: it takes an object's place, and so has to say whose.
    """
    if not isinstance(document, dict):
        raise BadRequest("couldn't get version/kind; json parse error: the body must be an object")
    for field in ("apiVersion", "kind"):
        if not isinstance(given := document.get(field), str | None):
            why = f"json: cannot unmarshal {json_type(given)} into Go struct field .{field} of type string"
            raise BadRequest(f"couldn't get version/kind; json parse error: {why}")
    api_version, name = kind_of_body(target)
    if document.get("apiVersion") in _OLDER_DOCUMENTS.get(target.subresource, ()):
        document = {**document, "apiVersion": api_version}
    _check_type(document, api_version, name)
    metadata = document.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        version = target.kind.version
        raise BadRequest(f'{name} in version "{version}" cannot be handled as a {name}: metadata must be an object')
    metadata = _fit_name(_fit_namespace(metadata, target), target, replaces=replaces)
    return {**document, "apiVersion": api_version, "kind": name, "metadata": metadata}


def _fit_namespace(metadata: Document, target: Target) -> Document:
    given = metadata.get("namespace")
    if not target.kind.namespaced:
        # A namespace that means nothing is no fault: people write it into manifests of every kind.
        return {key: value for key, value in metadata.items() if key != "namespace"} if given else metadata
    if given and given != target.namespace:
        if target.name and target.subresource not in ACTIONS:
            asked = f"the namespace on the request ({target.namespace})"
            raise BadRequest(f"the namespace of the object ({given}) does not match {asked}")
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    return {**metadata, "namespace": target.namespace}


def _fit_name(metadata: Document, target: Target, *, replaces: bool) -> Document:
    if not target.name:
        return metadata
    given = metadata.get("name")
    if given and given != target.name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({target.name})")
    if replaces and not given:
        why = "was undeterminable: name must be provided"
        raise BadRequest(f"the name of the object ({target.name} based on URL) {why}")
    return {**metadata, "name": target.name}


def _check_type(document: Document, api_version: str, kind: str) -> None:
    given_version, given_kind = document.get("apiVersion") or api_version, document.get("kind") or kind
    if (given_version, given_kind) == (api_version, kind):
        return
    if given_kind == kind and (given_version, kind) in _KNOWN:
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )
    version = str(given_version).rpartition("/")[2]
    if (given_version, given_kind) in _KNOWN:
        why = f"converting ({version}.{given_kind}) to ({_package(api_version)}.{kind}): unknown conversion"
    else:
        scheme = 'scheme "pkg/api/legacyscheme/scheme.go:30"'
        why = f'no kind "{given_kind}" is registered for version "{given_version}" in {scheme}'
    raise BadRequest(f'{given_kind} in version "{version}" cannot be handled as a {kind}: {why}')


def _package(api_version: str) -> str:
    """Return what the real server calls its own form of a group's kinds."""
    group = api_version.rpartition("/")[0]
    return group.partition(".")[0] or "core"
