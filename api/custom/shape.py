"""A schema as a shape: which fields of a custom object have owners of their own, and which lists are keyed.

Source: kubernetes.io, "Server-Side Apply", "Merge strategy"; where a schema preserves unknown fields, maps are taken
apart and lists are not.
"""

from api.custom.schema import ABSENT, Schema
from api.merge_keys import ListRule
from api.meta import ObjectMeta
from api.shapes import AnyJson, Deduced, ListOf, MapOf, ObjectOf, Scalar, Shape, StructOf

Ruled = tuple[Shape, ListRule | None]
_HEAD: dict[str, Ruled] = {
    "apiVersion": (Scalar("string"), None),
    "kind": (Scalar("string"), None),
    "metadata": (StructOf(ObjectMeta), None),
}


def root_shape(schema: Schema) -> Shape:
    """Return the shape of a whole object."""
    fields = {name: _ruled(each) for name, each in schema.properties.items()}
    return ObjectOf(fields | _HEAD, rest=Deduced() if schema.preserve_unknown else AnyJson())


def _ruled(schema: Schema) -> Ruled:
    """Return the shape of a field and, if it is a list, how it merges."""
    if schema.items is not None:
        return ListOf(_ruled(schema.items)[0]), _list_rule(schema)
    if schema.map_type == "atomic" or schema.type not in ("object", ""):
        return AnyJson(), None
    if schema.additional is not None and not schema.properties:
        return MapOf(_ruled(schema.additional)[0]), None
    if schema.embedded or schema.properties:
        fields = {name: _ruled(each) for name, each in schema.properties.items()} | (_HEAD if schema.embedded else {})
        return ObjectOf(fields, rest=Deduced() if schema.preserve_unknown else AnyJson()), None
    return (Deduced() if schema.preserve_unknown else AnyJson()), None


def _list_rule(schema: Schema) -> ListRule | None:
    if schema.list_type == "set":
        return ListRule(set_=True)
    if schema.list_type != "map" or schema.items is None:
        return None
    known = ((key, schema.items.properties[key].default) for key in schema.list_keys if key in schema.items.properties)
    return ListRule(
        map_keys=schema.list_keys, key_defaults=tuple((key, each) for key, each in known if each is not ABSENT)
    )
