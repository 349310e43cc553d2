"""Server-side apply: who manages which field, and what becomes of an object when a manager applies its intent.

Theory of operation
-------------------
A *field set* is a tree in the form that managedFields carries (FieldsV1): ``f:name`` for a field, ``k:{"name":"a"}``
for an item of a keyed list, ``v:"x"`` for a value of a set, ``.`` for the node itself; a leaf is ``{}``. Which lists
are keyed, sets or atomic says the kind's struct (``api/merge_keys.py``); everything else of unknown shape is atomic.

Every writer owns what it wrote: an update takes over what it changed, an apply owns all that it lists. Applying

1. merges the intent into the live object;
2. removes what the manager applied before, lists no more, and nobody else owns;
3. conflicts where it would change the value of a field that somebody else owns, unless forced.

Sources: KEP-555; "Server-Side Apply" on kubernetes.io; the structured-merge-diff rules that both describe.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from api.errors import BadRequest, Conflict, Fault
from api.kinds.table import Kind
from api.merge_keys import ListRule, list_rule
from api.shapes import AnyJson, ListOf, MapOf, Shape, StructOf, fields_of
from api.struct import ApiStruct

FieldSet = dict[str, Any]  # path element -> FieldSet
Document = Mapping[str, Any]

# Never owned: they name the object, or only the server writes them.
_UNOWNED_METADATA = frozenset({
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName",
})  # fmt: skip
# Merge keys that may be left out of an item stand for these values.
_KEY_DEFAULTS = {"protocol": "TCP"}


# -- field sets ---------------------------------------------------------------------------------------------------


def fields_in(document: Document, model: type[ApiStruct]) -> FieldSet:
    """Return the field set of all that ``document`` says, without what nobody owns."""
    stripped = {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
    metadata = stripped.get("metadata")
    if isinstance(metadata, Mapping):
        kept = {key: value for key, value in metadata.items() if key not in _UNOWNED_METADATA}
        stripped["metadata"] = kept
        if not kept:
            del stripped["metadata"]
    return _fields(stripped, StructOf(model), None)


def _fields(value: Any, shape: Shape, rule: ListRule | None) -> FieldSet:
    """Return the set below ``value``; a leaf has none."""
    match shape, value:
        case ((StructOf() | MapOf()), Mapping()):
            fields: FieldSet = {}
            for key, each in value.items():
                below, its_rule = _below(shape, key)
                inner = _fields(each, below, its_rule)
                # An atomic or scalar field is a leaf; a container is a node of its own beside what is in it.
                fields[f"f:{key}"] = {".": {}} | inner if inner and isinstance(shape, MapOf) else inner
            return fields
        case ListOf(items), list() if rule is not None and rule.map_keys:
            return {f"k:{_key_text(each, rule)}": {".": {}} | _fields(each, items, None) for each in value}
        case ListOf(), list() if rule is not None and rule.set_:
            return {f"v:{json.dumps(each)}": {} for each in value}
    return {}


def _below(shape: Shape, key: str) -> tuple[Shape, ListRule | None]:
    match shape:
        case StructOf(model) if (field := fields_of(model).get(key)) is not None:
            return field.shape, list_rule(model.__name__, field.attribute)
        case MapOf(values):
            return values, None
    return AnyJson(), None


def _key_text(item: Any, rule: ListRule) -> str:
    if not isinstance(item, Mapping):
        raise BadRequest(f"an item of a keyed list must be an object with the keys {', '.join(rule.map_keys)}")
    keys = {}
    for name in sorted(rule.map_keys):
        if (value := item.get(name, _KEY_DEFAULTS.get(name))) is None:
            raise BadRequest(f"an item of a keyed list lacks its key {name!r}: {json.dumps(item)[:100]}")
        keys[name] = value
    return json.dumps(keys, separators=(",", ":"))


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what either side holds."""
    merged = dict(left)
    for key, below in right.items():
        merged[key] = union(merged[key], below) if key in merged else below
    return merged


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what ``left`` holds and ``right`` does not: leaf by leaf, emptied nodes go."""
    kept: FieldSet = {}
    for key, below in left.items():
        if key not in right:
            kept[key] = below
        elif below and (rest := without(below, right[key])):
            kept[key] = rest
    return kept


def leaves(fields: FieldSet, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every leaf."""
    for key, below in fields.items():
        if below:
            yield from leaves(below, (*path, key))
        else:
            yield (*path, key)


def _from_leaves(paths: Iterable[Sequence[str]]) -> FieldSet:
    fields: FieldSet = {}
    for path in paths:
        node = fields
        for step in path:
            node = node.setdefault(step, {})
    return fields


