"""Sets of fields, in the form that managedFields carries (FieldsV1), and what of a document they name.

Theory of operation
-------------------
A set is a tree. Its steps are ``f:name`` for a field, ``k:{"name":"a"}`` for an item of a keyed list and ``v:"x"`` for
a value of a set. A node without anything below it is a member; one with something below it is a member if it holds
``.``. So ``{"f:data": {".": {}, "f:a": {}}}`` has two members: the map ``data`` and its entry ``a``.

Which lists are keyed, sets or atomic says the kind's struct (``api/merge_keys.py``); whatever has no known shape is
atomic: one member, whatever is in it.

Sources: "Server-Side Apply" on kubernetes.io; the README of structured-merge-diff.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from api.errors import BadRequest
from api.kinds.table import Kind
from api.merge_keys import ATOMIC_MAPS, ATOMIC_STRUCTS, GRANULAR, ListRule, list_rule
from api.shapes import AnyJson, Deduced, ListOf, MapOf, ObjectOf, Shape, StructOf, fields_of

FieldSet = dict[str, Any]  # step -> FieldSet
Document = Mapping[str, Any]
Path = tuple[str, ...]  # steps, without a final "."

# Never owned: they name the object, or only the server writes them.
_UNOWNED = ("apiVersion", "kind")
UNOWNED_METADATA = frozenset({
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields",
    "deletionTimestamp", "deletionGracePeriodSeconds",
})  # fmt: skip
# Merge keys that may be left out of an item stand for these values.
_KEY_DEFAULTS = {"protocol": "TCP"}
_MEMBER: FieldSet = {".": {}}
# Objects with known fields: they are there because of what is in them, and nobody owns them by themselves.
_RECORDS = (StructOf, ObjectOf)
ABSENT = object()


# -- trees of members ----------------------------------------------------------------------------------------------


def _is_member(node: FieldSet) -> bool:
    return not node or "." in node


def _node(*, member: bool, below: FieldSet) -> FieldSet | None:
    """Return a node, or None for one that says nothing."""
    if not below:
        return {} if member else None
    return _MEMBER | below if member else below


def _below_of(node: FieldSet) -> FieldSet:
    return {step: each for step, each in node.items() if step != "."}


def union(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what either set holds."""
    merged = dict(left)
    for step, node in right.items():
        if step in merged and step != ".":
            member = _is_member(merged[step]) or _is_member(node)
            merged[step] = _node(member=member, below=union(_below_of(merged[step]), _below_of(node))) or {}
        else:
            merged[step] = node
    return merged


