"""RBAC rules as sets of requests: what one allows, and whether some rules allow all that another does. Pure.

Source: kubernetes.io, "Using RBAC Authorization"; a rule that names no resource names allows all of them.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from api.kinds.rbac import PolicyRule
from master.access.user import User


class Request(NamedTuple):
    """What a user wants to do: a verb on a resource, or, with ``path``, on a path that is no resource."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def qualified(self) -> str:
        """Return ``pods/log``, or ``pods``: how rules name the resource."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def make_rule(
    verbs: str, resources: str = "", *, groups: Sequence[str] = ("",), names: Sequence[str] = (), paths: str = ""
) -> PolicyRule:
    """Return a rule; ``verbs``, ``resources`` and ``paths`` are words in one text."""
    return PolicyRule(
        verbs=tuple(verbs.split()),
        api_groups=tuple(groups) if resources else (),
        resources=tuple(resources.split()),
        resource_names=tuple(names),
        non_resource_urls=tuple(paths.split()),
    )


def any_allows(rules: Iterable[PolicyRule], request: Request) -> bool:
    """Return whether one of ``rules`` allows ``request``."""
    return any(allows(rule, request) for rule in rules)


def allows(rule: PolicyRule, request: Request) -> bool:
    """Return whether one rule allows a request."""
    if request.verb not in rule.verbs and "*" not in rule.verbs:
        return False
    if request.path:
        return any(covers_path(each, request.path) for each in rule.non_resource_urls)
    return (
        (request.group in rule.api_groups or "*" in rule.api_groups)
        and any(covers_resource(each, request.qualified) for each in rule.resources)
        and (not rule.resource_names or request.name in rule.resource_names)
    )


def covers_path(pattern: str, path: str) -> bool:
    """Return whether ``pattern``, which may end in ``*``, names ``path`` (or all that the pattern ``path`` names)."""
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def covers_resource(pattern: str, qualified: str) -> bool:
    """Return whether ``pattern`` names a resource such as ``pods/log``, or all that a pattern names."""
    if pattern in ("*", qualified):
        return True
    _, slash, subresource = qualified.partition("/")
    return bool(slash) and pattern == f"*/{subresource}"


def pieces(rule: PolicyRule) -> Iterator[PolicyRule]:
    """Yield rules of one verb and one resource or path each, which together allow what ``rule`` does."""
    for verb, group, resource in itertools.product(rule.verbs, rule.api_groups, rule.resources):
        for name in rule.resource_names or (None,):
            yield PolicyRule(
                verbs=(verb,),
                api_groups=(group,),
                resources=(resource,),
                resource_names=() if name is None else (name,),
            )
    for verb, path in itertools.product(rule.verbs, rule.non_resource_urls):
        yield PolicyRule(verbs=(verb,), non_resource_urls=(path,))


def uncovered(held: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Return the pieces of ``wanted`` that go beyond what ``held`` allows."""
    return [piece for rule in wanted for piece in pieces(rule) if not any(_covers(each, piece) for each in held)]


def _covers(rule: PolicyRule, piece: PolicyRule) -> bool:
    if piece.verbs[0] not in rule.verbs and "*" not in rule.verbs:
        return False
    if piece.non_resource_urls:
        return any(covers_path(each, piece.non_resource_urls[0]) for each in rule.non_resource_urls)
    return (
        (piece.api_groups[0] in rule.api_groups or "*" in rule.api_groups)
        and any(covers_resource(each, piece.resources[0]) for each in rule.resources)
        # A rule for some names covers no piece for all of them.
        and (not rule.resource_names or (bool(piece.resource_names) and piece.resource_names[0] in rule.resource_names))
    )


def joined(parts: Iterable[PolicyRule]) -> list[PolicyRule]:
    """Return the pieces with those that differ in their verb alone put together, as refusals tell them."""
    verbs: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for part in parts:
        place = (part.api_groups, part.resources, part.resource_names, part.non_resource_urls)
        verbs.setdefault(place, []).append(part.verbs[0])
    return [
        PolicyRule(verbs=tuple(dict.fromkeys(found)), api_groups=g, resources=r, resource_names=n, non_resource_urls=u)
        for (g, r, n, u), found in verbs.items()
    ]


def shown(rule: PolicyRule) -> str:
    """Return a rule as the real server prints it: ``{APIGroups:[""], Resources:["pods"], Verbs:["get"]}``."""
    parts = (
        ("NonResourceURLs", rule.non_resource_urls),
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    return "{" + ", ".join(f"{name}:{_quoted(values)}" for name, values in parts if values) + "}"


def _quoted(values: Iterable[str]) -> str:
    return "[" + " ".join(f'"{each}"' for each in values) + "]"


def shown_user(user: User) -> str:
    """Return a user as refusals name them: ``user "alice" (groups=["devs" "system:authenticated"])``."""
    return f'user "{user.name}" (groups={_quoted(user.groups)})'
