"""Whatever an object of a served kind says, defaults, validation, printing and conversion judge it and never fail."""

import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api import apply as ssa
from api import codec, columns, conversion
from api.defaults import apply_defaults
from api.errors import ApiError
from api.kinds.table import TABLE, Kind
from api.shapes import AnyJson, ListOf, MapOf, Scalar, Shape, StructOf, fields_of
from api.validation.objects import faults_on_create, faults_on_update

KINDS = [kind for kind in TABLE if "create" in kind.verbs]
WORDS = (
    "", "a", "web", "a.b", "a-", "A", "10.0.0.1", "10.0.0.0/8", "::1", "50%", "*", "* * * * *", "@daily", "Always",
    "RollingUpdate", "In", "Exists", "ClusterIP", "None", "TCP", "IPv4", "Prefix", "/x", "..", "system-x", "Container",
    "ReadWriteOnce", "Utilization", "Resource", "storage", "cpu", "\u00e9", "x" * 300,
)  # fmt: skip
NUMBERS = (0, 1, -1, 5, 80, 65536, 2**31, 10**12)
QUANTITIES = ("0", "1", "1Gi", "-1", "100m", "1e3")


def document(shape: Shape, rng: random.Random, depth: int) -> Any:
    """Return something that may stand where ``shape`` is wanted."""
    match shape:
        case StructOf(model):
            chance = 0.9 if depth < 3 else 0.35 / (depth - 1)
            return {
                field.name: document(field.shape, rng, depth + 1)
                for field in fields_of(model).values()
                if rng.random() < chance and depth < 9
            }
        case ListOf(items):
            return [document(items, rng, depth + 1) for _ in range(rng.choice((0, 1, 1, 2)))]
        case MapOf(values):
            return {rng.choice(WORDS): document(values, rng, depth + 1) for _ in range(rng.choice((0, 1, 2)))}
        case Scalar("integer" | "number"):
            return rng.choice(NUMBERS)
        case Scalar("boolean"):
            return rng.random() < 0.5
        case Scalar("quantity"):
            return rng.choice(QUANTITIES)
        case Scalar("bytes"):
            return rng.choice(("", "YQ==", "YWJj"))
        case Scalar("int-or-string"):
            return rng.choice((*NUMBERS, *WORDS))
        case AnyJson():
            return rng.choice(({}, {"a": 1}, [], "x", 1))
    return rng.choice(WORDS)


def an_object(kind: Kind, rng: random.Random) -> dict[str, Any]:
    """Return a document of ``kind`` with metadata that is in order, mostly."""
    made = document(StructOf(kind.model), rng, 0)
    made |= {"apiVersion": kind.group_version, "kind": kind.kind}
    made["metadata"] = {"name": rng.choice(WORDS), "namespace": "default" if kind.namespaced else ""}
    return json.loads(json.dumps(made))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.group_version}/{kind.plural}")
@settings(max_examples=25, deadline=None)
@example(seed=65)  # a changed job template that carries managedFields
@given(seed=st.integers(0, 2**32))
def test_any_object_is_judged(kind: Kind, seed: int) -> None:
    rng = random.Random(seed)
    owner = kind if kind.stored_as is None else TABLE.preferred(*kind.stored_as)
    assert owner is not None
    states = []
    for _ in range(2):
        made = an_object(kind, rng)
        try:
            codec.decode(kind, made)
            stored = conversion.stored(kind, owner, made)
            apply_defaults(owner, stored)
            states.append(codec.decode(owner, stored))
        except ApiError:
            return
    old, new = states
    for fault in (*faults_on_create(owner, new), *faults_on_update(owner, old, new)):
        assert isinstance(fault.field, str)
        assert fault.message
    assert len(columns.cells(owner, new, 0.0)) == len(columns.of(owner))
    documents = [codec.to_document(each) for each in states]
    entries = ssa.track_update(owner, *documents, entries=(), manager="m", now="2026-01-01T00:00:00Z")
    assert all(entry["fieldsV1"] for entry in entries)
    if kind is not owner:
        codec.decode(kind, conversion.shown(kind, documents[1]))