def without(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what ``left`` holds and ``right`` does not."""
    if not right:
        return left
    kept: FieldSet = {}
    for step, node in left.items():
        if step not in right:
            kept[step] = node
            continue
        member = _is_member(node) and not _is_member(right[step])
        rest = _node(member=member, below=without(_below_of(node), _below_of(right[step])))
        if rest is not None:
            kept[step] = rest
    return kept


def common(left: FieldSet, right: FieldSet) -> FieldSet:
    """Return what both sets hold."""
    kept: FieldSet = {}
    for step in left.keys() & right.keys():
        member = _is_member(left[step]) and _is_member(right[step])
        both = _node(member=member, below=common(_below_of(left[step]), _below_of(right[step])))
        if both is not None:
            kept[step] = both
    return kept


def members(fields: FieldSet, path: Path = ()) -> Iterator[Path]:
    """Yield every member, parents before what is below them, in order."""
    for step, node in sorted(fields.items()):
        if step == ".":
            continue
        if _is_member(node):
            yield (*path, step)
        yield from members(node, (*path, step))


def in_order(fields: FieldSet) -> FieldSet:
    """Return the same set with its steps in the order in which they are stored."""
    return {step: in_order(node) for step, node in sorted(fields.items())}


def root_shape(kind: Kind) -> Shape:
    """Return the shape of a kind's objects."""
    return kind.custom.shape if kind.custom is not None else StructOf(kind.model)


def with_parents(fields: FieldSet, shape: Shape) -> FieldSet:
    """Return the set with every named field above a member as a member, too."""
    return _with_parents(fields, shape, None)


def _with_parents(fields: FieldSet, shape: Shape, rule: ListRule | None) -> FieldSet:
    full: FieldSet = {}
    for step, node in fields.items():
        if step == ".":
            full[step] = node
            continue
        below, its_rule = _step_shape(shape, rule, step)
        inner = _with_parents(node, below, its_rule)
        full[step] = _MEMBER | inner if inner and isinstance(shape, _RECORDS) else inner
    return full


# -- what a document holds -----------------------------------------------------------------------------------------


def field_shape(shape: Shape, name: str) -> tuple[Shape, ListRule | None]:
    """Return the shape of the field ``name`` within ``shape``, and how it merges if it is a list."""
    match shape:
        case StructOf(model) if (field := fields_of(model).get(name)) is not None:
            if _is_atomic(field.shape, model.__name__, field.attribute):
                return AnyJson(), None
            return field.shape, list_rule(model.__name__, field.attribute)
        case MapOf(values):
            return values, None
        case ObjectOf(fields, rest):
            return fields.get(name) or (rest, None)
        case Deduced():
            return shape, None
    return AnyJson(), None


def _is_atomic(shape: Shape, struct: str, attribute: str) -> bool:
    if isinstance(shape, StructOf):
        return shape.model.__name__ in ATOMIC_STRUCTS and (struct, attribute) not in GRANULAR
    return (struct, attribute) in ATOMIC_MAPS


def _step_shape(shape: Shape, rule: ListRule | None, step: str) -> tuple[Shape, ListRule | None]:
    if step.startswith("f:"):
        return field_shape(shape, step[2:])
    if isinstance(shape, ListOf) and rule is not None and step.startswith("k:"):
        return shape.items, None
    return AnyJson(), None


class _Child(NamedTuple):
    value: Any
    shape: Shape
    rule: ListRule | None


def _children(value: Any, shape: Shape, rule: ListRule | None) -> dict[str, _Child] | None:
    """Return step -> what stands there; None for a leaf. Raises BadRequest for an item without its key."""
    match shape, value:
        case ((StructOf() | MapOf() | ObjectOf() | Deduced()), Mapping()):
            return {f"f:{name}": _Child(each, *field_shape(shape, name)) for name, each in value.items()}
        case ListOf(items), list() if rule is not None and rule.map_keys:
            return {f"k:{key_text(each, rule)}": _Child(each, items, None) for each in value}
        case ListOf(), list() if rule is not None and rule.set_:
            return {f"v:{json.dumps(each)}": _Child(each, AnyJson(), None) for each in value}
    return None


def key_text(item: Any, rule: ListRule) -> str:
    """Return the keys of an item of a keyed list as its step has them; raises BadRequest."""
    if not isinstance(item, Mapping):
        raise BadRequest(f"an item of a keyed list must be an object with the keys {', '.join(rule.map_keys)}")
    keys = {}
    for name in sorted(rule.map_keys):
        if (value := item.get(name, dict(rule.key_defaults).get(name, _KEY_DEFAULTS.get(name)))) is None:
            raise BadRequest(
                f'associative list with keys has an element that omits key field "{name}" (and doesn\'t have default '
                f"value): {json.dumps(item)[:100]}"
            )
        keys[name] = value
    return json.dumps(keys, separators=(",", ":"))


def listed(document: Document, shape: Shape) -> FieldSet:
    """Return what ``document`` says, as one who applies it owns it: its leaves, and items of lists and maps."""
    return _listed(document, shape, None)


def _listed(value: Any, shape: Shape, rule: ListRule | None) -> FieldSet:
    found: FieldSet = {}
    for step, child in (_children(value, shape, rule) or {}).items():
        below = _listed(*child)
        found[step] = _MEMBER | below if below and not isinstance(shape, _RECORDS) else below
    return found


def owned_part(fields: FieldSet) -> FieldSet:
    """Return the set without what nobody owns: what names the object, and what only the server writes."""
    owned = {step: node for step, node in fields.items() if step[2:] not in _UNOWNED}
    if "f:metadata" in owned:
        kept = {
            step: node for step, node in owned["f:metadata"].items() if step != "." and step[2:] not in UNOWNED_METADATA
        }
        owned["f:metadata"] = kept
        if not kept:
            del owned["f:metadata"]
    return owned


class Difference(NamedTuple):
    """What became of a document: every member that is new or has another value, and every one that has gone."""

    changed: FieldSet
    removed: FieldSet


def compare(old: Document, new: Document, shape: Shape) -> Difference:
    """Return how ``new`` differs from ``old``."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    _compare(_Child(old, shape, None), new, changed, removed)
    return Difference(changed, removed)


def _compare(old: _Child, new: Any, changed: FieldSet, removed: FieldSet) -> None:
    """Note in the two sets how what is below ``new`` differs from what is below ``old``."""
    before_value, after_value = _differing(old.value, new)
    before, after = _keyed(old._replace(value=before_value)), _keyed(old._replace(value=after_value))
    for step in dict.fromkeys((*before, *after)):
        was, is_ = before.get(step), after.get(step)
        if was is None:
            assert is_ is not None, step
            changed[step] = _everything(is_)
        elif is_ is None:
            removed[step] = _everything(was)
        elif was.value != is_.value:
            if not _keyed(was) and not _keyed(is_):
                changed[step] = {}
                continue
            inner_changed: FieldSet = {}
            inner_removed: FieldSet = {}
            _compare(was, is_.value, inner_changed, inner_removed)
            if inner_changed:
                changed[step] = inner_changed
            if inner_removed:
                removed[step] = inner_removed


def _differing(old: Any, new: Any) -> tuple[Any, Any]:
    """Return two maps without the entries that they share, which are most of them; other values as they are."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return old, new
    names = {name for name, value in new.items() if old.get(name, ABSENT) != value} | (old.keys() - new.keys())
    return (
        {name: value for name, value in old.items() if name in names},
        {name: value for name, value in new.items() if name in names},
    )


def _keyed(child: _Child) -> dict[str, _Child]:
    """Return what is below a value; a list whose items lack their keys is as good as atomic."""
    try:
        return _children(*child) or {}
    except BadRequest:
        return {}


def _everything(child: _Child) -> FieldSet:
    """Return the node of a value, itself and everything below it members."""
    below = {step: _everything(each) for step, each in _keyed(child).items()}
    return _MEMBER | below if below else {}


# -- what a path leads to ------------------------------------------------------------------------------------------


def value_at(document: Any, path: Sequence[str]) -> Any:
    """Return what stands at ``path``; ABSENT if nothing does."""
    for step in path:
        document = _at_step(document, step)
        if document is ABSENT:
            return ABSENT
    return document


def _at_step(value: Any, step: str) -> Any:
    kind, _, name = step.partition(":")
    if kind == "f":
        return value.get(name, ABSENT) if isinstance(value, Mapping) else ABSENT
    if not isinstance(value, list):
        return ABSENT
    wanted = json.loads(name)
    if kind == "v":
        return wanted if wanted in value else ABSENT
    return next((each for each in value if has_keys(each, wanted)), ABSENT)


def has_keys(item: Any, wanted: Mapping[str, Any]) -> bool:
    """Return whether an item of a keyed list has these keys."""
    return isinstance(item, Mapping) and all(
        item.get(name, _KEY_DEFAULTS.get(name)) == value for name, value in wanted.items()
    )


def remove(document: Any, path: Path) -> None:
    """Take what stands at ``path`` out of ``document``, in place."""
    parent = value_at(document, path[:-1])
    kind, _, name = path[-1].partition(":")
    if kind == "f" and isinstance(parent, dict):
        parent.pop(name, None)
    elif kind == "v" and isinstance(parent, list):
        wanted = json.loads(name)
        parent[:] = [each for each in parent if each != wanted]
    elif kind == "k" and isinstance(parent, list):
        wanted = json.loads(name)
        parent[:] = [each for each in parent if not has_keys(each, wanted)]


def readable(path: Path) -> str:
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
