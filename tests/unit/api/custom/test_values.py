"""What a schema does to values: pruning, defaults, nulls, and what it says of wrong ones."""

import copy

import pytest

from api.custom.checking import faults_of
from api.custom.pruning import drop_nulls, fill, prune
from api.custom.schema import parse, same

STRING, INTEGER = {"type": "string"}, {"type": "integer"}
ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def an(properties, **more):
    return {"type": "object", "properties": properties, **more}


def listed(items, **more):
    return {"type": "array", "items": items, **more}


KEYED = listed(
    an({"name": STRING, "protocol": {"type": "string", "default": "TCP"}, "port": INTEGER}),
    **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "protocol"]},
)


@pytest.mark.parametrize(
    ("schema", "value", "left", "pruned"),
    [
        (an({"a": STRING}), {"a": "x", "b": 1}, {"a": "x"}, ["b"]),
        (an({"a": an({})}), {"a": {"b": {}}}, {"a": {}}, ["a.b"]),
        (an({"a": ANYTHING}), {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}, []),
        (an({"a": an({"b": an({})}, **{"x-kubernetes-preserve-unknown-fields": True})}), {"a": {"b": {"c": 1}, "d": 2}}, {"a": {"b": {}, "d": 2}}, ["a.b.c"]),
        (listed(an({"a": STRING})), [{"a": "x"}, {"b": 1}], [{"a": "x"}, {}], ["[1].b"]),
        ({"type": "object", "additionalProperties": an({"a": STRING})}, {"x": {"a": "1", "b": 2}}, {"x": {"a": "1"}}, ["x.b"]),
        ({"type": "object", "additionalProperties": True}, {"x": {"a": 1}}, {"x": {"a": 1}}, []),
        (
            an({"t": an({"spec": STRING}, **{"x-kubernetes-embedded-resource": True})}),
            {"t": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": "s", "z": 1}},
            {"t": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": "s"}},
            ["t.z"],
        ),
        (an({"a": STRING}), {"a": {"b": 1}}, {"a": {}}, ["a.b"]),
    ],
)  # fmt: skip
def test_pruning(schema, value, left, pruned):
    found = []
    prune(value, parse(schema), pruned=found)
    assert (value, found) == (left, pruned)


def test_the_head_of_an_object_is_not_pruned():
    value = {"apiVersion": "v1", "kind": "X", "metadata": {"any": 1}, "spec": 1}
    prune(value, parse(an({})), root=True)
    assert value == {"apiVersion": "v1", "kind": "X", "metadata": {"any": 1}}


@pytest.mark.parametrize(
    ("schema", "value", "filled"),
    [
        (an({"a": {"type": "string", "default": "x"}}), {}, {"a": "x"}),
        (an({"a": {"type": "string", "default": "x"}}), {"a": None}, {"a": "x"}),
        (an({"a": {"type": "string", "default": "x", "nullable": True}}), {"a": None}, {"a": None}),
        (an({"a": {"type": "string", "nullable": True}}), {"a": None}, {"a": None}),
        (an({"a": STRING}), {"a": None}, {}),
        (an({"a": an({"b": {"type": "integer", "default": 1}})}), {}, {}),
        (an({"a": an({"b": {"type": "integer", "default": 1}}, default={})}), {}, {"a": {"b": 1}}),
        (listed(an({"b": {"type": "integer", "default": 1}})), [{}, {"b": 2}], [{"b": 1}, {"b": 2}]),
        ({"type": "object", "additionalProperties": an({"b": {"type": "integer", "default": 1}})}, {"k": {}}, {"k": {"b": 1}}),
        ({"type": "object", "additionalProperties": {"type": "integer", "default": 1}}, {"k": None}, {"k": 1}),
        (listed({"type": "integer", "default": 1}), [None], [1]),
    ],
)  # fmt: skip
def test_defaults_and_nulls(schema, value, filled):
    parsed = parse(schema)
    drop_nulls(value, parsed)
    fill(value, parsed)
    assert value == filled


def test_a_default_is_copied():
    schema = parse(an({"a": an({"b": listed(STRING)}, default={"b": []})}))
    first, second = {}, {}
    fill(first, schema)
    fill(second, schema)
    first["a"]["b"].append("x")
    assert second == {"a": {"b": []}}


@pytest.mark.parametrize(
    ("schema", "value", "at", "says"),
    [
        (an({"a": STRING}), {"a": 1}, "a", 'Invalid value: "integer": a in body must be of type string: "integer"'),
        (an({"a": INTEGER}), {"a": True}, "a", 'Invalid value: "boolean": a in body must be of type integer: "boolean"'),
        (an({"a": INTEGER}), {"a": 1.5}, "a", 'Invalid value: "number": a in body must be of type integer: "number"'),
        (an({"a": STRING}), {"a": None}, "a", 'Invalid value: "null": a in body must be of type string: "null"'),
        (an({"a": {"x-kubernetes-int-or-string": True}}), {"a": []}, "a", 'Invalid value: "array": a in body must be of type integer,string: "array"'),
        (an({}, required=["a"]), {}, "a", "Required value"),
        (an({"s": an({}, required=["a"])}), {"s": {}}, "s.a", "Required value"),
        (an({"a": {"type": "string", "enum": ["x", "y"]}}), {"a": "z"}, "a", 'Unsupported value: "z": supported values: "x", "y"'),
        (an({"a": {"type": "integer", "enum": [1, 2]}}), {"a": 3}, "a", "Unsupported value: 3: supported values: 1, 2"),
        (an({"a": {"type": "string", "pattern": "^b+$"}}), {"a": "c"}, "a", "Invalid value: \"c\": a in body should match '^b+$'"),
        (an({"a": {"type": "string", "maxLength": 2}}), {"a": "abc"}, "a", "Too long: may not be more than 2 bytes"),
        (an({"a": {"type": "string", "minLength": 2}}), {"a": "a"}, "a", 'Invalid value: "a": a in body should be at least 2 chars long'),
        (an({"a": {"type": "integer", "minimum": 1}}), {"a": 0}, "a", "Invalid value: 0: a in body should be greater than or equal to 1"),
        (an({"a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True}}), {"a": 1}, "a", "Invalid value: 1: a in body should be greater than 1"),
        (an({"a": {"type": "integer", "maximum": 1, "exclusiveMaximum": True}}), {"a": 1}, "a", "Invalid value: 1: a in body should be less than 1"),
        (an({"a": {"type": "number", "maximum": 1.5}}), {"a": 2}, "a", "Invalid value: 2: a in body should be less than or equal to 1.5"),
        (an({"a": {"type": "number", "multipleOf": 0.1}}), {"a": 0.35}, "a", "Invalid value: 0.35: a in body should be a multiple of 0.1"),
        (an({"a": listed(INTEGER, maxItems=1)}), {"a": [1, 2]}, "a", "Too many: 2: must have at most 1 items"),
        (an({"a": listed(INTEGER, minItems=1)}), {"a": []}, "a", 'Invalid value: "array": a in body should have at least 1 items'),
        (an({"a": listed(INTEGER)}), {"a": [1, "x"]}, "a[1]", 'Invalid value: "string": a[1] in body must be of type integer: "string"'),
        (an({"a": {"type": "string", "format": "date-time"}}), {"a": "x"}, "a", 'Invalid value: "x": a in body must be of type date-time: "x"'),
        (an({"a": listed(STRING, **{"x-kubernetes-list-type": "set"})}), {"a": ["x", "x"]}, "a[1]", 'Duplicate value: "x"'),
        (an({"a": KEYED}), {"a": [{"name": "n", "protocol": "TCP"}, {"name": "n"}]}, "a[1]", 'Duplicate value: map[string]interface {}{"name":"n", "protocol":"TCP"}'),
        (an({"a": an({"b": STRING}, oneOf=[{"required": ["b"]}, {"required": ["c"]}])}), {"a": {}}, "<nil>", 'Invalid value: "": "a" must validate one and only one schema (oneOf). Found none valid'),
        (an({"a": {"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]}}), {"a": 3}, "<nil>", 'Invalid value: "": "a" must validate at least one schema (anyOf)'),
        (an({"a": {"type": "integer", "allOf": [{"minimum": 5}]}}), {"a": 3}, "<nil>", 'Invalid value: "": "a" must validate all the schemas (allOf)'),
        (an({"a": {"type": "integer", "not": {"minimum": 5}}}), {"a": 6}, "<nil>", 'Invalid value: "": "a" must not validate the schema (not)'),
        (an({"a": {"type": "object", "additionalProperties": INTEGER, "maxProperties": 1}}), {"a": {"x": 1, "y": 2}}, "a", "Too many: 2: must have at most 1 items"),
        (an({"a": {"type": "object", "additionalProperties": INTEGER}}), {"a": {"x": "1"}}, "a.x", 'Invalid value: "string": a.x in body must be of type integer: "string"'),
    ],
)  # fmt: skip
def test_faults(schema, value, at, says):
    assert (at, says) in [(each.field, each.message) for each in faults_of(value, parse(schema))]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (an({"a": INTEGER}), {"a": 1.0}),
        (an({"a": {"type": "number"}}), {"a": 1}),
        (an({"a": {"type": "number", "multipleOf": 0.1}}), {"a": 0.3}),
        (an({"a": {"type": "string", "format": "unheard-of"}}), {"a": "x"}),
        (an({"a": {"type": "string", "nullable": True}}), {"a": None}),
        (an({"a": {"x-kubernetes-int-or-string": True}}), {"a": "50%"}),
        (an({"a": {"type": "integer", "enum": [1]}}), {"a": 1.0}),
        (an({"a": KEYED}), {"a": [{"name": "n", "protocol": "TCP"}, {"name": "n", "protocol": "UDP"}]}),
        (an({"a": listed({"type": "boolean"}, **{"x-kubernetes-list-type": "set"})}), {"a": [True, False]}),
    ],
)
def test_what_is_right(schema, value):
    assert faults_of(value, parse(schema)) == []


FORMATS = {
    "date": (["2024-02-29"], ["2023-02-29", "2024-1-1", "x"]),
    "date-time": (["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5+02:00"], ["2024-01-01", "2024-01-01T25:00:00Z"]),
    "duration": (["1h", "1h30m", "22 ns", "0"], ["1", "h", "1 x"]),
    "email": (["a@b.c"], ["a", "a b@c"]),
    "hostname": (["a.b-c"], ["-a", "a..b"]),
    "ipv4": (["10.0.0.1"], ["10.0.0.256", "::1"]),
    "ipv6": (["::1"], ["10.0.0.1"]),
    "cidr": (["10.0.0.0/8", "10.1.2.3/8", "::/0"], ["10.0.0.0", "10.0.0.0/33"]),
    "mac": (["00:11:22:33:44:55"], ["00:11:22"]),
    "uuid": (["6ba7b810-9dad-11d1-80b4-00c04fd430c8"], ["x"]),
    "uuid4": (["f47ac10b-58cc-4372-a567-0e02b2c3d479"], ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
    "uri": (["https://a/b", "/a"], ["a b", "nothing"]),
    "byte": (["aGk="], ["!"]),
    "hexcolor": (["#fff", "aabbcc"], ["#ff"]),
    "rgbcolor": (["rgb(1, 2,255)"], ["rgb(1,2,256)"]),
    "isbn10": (["0-306-40615-2"], ["0-306-40615-3"]),
    "isbn13": (["978-0-306-40615-7"], ["978-0-306-40615-8"]),
    "creditcard": (["4111 1111 1111 1111"], ["4111 1111 1111 1112"]),
    "ssn": (["111-22-3333"], ["111-22-333"]),
    "bsonobjectid": (["507f1f77bcf86cd799439011"], ["507f"]),
    "k8s-short-name": (["a-b"], ["a.b"]),
    "k8s-long-name": (["a.b"], ["A"]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    schema = parse({"type": "string", "format": name})
    right, wrong = FORMATS[name]
    assert [text for text in right if faults_of(text, schema, path="a")] == []
    assert [text for text in wrong if not faults_of(text, schema, path="a")] == []


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, 1.0, True), (1, True, False), (0, False, False), ([1], [1.0], True), ([1], [True], False), ({"a": 0}, {"a": False}, False)],
)  # fmt: skip
def test_values_are_equal_as_json(left, right, equal):
    assert same(left, right) is equal


def test_what_has_not_changed_is_not_held_against_an_update():
    schema = parse(an({"a": {"type": "integer", "minimum": 5}, "b": {"type": "integer", "minimum": 5}, "l": KEYED}))
    old = {"a": 1, "b": 9, "l": [{"name": "n", "port": "x"}]}
    assert faults_of(old | {"b": 8}, schema, old=old) == []
    assert [each.field for each in faults_of(old | {"a": 2}, schema, old=old)] == ["a"]
    # Items of a keyed list are recognized wherever they move to.
    moved = old | {"l": [{"name": "m", "port": 1}, *copy.deepcopy(old["l"])]}
    assert faults_of(moved, schema, old=old) == []
    moved["l"][0]["port"] = "y"
    assert [each.field for each in faults_of(moved, schema, old=old)] == ["l[0].port"]
