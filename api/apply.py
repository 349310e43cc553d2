"""Server-side apply: who manages which field, and what becomes of an object when a manager applies its intent.

Theory of operation
-------------------
Every writer owns what it wrote: an update takes over what it changed, an apply owns all that it lists. Each writer has
an entry in managedFields; its fields are a set as ``api/fieldsets.py`` has them. Applying

1. merges the intent into the live object;
2. removes what the manager applied before, lists no more, and nobody else owns;
3. conflicts where that changes a field that somebody else owns, unless forced.

Sources: KEP-555; "Server-Side Apply" on kubernetes.io; the structured-merge-diff rules that both describe.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api import fieldsets
from api.errors import BadRequest, Conflict, Fault, invalid
from api.fieldsets import Document, FieldSet, Path, common, listed, owned_part, root_shape, union, without
from api.kinds.table import Kind
from api.merge_keys import ListRule
from api.shapes import Deduced, ListOf, MapOf, ObjectOf, Shape, StructOf

# Updaters beyond so many are folded into one entry, oldest first.
MAX_UPDATERS = 10
ANCIENT = "ancient-changes"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Entry = dict[str, Any]  # one of managedFields, as JSON has it


# -- merging ------------------------------------------------------------------------------------------------------


def _merge(live: Any, intent: Any, shape: Shape, rule: ListRule | None) -> Any:
    """Return ``live`` with everything that ``intent`` says."""
    match shape, intent, live:
        case ((StructOf() | MapOf() | ObjectOf() | Deduced()), dict(), dict()):
            merged = dict(live)
            for key, value in intent.items():
                merged[key] = _merge(live[key], value, *fieldsets.field_shape(shape, key)) if key in live else value
            return merged
        case ListOf(items), list(), list() if rule is not None and rule.map_keys:
            return _merge_items(live, intent, items, rule)
        case ListOf(), list(), list() if rule is not None and rule.set_:
            return [*live, *(each for each in intent if each not in live)]
    return intent


def _merge_items(live: list[Any], intent: list[Any], shape: Shape, rule: ListRule) -> list[Any]:
    merged = list(live)
    for item in intent:
        wanted = json.loads(fieldsets.key_text(item, rule))
        place = next((n for n, each in enumerate(merged) if fieldsets.has_keys(each, wanted)), None)
        if place is None:
            merged.append(item)
        else:
            merged[place] = _merge(merged[place], item, shape, None)
    return merged


# -- managers -----------------------------------------------------------------------------------------------------


def _identity(entry: Document) -> tuple[str, ...]:
    """Return what tells one manager from another: an updater is another one in each version that it writes."""
    operation = entry.get("operation", "")
    version = entry.get("apiVersion", "") if operation == "Update" else ""
    return entry.get("manager", ""), operation, version, entry.get("subresource", "")


def _fields(entry: Document) -> FieldSet:
    fields: FieldSet = entry.get("fieldsV1") or {}
    return fields


def entries_of(document: Document) -> list[Entry]:
    """Return the managedFields of a document."""
    return [dict(entry) for entry in (document.get("metadata") or {}).get("managedFields") or ()]


def _entry(kind: Kind, manager: str, operation: str, subresource: str, now: str, fields: FieldSet) -> Entry:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": kind.group_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldsets.in_order(fields),
    }
    return entry | ({"subresource": subresource} if subresource else {})


def _without_fields(entry: Entry, lost: FieldSet) -> Entry:
    kept = without(_fields(entry), lost)
    return entry if kept is _fields(entry) else entry | {"fieldsV1": kept}


def _arranged(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that say something, in the order in which they are stored."""
    return sorted(
        (entry for entry in entries if _fields(entry)),
        key=lambda entry: (entry.get("operation", ""), entry.get("time", ""), *_identity(entry)),
    )


def _capped(entries: list[Entry]) -> list[Entry]:
    """Return the entries with the oldest updaters folded together where there are too many."""
    updaters = [entry for entry in entries if entry.get("operation") == "Update" and not entry.get("subresource")]
    surplus = len(updaters) - MAX_UPDATERS
    if surplus <= 0:
        return entries
    folded = updaters[: surplus + 1]
    fields: FieldSet = {}
    for entry in folded:
        fields = union(fields, _fields(entry))
    ancient = folded[-1] | {"manager": ANCIENT, "fieldsV1": fieldsets.in_order(fields)}
    return _arranged([ancient, *(entry for entry in entries if entry not in folded)])


def track_update(
    kind: Kind,
    old: Document,
    new: Document,
    *,
    entries: Sequence[Entry],
    manager: str,
    now: str,
    subresource: str = "",
) -> list[Entry]:
    """Return the managedFields that follow from ``manager`` having replaced ``old`` by ``new``.

    old: of a new object, the document of its kind that says nothing.
    entries: the managedFields before the update. What changed goes to the manager and is taken from the others; what is
    gone belongs to nobody.
    """
    difference = fieldsets.compare(old, new, root_shape(kind))
    changed, removed = owned_part(difference.changed), owned_part(difference.removed)
    if not changed and not removed:
        return list(entries)
    lost = union(changed, removed)
    mine = _entry(kind, manager, "Update", subresource, now, changed)
    kept = []
    for entry in entries:
        if changed and _identity(entry) == _identity(mine):
            mine["fieldsV1"] = fieldsets.in_order(union(without(_fields(entry), removed), changed))
        else:
            kept.append(_without_fields(entry, lost))
    return _capped(_arranged([*kept, mine]))


