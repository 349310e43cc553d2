"""Objects to judge, and what is said of them."""

import json
from typing import Any

from api import codec
from api.defaults import apply_defaults
from api.errors import Fault
from api.kinds.table import TABLE, Kind
from api.meta import Resource
from api.validation.objects import faults_on_create, faults_on_update

Document = dict[str, Any]

CONTAINER: Document = {"name": "c", "image": "i"}
POD: Document = {"spec": {"containers": [CONTAINER]}}
LABELLED: Document = {"metadata": {"labels": {"a": "b"}}}
SELECTOR: Document = {"matchLabels": {"a": "b"}}


def changed(document: Document, path: str, value: Any) -> Document:
    """Return a copy of ``document`` with ``value`` at a dotted path ("spec.containers.0.name"); None takes it out."""
    made: Document = json.loads(json.dumps(document))
    if not path:
        return made
    *way, last = path.split(".")
    node: Any = made
    for step in way:
        node = node[int(step)] if step.isdigit() else node.setdefault(step, {})
    if value is None:
        node.pop(last, None)
    else:
        node[int(last) if last.isdigit() else last] = value
    return made


def an_object(kind: str, document: Document) -> tuple[Kind, Resource]:
    """Return the row of ``kind`` and the defaulted object that ``document`` stands for."""
    row = next(row for row in TABLE if row.kind == kind and row.stored_as is None)
    metadata = {"name": "a"} | ({"namespace": "default"} if row.namespaced else {}) | document.get("metadata", {})
    document = {"apiVersion": row.group_version, "kind": kind} | document | {"metadata": metadata}
    document = json.loads(json.dumps(document))
    apply_defaults(row, document)
    return row, codec.decode(row, document)


def texts(faults: list[Fault]) -> list[str]:
    """Return faults as a client reads them."""
    return [f"{fault.field}: {fault.message}" for fault in faults]


def faults_of(kind: str, document: Document, path: str = "", value: Any = None) -> list[str]:
    """Return what is wrong with a new object: ``document`` with one thing changed."""
    return texts(faults_on_create(*an_object(kind, changed(document, path, value))))


def faults_of_change(kind: str, document: Document, path: str, value: Any) -> list[str]:
    """Return what is wrong with an update of ``document`` that changes one thing."""
    row, old = an_object(kind, document)
    _, new = an_object(kind, changed(document, path, value))
    return texts(faults_on_update(row, old, new))


def said(found: list[str], expected: list[str]) -> None:
    """Check that each fault begins as it should: what follows in some is a regular expression told of elsewhere."""
    assert len(found) == len(expected), found
    for text, start in zip(found, expected, strict=True):
        assert text.startswith(start), text
