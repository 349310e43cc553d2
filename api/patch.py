"""Patches: RFC 6902, RFC 7386 and Kubernetes' strategic merge, as functions of documents.

Strategic merge is a merge patch that knows, from the struct, which lists are keyed: items with the same merge key are
merged, others added. Directives inside a patch say the rest: ``$patch: replace|delete|merge`` in a map or item,
``$deleteFromPrimitiveList/<field>``, ``$setElementOrder/<field>`` and ``$retainKeys``.
Source: "Strategic Merge Patch" in sig-api-machinery's contributor documentation.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jsonpatch
import msgspec

from api.errors import BadRequest, Fault, Invalid, RequestTooLarge
from api.merge_keys import ListRule, list_rule
from api.shapes import AnyJson, ListOf, MapOf, Shape, StructOf, fields_of
from api.struct import ApiStruct

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024  # as much as a request may bring
_DELETE_ITEMS = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"
_PATCH = "$patch"


def apply_json_patch(document: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``document`` after RFC 6902 ``operations``.

    Raises BadRequest (unreadable), Invalid (a test failed), or RequestTooLarge.
    """
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch is an array of operations")
    if len(operations) > MAX_OPERATIONS:
        why = f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        raise RequestTooLarge(why)
    try:
        if not any(isinstance(each, Mapping) and each.get("op") == "copy" for each in operations):
            return cast("dict[str, Any]", jsonpatch.apply_patch(document, operations))
        return _apply_with_copies(document, operations)
    except jsonpatch.JsonPatchTestFailed as error:
        raise Invalid(
            "the server rejected our request due to an error in our request", causes=[Fault("", str(error))]
        ) from error
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        TypeError,
        KeyError,
        ValueError,
        RecursionError,
    ) as error:
        raise Invalid(f"the JSON patch does not apply: {error}") from error


