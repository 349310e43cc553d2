import pytest

from api import selectors
from api.errors import BadRequest
from api.meta import LabelSelector, LabelSelectorRequirement


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("!a", {}, True),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b)", {}, False),
        ("a notin (b,c)", {}, True),
        ("a notin (b,c)", {"a": "b"}, False),
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "x"}, False),
        ("a=b,c", {"a": "b"}, False),
        ("a=b,c", {"a": "b", "c": "1"}, True),
        ("x.io/a=b", {"x.io/a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("in in (in)", {"in": "in"}, True),
    ],
)
def test_label_queries(text, labels, expected):
    assert selectors.parse_labels(text).matches(labels) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "a in (b", ",", "a,", "=b", "a b", "a>x", "-a", "a=b c", "a=-"])
def test_unreadable_label_queries_are_the_callers_fault(text):
    with pytest.raises(BadRequest, match="label selector"):
        selectors.parse_labels(text)


def test_an_absent_selector_matches_nothing_and_an_empty_one_everything():
    assert not selectors.of_struct(None).matches({})
    assert selectors.of_struct(LabelSelector()).matches({"a": "b"})
    both = LabelSelector(
        match_labels={"a": "b"}, match_expressions=(LabelSelectorRequirement(key="c", operator="DoesNotExist"),)
    )
    assert selectors.of_struct(both).matches({"a": "b"})
    assert not selectors.of_struct(both).matches({"a": "b", "c": ""})


def test_field_queries():
    query = selectors.parse_fields(r"a.b=c,d!=e\,f,g==h\=")
    assert query.requirements == (("a.b", "c", True), ("d", "e,f", False), ("g", "h=", True))
    assert query.exact("a.b") == "c"
    assert query.exact("d") is None
    assert query.matches({"a.b": "c", "d": "", "g": "h="}.__getitem__)
    with pytest.raises(BadRequest, match="invalid field selector"):
        selectors.parse_fields("a")