def apply(
    kind: Kind,
    live: Document | None,
    intent: Mapping[str, Any],
    *,
    manager: str,
    now: str,
    force: bool = False,
    subresource: str = "",
) -> dict[str, Any]:
    """Return the object that ``manager``'s ``intent`` makes of ``live`` (None: there is none yet).

    Raises Invalid (no manager), BadRequest (managedFields in the intent, an item without its keys), Conflict with a
    cause for each contested field.
    """
    check_manager(manager)
    if (intent.get("metadata") or {}).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    base: dict[str, Any] = json.loads(json.dumps(live)) if live is not None else {}
    said = listed(intent, root_shape(kind))
    merged: dict[str, Any] = _merge(base, json.loads(json.dumps(intent)), root_shape(kind), None)
    entries = entries_of(live or {})
    mine = _entry(kind, manager, "Apply", subresource, now, owned_part(said))
    former = next((entry for entry in entries if _identity(entry) == _identity(mine)), None)
    others = [entry for entry in entries if entry is not former]
    if live is not None:
        _keep_what_names_it(merged, live)
        if former is not None:
            _drop_abandoned(kind, merged, _fields(former), said, others)
        difference = fieldsets.compare(live, merged, root_shape(kind))
        changed, removed = owned_part(difference.changed), owned_part(difference.removed)
        excused = _applied_before(kind, live, manager)
        contested = [
            (entry, path)
            for entry in others
            for path in fieldsets.members(common(_fields(entry), without(changed, excused)))
            # Of a list or map that has become empty, and is not written, there is nothing to disagree about.
            if fieldsets.value_at(live, path) is not fieldsets.ABSENT
        ]
        if contested and not force:
            raise _conflict(contested)
        others = [_without_fields(entry, union(changed, removed)) for entry in others]
        if former is not None and not changed and not removed:
            mine["time"] = former.get("time", now)
    metadata = {**(merged.get("metadata") or {}), "managedFields": _arranged([*others, mine])}
    return {**merged, "metadata": metadata}


def check_manager(manager: str) -> None:
    """Raise Invalid if nobody says that it is he who applies."""
    if not manager:
        fault = Fault("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
        raise invalid("PatchOptions", "", [fault], group="meta.k8s.io")


def _keep_what_names_it(merged: dict[str, Any], live: Document) -> None:
    """Put back what an intent cannot change: the object's identity, and what only the server writes."""
    metadata = live.get("metadata") or {}
    kept = {key: value for key, value in metadata.items() if key in fieldsets.UNOWNED_METADATA}
    merged["metadata"] = {**merged.get("metadata", {}), **kept}


def _applied_before(kind: Kind, live: Document, manager: str) -> FieldSet:
    """Return what kubectl applied on the client before it applied on the server: moving over is no conflict."""
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    if manager != "kubectl" or not text:
        return {}
    try:
        return listed(json.loads(text), root_shape(kind))
    except (ValueError, BadRequest, AttributeError):
        return {}


def _drop_abandoned(
    kind: Kind, merged: dict[str, Any], former: FieldSet, said: FieldSet, others: Sequence[Document]
) -> None:
    """Remove what the manager applied before, applies no more, and nobody else owns."""
    owned = said
    for entry in others:
        owned = union(owned, _fields(entry))
    gone = without(fieldsets.with_parents(former, root_shape(kind)), fieldsets.with_parents(owned, root_shape(kind)))
    for path in fieldsets.members(gone):
        fieldsets.remove(merged, path)


def _conflict(contested: Iterable[tuple[Entry, Path]]) -> Conflict:
    found = [(_named(entry), path) for entry, path in contested]
    causes = [
        Fault(fieldsets.readable(path), f"conflict with {manager}", "FieldManagerConflict") for manager, path in found
    ]
    if len(found) == 1:
        manager, path = found[0]
        why = f"conflict with {manager}: {fieldsets.readable(path)}"
        return Conflict(f"Apply failed with 1 conflict: {why}", causes=causes)
    lines = []
    for manager in sorted({manager for manager, _ in found}):
        lines.append(f"conflicts with {manager}:")
        lines += [f"- {fieldsets.readable(path)}" for name, path in found if name == manager]
    return Conflict(f"Apply failed with {len(found)} conflicts: " + "\n".join(lines), causes=causes)


def _named(entry: Entry) -> str:
    via = f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
    using = f" using {entry.get('apiVersion', '')}" if entry.get("operation") == "Update" else ""
    return f'"{entry.get("manager", "")}"{via}{using}'