def _apply_with_copies(document: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Apply one operation after the other: a few copies of copies would else make gigabytes of a small document."""
    patched, copied = copy.deepcopy(dict(document)), 0
    for each in operations:
        if isinstance(each, Mapping) and each.get("op") == "copy":
            source = jsonpatch.JsonPointer(each["from"]).resolve(patched)
            copied += len(msgspec.json.encode(source))
            if copied > MAX_COPIED_BYTES:
                raise RequestTooLarge(f"a JSON patch may copy at most {MAX_COPIED_BYTES} bytes")
        patched = jsonpatch.apply_patch(patched, [each], in_place=True)
    return patched


def apply_merge_patch(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``document`` after the RFC 7386 merge ``patch``: null deletes, maps merge, all else replaces."""
    if not isinstance(patch, Mapping):
        raise BadRequest("a merge patch is a JSON object")
    merged = dict(document)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = apply_merge_patch(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def apply_strategic_merge(
    document: Mapping[str, Any], patch: Mapping[str, Any], model: type[ApiStruct]
) -> dict[str, Any]:
    """Return ``document`` after the strategic merge ``patch``; lists merge as ``model`` says.

    Raises BadRequest for a directive or an item that cannot be applied.
    """
    if not isinstance(patch, Mapping):
        raise BadRequest("a strategic merge patch is a JSON object")
    merged = _merge_map(document, patch, StructOf(model))
    return merged if merged is not None else {}


def _merge_map(document: Mapping[str, Any], patch: Mapping[str, Any], shape: Shape) -> dict[str, Any] | None:
    """Return the merged map; None when the patch deletes it."""
    directive = patch.get(_PATCH)
    if directive == "delete":
        return None
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive not in (None, "merge"):
        raise BadRequest(f"unknown $patch directive {directive!r}: use replace, delete or merge")
    merged = dict(document)
    if _RETAIN in patch:
        merged = {key: value for key, value in merged.items() if key in patch[_RETAIN]}
    for key, value in patch.items():
        if key.startswith((_DELETE_ITEMS, _ORDER)) or key in (_RETAIN, _PATCH):
            continue
        _merge_field(merged, key, value, patch, shape)
    for key in patch:
        # A patch may only delete from, or only reorder, a list.
        if key.startswith((_DELETE_ITEMS, _ORDER)) and (field := key.split("/", 1)[1]) not in patch:
            _merge_field(merged, field, [], patch, shape)
    return merged


def _merge_field(merged: dict[str, Any], key: str, value: Any, patch: Mapping[str, Any], shape: Shape) -> None:
    """Merge one field of a patch into ``merged``."""
    below, rule = _below(shape, key)
    if value is None:
        merged.pop(key, None)
        return
    present = merged.get(key)
    if isinstance(value, Mapping):
        result = _merge_map(present if isinstance(present, Mapping) else {}, value, below)
        if result is None:
            merged.pop(key, None)
        else:
            merged[key] = result
    elif isinstance(value, list) and rule is not None and rule.merge:
        order = patch.get(_ORDER + key)
        if rule.patch_key:
            merged[key] = _merge_items(present or [], value, rule, below, order)
        else:
            merged[key] = _merge_scalars(present or [], value, patch.get(_DELETE_ITEMS + key, []), order)
    elif isinstance(value, list) and _is_ordering_only(key, patch):
        return
    else:
        merged[key] = value


def _is_ordering_only(key: str, patch: Mapping[str, Any]) -> bool:
    """Return whether the patch names a list without a rule only in a directive: nothing to do then."""
    return key not in patch


def _below(shape: Shape, key: str) -> tuple[Shape, ListRule | None]:
    """Return the shape of ``key`` within ``shape`` (of an item, for a list) and how its list merges."""
    match shape:
        case StructOf(model) if (field := fields_of(model).get(key)) is not None:
            inner = field.shape
            rule = list_rule(model.__name__, field.attribute)
            return (inner.items, rule) if isinstance(inner, ListOf) else (inner, None)
        case MapOf(values):
            return values, None
    return AnyJson(), None


def _merge_items(
    present: Sequence[Any], changes: Sequence[Any], rule: ListRule, shape: Shape, order: Sequence[Any] | None
) -> list[Any]:
    """Return a keyed list after ``changes``; items keep their place, new ones go to the end, ``order`` rearranges."""
    key = rule.patch_key
    if any(isinstance(each, Mapping) and each.get(_PATCH) == "replace" for each in changes):
        return [each for each in changes if not (isinstance(each, Mapping) and each.get(_PATCH) == "replace")]
    items = list(present)
    for change in changes:
        if not isinstance(change, Mapping) or key not in change:
            raise BadRequest(f"map: {change!r} does not contain declared merge key: {key}")
        places = [n for n, each in enumerate(items) if isinstance(each, Mapping) and each.get(key) == change[key]]
        if change.get(_PATCH) == "delete":
            items = [each for n, each in enumerate(items) if n not in places]
        elif places:
            items[places[0]] = _merge_map(items[places[0]], change, shape)
        else:
            items.append(_merge_map({}, change, shape))
    if order is None:
        return items
    return _ordered(items, [each.get(key) for each in order], lambda each: each.get(key))


def _merge_scalars(
    present: Sequence[Any], added: Sequence[Any], removed: Sequence[Any], order: Sequence[Any] | None
) -> list[Any]:
    """Return a list of scalars with ``removed`` taken out and what is missing of ``added`` put in."""
    items = [each for each in present if each not in removed]
    items += [each for each in added if each not in items]
    return items if order is None else _ordered(items, order, lambda each: each)


def _ordered(items: list[Any], order: Sequence[Any], identity: Any) -> list[Any]:
    """Return ``items`` arranged as ``order`` lists them; ones it does not list stay after their old neighbour."""
    rank = {value: place for place, value in enumerate(order)}
    last = -1
    keyed = []
    for position, item in enumerate(items):
        known = rank.get(identity(item))
        last = known if known is not None else last
        keyed.append(((last, known is None, position), item))
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