def _holds(fields: FieldSet, path: Sequence[str]) -> bool:
    """Return whether ``path`` is a member of the set: a leaf, or a node that holds ``.``."""
    node: FieldSet = fields
    for step in path:
        if step not in node:
            return False
        node = node[step]
    return not node or "." in node


_ABSENT = object()


def _value_at(document: Any, path: Sequence[str]) -> Any:
    """Return what stands at ``path``; _ABSENT if nothing does. A node's own ``.`` is True where the node is."""
    for step in path:
        if step == ".":
            return document is not _ABSENT
        document = _step(document, step)
        if document is _ABSENT:
            return _ABSENT
    return document


def _step(value: Any, step: str) -> Any:
    kind, _, name = step.partition(":")
    if kind == "f":
        return value.get(name, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    if not isinstance(value, list):
        return _ABSENT
    wanted = json.loads(name)
    if kind == "v":
        return wanted if wanted in value else _ABSENT
    return next((each for each in value if _has_keys(each, wanted)), _ABSENT)


def _has_keys(item: Any, wanted: Mapping[str, Any]) -> bool:
    return isinstance(item, Mapping) and all(
        item.get(name, _KEY_DEFAULTS.get(name)) == value for name, value in wanted.items()
    )


def _remove(document: Any, path: Sequence[str]) -> None:
    """Take what stands at ``path`` out of ``document``, in place."""
    parent = _value_at(document, path[:-1])
    kind, _, name = path[-1].partition(":")
    if kind == "f" and isinstance(parent, dict):
        parent.pop(name, None)
    elif kind == "v" and isinstance(parent, list):
        wanted = json.loads(name)
        parent[:] = [each for each in parent if each != wanted]
    elif kind == "k" and isinstance(parent, list):
        wanted = json.loads(name)
        parent[:] = [each for each in parent if not _has_keys(each, wanted)]


# -- merging ------------------------------------------------------------------------------------------------------


def _merge(live: Any, intent: Any, shape: Shape, rule: ListRule | None) -> Any:
    """Return ``live`` with everything that ``intent`` says."""
    match shape, intent, live:
        case ((StructOf() | MapOf()), dict(), dict()):
            merged = dict(live)
            for key, value in intent.items():
                merged[key] = _merge(live[key], value, *_below(shape, key)) if key in live else value
            return merged
        case ListOf(items), list(), list() if rule is not None and rule.map_keys:
            merged_items = list(live)
            for item in intent:
                wanted = json.loads(_key_text(item, rule))
                place = next((n for n, each in enumerate(merged_items) if _has_keys(each, wanted)), None)
                if place is None:
                    merged_items.append(item)
                else:
                    merged_items[place] = _merge(merged_items[place], item, items, None)
            return merged_items
        case ListOf(), list(), list() if rule is not None and rule.set_:
            return [*live, *(each for each in intent if each not in live)]
    return intent


# -- managers -----------------------------------------------------------------------------------------------------


def _identity(entry: Document) -> tuple[Any, ...]:
    return entry.get("manager", ""), entry.get("operation", ""), entry.get("subresource", "")


def _managed(document: Document) -> list[dict[str, Any]]:
    return [dict(entry) for entry in (document.get("metadata") or {}).get("managedFields") or ()]


def _write_managed(document: dict[str, Any], entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    kept = [entry for entry in entries if entry.get("fieldsV1")]
    metadata = dict(document.get("metadata") or {})
    metadata.pop("managedFields", None)
    if kept:
        metadata["managedFields"] = kept
    return {**document, "metadata": metadata}


def _entry(kind: Kind, manager: str, operation: str, subresource: str, now: str, fields: FieldSet) -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": kind.group_version,
        "time": now,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    return entry | ({"subresource": subresource} if subresource else {})


def track_update(
    kind: Kind, old: Document | None, new: dict[str, Any], *, manager: str, now: str, subresource: str = ""
) -> dict[str, Any]:
    """Return ``new`` with the managedFields that follow from ``manager`` having replaced ``old`` (None: created) by it.

    What changed goes to the manager and is taken from the others; what is gone belongs to nobody. An empty
    managedFields list in ``new`` clears the bookkeeping, as clients ask by ``managedFields: [{}]``.
    """
    sent = (new.get("metadata") or {}).get("managedFields")
    if sent is not None and not any(sent):
        entries: list[dict[str, Any]] = []
    else:
        entries = _managed(old or {})
    present = fields_in(new, kind.model)
    before = old or {}
    changed = _from_leaves(path for path in leaves(present) if _value_at(new, path) != _value_at(before, path))
    identity = (manager, "Update", subresource)
    kept = []
    mine: FieldSet = {}
    mine_entry: dict[str, Any] | None = None
    for entry in entries:
        owned = _from_leaves(
            path for path in leaves(entry.get("fieldsV1") or {}) if _value_at(new, path) is not _ABSENT
        )
        if _identity(entry) == identity:
            mine, mine_entry = owned, entry
        else:
            kept.append(entry | {"fieldsV1": without(owned, changed)})
    total = union(mine, changed)
    if mine_entry is not None and total == mine_entry.get("fieldsV1"):
        kept.append(mine_entry)
    else:
        kept.append(_entry(kind, manager, "Update", subresource, now, total))
    return _write_managed(new, kept)


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

    Raises BadRequest (no manager, managedFields in the intent), Conflict with a cause for each contested field.
    """
    if not manager:
        raise BadRequest(
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        )
    if (intent.get("metadata") or {}).get("managedFields"):
        raise BadRequest("metadata.managedFields must be nil")
    wanted = fields_in(intent, kind.model)
    base: dict[str, Any] = json.loads(json.dumps(live)) if live is not None else {}
    merged: dict[str, Any] = _merge(base, json.loads(json.dumps(intent)), StructOf(kind.model), None)
    if live is not None:
        # What names the object, and what only the server writes, stays.
        merged["metadata"] = {**merged.get("metadata", {}), **_unowned(live)}
    identity = (manager, "Apply", subresource)
    entries = _managed(live or {})
    former = next((entry for entry in entries if _identity(entry) == identity), None)
    others = [entry for entry in entries if entry is not former]
    if live is not None:
        contested = _contested(live, intent, wanted, others)
        if contested and not force:
            raise _conflict(kind, contested)
        overruled = _from_leaves(path for _, path in contested)
        others = [entry | {"fieldsV1": without(entry.get("fieldsV1") or {}, overruled)} for entry in others]
    if former is not None:
        _drop_abandoned(merged, former.get("fieldsV1") or {}, wanted, others)
    if former is not None and former.get("fieldsV1") == wanted:
        mine = former
    else:
        mine = _entry(kind, manager, "Apply", subresource, now, wanted)
    return _write_managed(merged, [*others, mine])


def _unowned(live: Document) -> dict[str, Any]:
    metadata = live.get("metadata") or {}
    return {key: metadata[key] for key in _UNOWNED_METADATA if key in metadata and key != "managedFields"}


def _contested(
    live: Document, intent: Document, wanted: FieldSet, others: Sequence[Document]
) -> list[tuple[Document, tuple[str, ...]]]:
    """Return (entry, path) for every field that another manager owns and the intent would change."""
    return [
        (entry, path)
        for path in leaves(wanted)
        if path[-1] != "." and (value := _value_at(intent, path)) not in ({}, []) and _value_at(live, path) != value
        for entry in others
        if _holds(entry.get("fieldsV1") or {}, path)
    ]


def _drop_abandoned(merged: dict[str, Any], former: FieldSet, wanted: FieldSet, others: Sequence[Document]) -> None:
    """Remove what the manager applied before, applies no more, and nobody else owns; deepest first."""
    gone = sorted(leaves(without(former, wanted)), key=len, reverse=True)
    for path in gone:
        if any(_holds(entry.get("fieldsV1") or {}, path) for entry in others):
            continue
        if path[-1] == ".":
            node = _value_at(merged, path[:-1])
            owned_below = any(_holds(entry.get("fieldsV1") or {}, path[:-1]) for entry in others)
            if node is not _ABSENT and not owned_below and not _holds(wanted, path[:-1]):
                _remove(merged, path[:-1])
        else:
            _remove(merged, path)


def _conflict(kind: Kind, contested: Sequence[tuple[Document, tuple[str, ...]]]) -> Conflict:
    causes = []
    for entry, path in contested:
        where = _readable(path)
        via = f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
        using = f" using {entry.get('apiVersion', '')}" if entry.get("operation") == "Update" else ""
        manager = entry.get("manager", "")
        causes.append(Fault(where, f'conflict with "{manager}"{via}{using}', "FieldManagerConflict"))
    count = len(causes)
    first = ", ".join(dict.fromkeys(f"{cause.message}: {cause.field}" for cause in causes))
    plural = "s" if count != 1 else ""
    return Conflict(
        f"Apply failed with {count} conflict{plural}: {first}", group=kind.group, kind=kind.plural, causes=causes
    )


def _readable(path: Sequence[str]) -> str:
    """Return ``.spec.containers[name="a"].image`` for a path."""
    text = ""
    for step in path:
        kind, _, name = step.partition(":")
        if kind == "f":
            text += f".{name}"
        elif kind == "k":
            keys = ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(name).items())
            text += f"[{keys}]"
        elif kind == "v":
            text += f"[={name}]"
    return text
