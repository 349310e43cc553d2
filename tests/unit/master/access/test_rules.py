"""Rules as sets of requests: whether some cover others, held against every request there is in a small world."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from api.kinds.rbac import PolicyRule
from master.access.rules import Request, any_allows, joined, pieces, shown, uncovered
from master.access.user import User

ME = User("me")
VERBS, GROUPS, NAMES = ("get", "list"), ("", "apps"), ("", "a", "b")
RESOURCES = ("pods", "pods/log", "jobs", "jobs/log")
PATHS = ("/x", "/x/y", "/z")


def words(*values, least=1):
    return st.lists(st.sampled_from(values), min_size=least, max_size=2, unique=True).map(tuple)


RESOURCE_RULES = st.builds(
    PolicyRule,
    verbs=words(*VERBS, "*"),
    api_groups=words(*GROUPS, "*"),
    resources=words(*RESOURCES, "*", "*/log"),
    resource_names=words("a", "b", least=0),
)
PATH_RULES = st.builds(PolicyRule, verbs=words(*VERBS, "*"), non_resource_urls=words(*PATHS, "/x/*", "/x*", "*"))
ONE = st.one_of(RESOURCE_RULES, PATH_RULES)
RULES = st.lists(ONE, max_size=3)


@st.composite
def held_and_wanted(draw):
    """Rules that somebody holds, and others that differ from them in one part of one rule: where mistakes hide."""
    held = draw(st.lists(ONE, min_size=1, max_size=2))
    first, other = held[0], draw(PATH_RULES if held[0].non_resource_urls else RESOURCE_RULES)
    part = draw(st.sampled_from(("verbs", "api_groups", "resources", "resource_names", "non_resource_urls")))
    return held, [replace(first, **{part: getattr(other, part)}), *draw(RULES)[:1]]


def world():
    """Every request of the small world. "patch" and a third group stand for all that no rule names."""
    for verb, group, resource, name in itertools.product(
        (*VERBS, "patch"), (*GROUPS, "x"), (*RESOURCES, "nodes", "nodes/log"), (*NAMES, "c")
    ):
        plural, _, subresource = resource.partition("/")
        yield Request(ME, verb, group, plural, subresource, "", name)
    for verb, path in itertools.product((*VERBS, "patch"), (*PATHS, "/x/q", "/xq", "/q")):
        yield Request(ME, verb, path=path)


WORLD = list(world())


def allowed(rules):
    return {number for number, request in enumerate(WORLD) if any_allows(rules, request)}


@settings(max_examples=500, deadline=None)
@given(held_and_wanted())
def test_what_is_covered_grants_nothing_new(rules):
    """Goal: nobody grants what they do not hold. Method: compare with the requests that the rules allow, one by one."""
    held, wanted = rules
    if not uncovered(held, wanted):
        assert allowed(wanted) <= allowed(held)


@given(RULES)
def test_everybody_may_grant_what_they_hold(held):
    assert not uncovered(held, held)
    assert not uncovered([*held, PolicyRule(verbs=("x",))], held)


@given(RULES)
def test_pieces_are_the_whole(rules):
    parts = [piece for rule in rules for piece in pieces(rule)]
    assert allowed(parts) == allowed(joined(parts)) == allowed(rules)


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ({"resource_names": ("a", "b")}, {"resource_names": ("a",)}, True),
        ({"resource_names": ("a",)}, {"resource_names": ("a", "b")}, False),
        ({"resource_names": ("a",)}, {}, False),
        ({}, {"resource_names": ("a",)}, True),
        ({"resources": ("*/log",)}, {"resources": ("pods/log",)}, True),
        ({"resources": ("*/log",)}, {"resources": ("pods",)}, False),
        ({"resources": ("pods",)}, {"resources": ("pods/log",)}, False),
        ({"resources": ("*",)}, {"resources": ("*/log",)}, True),
        ({"api_groups": ("apps",)}, {"api_groups": ("*",)}, False),
        ({"verbs": ("*",)}, {"verbs": ("get", "x")}, True),
        ({"non_resource_urls": ("/x/*",)}, {"non_resource_urls": ("/x/y", "/x/*")}, True),
        ({"non_resource_urls": ("/x/*",)}, {"non_resource_urls": ("/x",)}, False),
        ({"non_resource_urls": ("/x/y",)}, {"non_resource_urls": ("/x/*",)}, False),
    ],
)
def test_covering(held, wanted, covered):
    plain = {"verbs": ("get",)}
    if "non_resource_urls" not in held:
        plain |= {"api_groups": ("",), "resources": ("pods",)}
    assert (not uncovered([PolicyRule(**(plain | held))], [PolicyRule(**(plain | wanted))])) is covered


def test_a_wildcard_is_more_than_all_that_is_there():
    everything = PolicyRule(verbs=("*",), api_groups=("*",), resources=("*",))
    many = PolicyRule(verbs=VERBS, api_groups=GROUPS, resources=RESOURCES)
    assert not uncovered([everything], [many])
    assert uncovered([many], [everything])


def test_how_a_refusal_shows_rules():
    rule = PolicyRule(verbs=("get", "list"), api_groups=("",), resources=("pods",), resource_names=("a",))
    parts = joined(pieces(rule))
    assert [shown(each) for each in parts] == [
        '{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "list"]}'
    ]
    assert shown(PolicyRule(verbs=("get",), non_resource_urls=("/x",))) == '{NonResourceURLs:["/x"], Verbs:["get"]}'
