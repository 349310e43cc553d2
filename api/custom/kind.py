"""What a row of the table knows of a custom kind, beyond what every row knows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from api.custom import jsonpath
from api.custom.checking import faults_of
from api.custom.objects import CustomObject, from_bytes, to_plain
from api.custom.pruning import drop_nulls, embedded, fill, prune
from api.custom.schema import ABSENT, Schema
from api.errors import Fault
from api.faults import required
from api.meta import Resource
from api.shapes import Shape

_encoder = msgspec.json.Encoder()


class PrinterColumn(msgspec.Struct, frozen=True):
    """One column that a definition adds to the name in tables."""

    name: str
    type: str
    path: str
    format: str = ""
    description: str = ""
    priority: int = 0

    def first(self, document: Mapping[str, Any]) -> Any:
        """Return the first value that the column's path finds, or None."""
        return next(jsonpath.walk(document, jsonpath.compiled(self.path)), None)


class ScalePaths(NamedTuple):
    """Where an object keeps what the scale subresource shows: names of fields, from the object down."""

    replicas: tuple[str, ...]
    status_replicas: tuple[str, ...]
    selector: tuple[str, ...] = ()


class Custom(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One version of a custom kind; compared by identity: a changed definition makes a new one."""

    definition: str  # the definition's name
    api_version: str
    kind: str
    list_kind: str
    storage_version: str
    document: Mapping[str, Any]  # the schema as the definition has it, for OpenAPI
    schema: Schema
    ruled: bool = False  # whether the schema has CEL rules
    shape: Shape  # for server-side apply
    columns: tuple[PrinterColumn, ...] = ()
    scale: ScalePaths | None = None
    selectable: Mapping[str, Callable[[Resource], str]] = {}  # label -> getter
    terminating: bool = False  # the definition is being deleted: nothing new comes in

    def complete(self, content: dict[str, Any], *, pruned: list[str] | None = None) -> None:
        """Make ``content``, all of an object but its head, what the schema makes of it: in place."""
        prune(content, self.schema, root=True, pruned=pruned)
        drop_nulls(content, self.schema)
        fill(content, self.schema)

    def read(self, model: type[CustomObject], data: bytes) -> bytes:
        """Return stored ``data``, maybe of another version, as this version shows it; raises ValueError.

        Between versions nothing but the apiVersion differs; an older object gets the defaults that came since.
        """
        obj = from_bytes(model, data)
        before = _encoder.encode(obj.content)
        self.complete(obj.content)
        if obj.api_version == self.api_version and _encoder.encode(obj.content) == before:
            return data
        return _encoder.encode(to_plain(msgspec.structs.replace(obj, api_version=self.api_version)))

    def faults(self, obj: CustomObject, old: CustomObject | None = None) -> list[Fault]:
        """Return everything that is wrong with an object's content; ``old``: the state that it replaces."""
        before = ABSENT if old is None else _whole(old)
        found = faults_of(_whole(obj), self.schema, old=before) + _embedded_faults(obj.content, self.schema)
        if found or not self.ruled:
            return found
        from api.custom.rules import broken_rules  # noqa: PLC0415 - CEL is large, and few kinds have rules

        return broken_rules(_whole(obj), self.schema, old=before)


def _whole(obj: CustomObject) -> dict[str, Any]:
    """Return ``obj`` as a schema sees it: of the metadata only the names may be restricted."""
    meta = obj.metadata
    names = {"name": meta.name, "generateName": meta.generate_name}
    shown = {key: value for key, value in names.items() if value}
    return {"apiVersion": obj.api_version, "kind": obj.kind, "metadata": shown, **obj.content}


def _embedded_faults(content: Mapping[str, Any], schema: Schema) -> list[Fault]:
    faults = []
    for path, value in embedded(content, schema):
        faults += [
            required(f"{path}.{name}", "must not be empty") for name in ("apiVersion", "kind") if not value.get(name)
        ]
        metadata = value.get("metadata")
        if metadata is not None and not isinstance(metadata, Mapping):
            faults.append(Fault(f"{path}.metadata", 'Invalid value: "": must be an object', "FieldValueInvalid"))
    return faults
