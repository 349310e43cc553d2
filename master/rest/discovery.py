"""Discovery: which groups, versions and resources are served, in the old form and the aggregated one.

Everything is written from the table. Source: kubernetes.io, "API discovery"; KEP-3352.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from api.custom.definitions import version_rank
from api.kinds.table import TABLE, Kind, Table
from master.rest.negotiation import parse_accept

AGGREGATED = ("v2", "v2beta1")
# Subresources whose answers are of another kind: name -> (group, version, kind).
_OTHER_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
_SUBRESOURCE_VERBS = {
    "binding": ("create",),
    "eviction": ("create",),
    "token": ("create",),
    "log": ("get",),
    "exec": ("create", "get"),
    "attach": ("create", "get"),
    "portforward": ("create", "get"),
    "finalize": ("update",),
    "proxy": ("create", "delete", "get", "patch", "update"),
}


def pick_aggregated(accept: str) -> tuple[str, str] | None:
    """Return (version, content type to answer with) if the client prefers aggregated discovery, else None."""
    for each in parse_accept(accept):
        if each.type != "application/json":
            continue
        if "as" not in each.parameters:
            return None
        version = each.parameters.get("v", "")
        wanted = (each.parameters.get("g"), each.parameters["as"])
        if wanted == ("apidiscovery.k8s.io", "APIGroupDiscoveryList") and version in AGGREGATED:
            return version, f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    return None


def _groups(table: Table) -> dict[str, dict[str, list[Kind]]]:
    """Return group -> version -> kinds, the preferred version first."""
    found: dict[str, dict[str, list[Kind]]] = {}
    for kind in table:
        found.setdefault(kind.group, {}).setdefault(kind.version, []).append(kind)
    return {
        group: dict(sorted(versions.items(), key=lambda pair: version_rank(pair[0])))
        for group, versions in found.items()
    }


def served(table: Table, group: str, version: str) -> bool:
    """Return whether ``group`` is served in ``version``."""
    return any((kind.group, kind.version) == (group, version) for kind in table)


def api_versions(address: str) -> dict[str, Any]:
    """Return what ``/api`` answers."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(name: str, versions: Sequence[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(table: Table) -> dict[str, Any]:
    """Return what ``/apis`` answers."""
    groups = [_group(name, list(versions)) for name, versions in _groups(table).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(table: Table, name: str) -> dict[str, Any] | None:
    """Return what ``/apis/<name>`` answers, or None if the group is not served."""
    versions = _groups(table).get(name) if name else None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))} if versions else None


def resource_list(table: Table, group: str, version: str) -> dict[str, Any] | None:
    """Return what ``/api/v1`` or ``/apis/<group>/<version>`` answers, or None if it is not served."""
    kinds = _groups(table).get(group, {}).get(version)
    if not kinds:
        return None
    group_version = f"{group}/{version}" if group else version
    resources = [entry for kind in kinds for entry in _resources(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _resources(kind: Kind) -> Iterator[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if "list" in kind.verbs:
        entry["storageVersionHash"] = _storage_hash(kind)
    yield entry
    for name in kind.subresources:
        group, version, answer = answer_kind(kind, name)
        below = {"name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced}
        if (group, version) != (kind.group, kind.version):
            below |= {"group": group, "version": version}
        yield below | {"kind": answer, "verbs": list(subresource_verbs(name))}


def answer_kind(kind: Kind, subresource: str) -> tuple[str, str, str]:
    """Return (group, version, kind) of what a subresource answers."""
    if subresource == "proxy":
        return "", "v1", f"{kind.kind}ProxyOptions"
    return _OTHER_KINDS.get(subresource, (kind.group, kind.version, kind.kind))


def subresource_verbs(subresource: str) -> tuple[str, ...]:
    """Return the verbs that a subresource has."""
    return _SUBRESOURCE_VERBS.get(subresource, ("get", "patch", "update"))


def _storage_hash(kind: Kind) -> str:
    """Return what is the same for all kinds whose objects are stored in one place, and form."""
    owner = kind if kind.custom is not None else TABLE.preferred(*kind.place) or kind
    version = owner.version if owner.custom is None else owner.custom.storage_version
    digest = hashlib.sha256(f"{owner.group}/{version}/{owner.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def aggregated(table: Table, version: str, *, core: bool) -> dict[str, Any]:
    """Return the aggregated discovery of the core group (``/api``) or of all others (``/apis``)."""
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [
                {
                    "version": served_version,
                    "resources": [_aggregated_resource(kind) for kind in kinds],
                    "freshness": "Current",
                }
                for served_version, kinds in versions.items()
            ],
        }
        for name, versions in _groups(table).items()
        if (name == "") == core
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": _group_version_kind(kind.group, kind.version, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        entry["shortNames"] = list(kind.short_names)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _group_version_kind(*answer_kind(kind, name)),
                "verbs": list(subresource_verbs(name)),
            }
            for name in kind.subresources
        ]
    return entry


def _group_version_kind(group: str, version: str, kind: str) -> dict[str, str]:
    return {"group": group, "version": version, "kind": kind}
