"""Objects as the store keeps them: JSON bytes first, structs only when somebody looks inside.

The store holds an object without its resourceVersion, which is the revision of its key. What is served carries it as
the first field of the metadata, spliced into the bytes, so that a list of ten thousand objects is a join of bytes.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from api import codec, fields
from api.custom.objects import CustomObject
from api.kinds.table import Kind
from api.meta import Resource
from api.selectors import FieldQuery, LabelQuery

_METADATA = b'"metadata":{'
_REVISION = re.compile(rb'"metadata":{"resourceVersion":"\d+",?')
# apiVersion and kind are written before the metadata; where they end, it begins.
_HEAD_BYTES = 600


def with_revision(data: bytes, revision: int) -> bytes:
    """Return stored or served bytes with ``revision`` as their resourceVersion."""
    bare = without_revision(data)
    at = bare.index(_METADATA) + len(_METADATA)
    comma = b"" if bare[at : at + 1] == b"}" else b","
    return b'%b"resourceVersion":"%d"%b%b' % (bare[:at], revision, comma, bare[at:])


def without_revision(data: bytes) -> bytes:
    """Return served bytes as the store holds them."""
    if (found := _REVISION.search(data, 0, _HEAD_BYTES)) is None:
        return data
    return data[: found.start()] + _METADATA + data[found.end() :]


def to_store(obj: Resource) -> bytes:
    """Return ``obj`` as the store holds it."""
    if obj.metadata.resource_version:
        obj = msgspec.structs.replace(obj, metadata=msgspec.structs.replace(obj.metadata, resource_version=""))
    return codec.encode(obj)


# Several watchers and informers look into the same fresh object; decoding is cheap enough to forget older ones, which
# would take four times the memory of their bytes.
@lru_cache(maxsize=512)
def _decoded(model: type[Resource], data: bytes) -> Resource:
    return codec.read_model(model, data)


def read_stored(kind: Kind, data: bytes) -> bytes:
    """Return ``data`` in the layout that this module relies on; raises ValueError if it is no object of ``kind``.

    What our masters wrote is in it already; something put by hand through the store's own API may not be.
    """
    if kind.custom is not None:
        assert issubclass(kind.model, CustomObject), kind
        return _in_layout(kind, kind.custom.read(kind.model, data))
    return _in_layout(kind, data)


def _in_layout(kind: Kind, data: bytes) -> bytes:
    if data.startswith(b'{"apiVersion":') and data.find(_METADATA, 0, _HEAD_BYTES) > 0:
        return data
    return to_store(codec.from_json(kind, data))


class _Outline(msgspec.Struct, frozen=True):
    uid: str = ""
    labels: dict[str, str] = {}


class _Outlined(msgspec.Struct, frozen=True):
    metadata: _Outline = _Outline()


_outline_decoder = msgspec.json.Decoder(_Outlined)
_NO_LABELS: Mapping[str, str] = {}


def read_uid(data: bytes) -> str:
    """Return the uid of an object without decoding the rest; raises ValueError for what is no object."""
    return _outline_decoder.decode(data).metadata.uid


class StoredObject:
    """One state of one object; immutable."""

    __slots__ = ("_fields", "_labels", "json", "kind", "name", "namespace", "revision")

    def __init__(self, kind: Kind, *, namespace: str, name: str, data: bytes, revision: int) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.json = with_revision(data, revision) if revision else data  # a dry run has none
        self.revision = revision
        self._labels: Mapping[str, str] | None = None
        self._fields: Mapping[str, str] | None = None

    @property
    def key(self) -> str:
        """Return its key within its place; lists are in this order."""
        return f"{self.namespace}/{self.name}" if self.kind.namespaced else self.name

    @property
    def obj(self) -> Resource:
        """Return the decoded object; shared, so read-only."""
        return _decoded(self.kind.model, self.json)

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels, without decoding the rest."""
        if self._labels is None:
            self._labels = _outline_decoder.decode(self.json).metadata.labels or _NO_LABELS
        return self._labels

    def field(self, label: str) -> str:
        """Return the value of a selectable field."""
        if label == "metadata.name":
            return self.name
        if label == "metadata.namespace":
            return self.namespace
        if self._fields is None:
            obj = self.obj
            self._fields = {path: get(obj) for path, get in fields.selectable(self.kind).items()}
        return self._fields[label]

    def at(self, revision: int) -> "StoredObject":
        """Return the same state under another revision: what a deletion shows."""
        return StoredObject(self.kind, namespace=self.namespace, name=self.name, data=self.json, revision=revision)


class Selection(msgspec.Struct, frozen=True):
    """Which objects of a place a reader wants, in the fields of the kind it asked for."""

    namespace: str = ""  # "": all
    labels: LabelQuery = LabelQuery()
    fields: FieldQuery = FieldQuery()

    def __call__(self, stored: StoredObject) -> bool:
        """Return whether ``stored`` is wanted."""
        return (
            (not self.namespace or stored.namespace == self.namespace)
            and (self.labels.everything or self.labels.matches(stored.labels))
            and (self.fields.everything or self.fields.matches(stored.field))
        )

    @property
    def unfiltered(self) -> bool:
        """Return whether everything in the namespace, or everything, is wanted."""
        return self.labels.everything and self.fields.everything

    @property
    def name(self) -> str:
        """Return the one name that is wanted, or the empty string."""
        return self.fields.exact("metadata.name") or ""

    @property
    def narrow(self) -> tuple[str, str] | None:
        """Return one (field, value) that every wanted object has, if the fields fix one."""
        exact = (each for each in self.fields.requirements if each.equal and each.path != "metadata.namespace")
        return next(((each.path, each.value) for each in exact), None)


Wanted = Callable[[StoredObject], bool]
