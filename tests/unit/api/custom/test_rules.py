"""CEL rules in schemas: what is wrong with rules, and what rules say of objects."""

import pytest

from api.custom.rules import broken_rules, rule_faults
from api.custom.schema import ABSENT, parse

INTEGER = {"type": "integer"}


def an(properties, *rules, **more):
    found = {"type": "object", "properties": properties, **more}
    return found | ({"x-kubernetes-validations": [dict(rule) for rule in rules]} if rules else {})


def rule(text, **more):
    return {"rule": text, **more}


@pytest.mark.parametrize(
    ("schema", "at", "says"),
    [
        (an({}, rule("")), "s.x-kubernetes-validations[0].rule", "Required value"),
        (an({"a": INTEGER}, rule("self.b > 1")), "s.x-kubernetes-validations[0].rule", "undefined field 'b'"),
        (an({"a": INTEGER}, rule("self.a >")), "s.x-kubernetes-validations[0].rule", "Syntax error"),
        (an({"a": INTEGER}, rule("other > 1")), "s.x-kubernetes-validations[0].rule", "undeclared reference to 'other'"),
        (an({"a": INTEGER}, rule("shout(self.a)")), "s.x-kubernetes-validations[0].rule", "undeclared reference to 'shout'"),
        (an({"a": INTEGER}, rule("true", reason="Because")), "s.x-kubernetes-validations[0].reason", "Unsupported value"),
        (an({"a": INTEGER}, rule("true", messageExpression="self.b")), "s.x-kubernetes-validations[0].messageExpression", "undefined field"),
        (an({"a": INTEGER}, rule("true ||\n false")), "s.x-kubernetes-validations[0].message", "contains line breaks"),
        (an({"a": an({"b": INTEGER}, rule("self.c == 1"))}), "s.properties[a].x-kubernetes-validations[0].rule", "undefined field 'c'"),
        (
            an({"l": {"type": "array", "items": an({"b": INTEGER}, rule("self.b == oldSelf.b"))}}),
            "s.properties[l].items.x-kubernetes-validations[0].rule", "uncorrelatable",
        ),
        (an({"l": {"type": "array", "items": an({"b": INTEGER})}}, rule("self.l.all(x, x.c > 1)")), "s.x-kubernetes-validations[0].rule", "undefined field 'c'"),
        (an({"t": {"type": "string"}}, rule("self.t.matches('(')")), "s.x-kubernetes-validations[0].rule", "error parsing regexp"),
    ],
)  # fmt: skip
def test_rules_that_are_refused(schema, at, says):
    found = [(fault.field, fault.message) for fault in rule_faults(schema, "s")]
    assert any(where == at and says in message for where, message in found), found


def test_rules_that_are_accepted():
    schema = an(
        {"a": INTEGER, "m": {"type": "object", "additionalProperties": an({"b": INTEGER})}},
        rule("self.a == oldSelf.a", reason="FieldValueForbidden", fieldPath=".a"),
        rule("self.m.all(k, self.m[k].b > 0)", messageExpression="'not ' + string(self.a)"),
        rule("!oldSelf.hasValue() || oldSelf.value().a <= self.a", optionalOldSelf=True),
        rule("self.?a.orValue(1) > 0 && type(self.a) == int"),
    )
    assert rule_faults(schema, "s") == []


def broken(schema, value, old=ABSENT):
    return [(each.field, each.message) for each in broken_rules(value, parse(schema), old=old)]


def test_a_broken_rule_says_what_its_author_wants():
    schema = an({"a": INTEGER}, rule("self.a > 1"))
    assert broken(schema, {"a": 1}) == [("<nil>", 'Invalid value: "object": failed rule: self.a > 1')]
    assert broken(schema, {"a": 2}) == []
    assert broken(schema, {}) == [("<nil>", 'Invalid value: "object": no such key: a evaluating rule: self.a > 1')]
    nested = an({"s": an({"a": INTEGER}, rule("self.a > 1", message="more!", fieldPath=".a"))})
    assert broken(nested, {"s": {"a": 0}}) == [("s.a", 'Invalid value: "object": more!')]
    told = an({"a": INTEGER}, rule("self.a > 1", message="m", messageExpression="'only ' + string(self.a)"))
    assert broken(told, {"a": 1}) == [("<nil>", 'Invalid value: "object": only 1')]
    required = an({"s": an({}, rule("false", reason="FieldValueRequired", message="give it"))})
    assert broken(required, {"s": {}}) == [("s", "Required value: give it")]


def test_rules_about_change_need_a_change():
    schema = an({"a": {**INTEGER, "x-kubernetes-validations": [rule("self == oldSelf", message="immutable")]}})
    assert broken(schema, {"a": 1}) == []
    assert broken(schema, {"a": 1}, {"a": 1}) == []
    assert broken(schema, {"a": 2}, {"a": 1}) == [("a", 'Invalid value: "integer": immutable')]
    assert broken(schema, {"a": 2}, {}) == []
    growing = an({"a": {**INTEGER, "x-kubernetes-validations": [rule("self > oldSelf")]}})
    assert broken(growing, {"a": 1}) == []
    either = an({"a": INTEGER}, rule("!oldSelf.hasValue() || self.a > oldSelf.value().a", optionalOldSelf=True))
    assert broken(either, {"a": 1}) == []
    assert len(broken(either, {"a": 1}, {"a": 2})) == 1


def test_what_has_not_changed_is_not_asked():
    schema = an({"a": an({"b": INTEGER}, rule("self.b > 1")), "c": INTEGER})
    assert broken(schema, {"a": {"b": 0}, "c": 2}, {"a": {"b": 0}, "c": 1}) == []
    assert len(broken(schema, {"a": {"b": 1}, "c": 1}, {"a": {"b": 0}, "c": 1})) == 1


def test_items_of_keyed_lists_know_what_they_were():
    items = an({"name": {"type": "string"}, "v": INTEGER}, rule("self.v >= oldSelf.v", message="shrinks"))
    keyed = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": items}
    schema = an({"l": keyed})
    old = {"l": [{"name": "a", "v": 2}, {"name": "b", "v": 2}]}
    assert broken(schema, {"l": [{"name": "b", "v": 3}, {"name": "a", "v": 1}]}, old) == [
        ("l[1]", 'Invalid value: "object": shrinks')
    ]


def test_values_have_the_types_of_their_schema():
    schema = an(
        {
            "n": {"type": "number"},
            "t": {"type": "string", "format": "date-time"},
            "d": {"type": "string", "format": "duration"},
            "x": {"x-kubernetes-int-or-string": True},
        },
        rule("type(self.n) == double && self.t.getFullYear() == 2024 && self.d > duration('1h')"),
        rule("type(self.x) == string ? self.x == '1%' : self.x == 1"),
    )
    assert rule_faults(schema, "s") == []
    value = {"n": 1, "t": "2024-05-05T00:00:00Z", "d": "2h"}
    assert broken(schema, value | {"x": 1}) == []
    assert broken(schema, value | {"x": "1%"}) == []


def test_an_endless_rule_ends():
    numbers = {"type": "array", "items": INTEGER}
    schema = an({"l": numbers}, rule("self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"))
    ((_, message),) = broken(schema, {"l": list(range(500))})
    assert "cost limit exceeded" in message
