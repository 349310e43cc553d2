"""Objects of kinds that are defined at run time: typed metadata, and everything else as plain JSON."""

from collections.abc import Mapping
from typing import Any

import msgspec

from api.meta import ObjectMeta, Resource
from api.struct import ApiStruct


class CustomObject(Resource, frozen=True, kw_only=True):
    """The base of every custom kind's struct; each kind has a subclass of its own, which tells them apart.

    content: every field of the object but apiVersion, kind and metadata, as JSON; read-only like the rest.
    """

    content: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it

    @property
    def status(self) -> Any:
        """Return the status, None if there is none."""
        return self.content.get("status")


class _Head(ApiStruct, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


_head_decoder = msgspec.json.Decoder(_Head)


def make_model(kind: str) -> type[CustomObject]:
    """Return a struct for the objects of one kind."""
    return msgspec.defstruct(kind, [], bases=(CustomObject,), frozen=True, kw_only=True)  # type: ignore[return-value]


def from_bytes(model: type[CustomObject], data: bytes) -> CustomObject:
    """Return the object that ``data`` holds; raises ValueError if it holds none."""
    content = msgspec.json.decode(data)
    head = _head_decoder.decode(data)
    for name in ("apiVersion", "kind", "metadata"):
        content.pop(name, None)
    return model(api_version=head.api_version, kind=head.kind, metadata=head.metadata, content=content)


def to_plain(obj: CustomObject) -> dict[str, Any]:
    """Return the object's fields in the order in which they are written; the metadata is still a struct."""
    return {"apiVersion": obj.api_version, "kind": obj.kind, "metadata": obj.metadata, **obj.content}


def with_field(obj: CustomObject, name: str, value: Any) -> CustomObject:
    """Return ``obj`` with one top-level field replaced; None takes it away."""
    content = {key: each for key, each in obj.content.items() if key != name}
    if value is not None:
        content[name] = value
    return msgspec.structs.replace(obj, content=content)


def as_document(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a JSON object that the caller may change at any depth."""
    copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value))
    return copied
