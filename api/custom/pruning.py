"""What a schema does to an object before anybody judges it: fields it does not know go, defaults come in.

Objects are plain JSON values, changed in place; the metadata of the object itself is nobody's business here.
Source: kubernetes.io, "Field pruning", "Defaulting", "Defaulting and Nullable".
"""

import copy
from collections.abc import Mapping
from typing import Any

from api.custom.schema import ABSENT, Schema

# What every object has, whatever its schema says.
ROOT = ("apiVersion", "kind", "metadata")


def prune(value: Any, schema: Schema, *, root: bool = False, path: str = "", pruned: list[str] | None = None) -> None:
    """Remove from ``value`` every field that ``schema`` does not know.

    root: ``value`` is a whole object, so apiVersion, kind and metadata stay as they are.
    pruned: receives the path of each field that went: ``spec.foo``.
    """
    if isinstance(value, dict):
        own = ROOT if root or schema.embedded else ()
        for name in list(value):
            if name in own:
                continue
            here = f"{path}.{name}" if path else name
            below = schema.properties.get(name)
            if below is not None:
                prune(value[name], below, path=here, pruned=pruned)
            elif schema.additional is not None:
                prune(value[name], schema.additional, path=here, pruned=pruned)
            elif not schema.preserve_unknown:
                del value[name]
                if pruned is not None:
                    pruned.append(here)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            prune(item, schema.items, path=f"{path}[{index}]", pruned=pruned)


def fill(value: Any, schema: Schema) -> None:
    """Bring the defaults of ``schema`` into ``value``; a null where none may stand is as good as nothing."""
    if isinstance(value, dict):
        for name, below in schema.properties.items():
            if below.default is not ABSENT and name not in value:
                value[name] = copy.deepcopy(below.default)
        for name in list(value):
            each = schema.properties.get(name, schema.additional)
            if each is not None:
                if value[name] is None and not each.nullable and each.default is not ABSENT:
                    value[name] = copy.deepcopy(each.default)
                fill(value[name], each)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            if item is None and not schema.items.nullable and schema.items.default is not ABSENT:
                value[index] = copy.deepcopy(schema.items.default)
            fill(value[index], schema.items)


def drop_nulls(value: Any, schema: Schema) -> None:
    """Remove from ``value`` the fields that are null though their schema has neither null nor a default for them."""
    if isinstance(value, dict):
        for name in list(value):
            below = schema.properties.get(name)
            if below is None:
                if schema.additional is not None:
                    drop_nulls(value[name], schema.additional)
            elif value[name] is None and not below.nullable and below.default is ABSENT and not below.preserve_unknown:
                del value[name]
            else:
                drop_nulls(value[name], below)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            drop_nulls(item, schema.items)


def embedded(value: Any, schema: Schema, path: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    """Return (path, object) for every whole object that ``value`` holds by ``x-kubernetes-embedded-resource``."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    if isinstance(value, Mapping):
        if schema.embedded:
            found.append((path, value))
        for name, each in value.items():
            below = schema.properties.get(name, schema.additional)
            if below is not None:
                found += embedded(each, below, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            found += embedded(item, schema.items, f"{path}[{index}]")
    return found
