"""Expressions made into functions of their variables.

Every node becomes a closure; evaluating is calling. What may take long (iterations, and functions whose work grows with
their arguments) spends from a budget, so that no rule holds up a master. ``&&``, ``||`` and the quantifiers absorb
errors as the language's definition says: an error on one side does not matter when the other decides.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api.cel.functions import FUNCTIONS, as_key, invoke
from api.cel.syntax import Call, ListOf, Literal, MapOf, Name, Node, Select, parse
from api.cel.values import Budget, CelError, Optional, OverBudget, Type, no_overload, type_of


class Scope:
    """The variables of one evaluation and what is left of its budget."""

    __slots__ = ("budget", "variables")

    def __init__(self, variables: dict[str, Any], budget: Budget) -> None:
        self.variables = variables
        self.budget = budget


Evaluate = Callable[[Scope], Any]
TYPES = {
    "int": "int", "uint": "uint", "double": "double", "bool": "bool", "string": "string", "bytes": "bytes",
    "list": "list", "map": "map", "null_type": "null_type", "type": "type",
}  # fmt: skip
QUANTIFIERS = ("all", "exists", "exists_one", "existsOne")
MACROS = (*QUANTIFIERS, "map", "filter")
_ESCAPED = {"__underscores__": "__", "__dot__": ".", "__dash__": "-", "__slash__": "/"}
_ESCAPE = re.compile("|".join(_ESCAPED))


def field_name(identifier: str) -> str:
    """Return the property that an identifier stands for: ``a__dash__b`` -> ``a-b``, ``__if__`` -> ``if``."""
    if identifier in _ESCAPED or not identifier.startswith("__") or not identifier.endswith("__"):
        return _ESCAPE.sub(lambda match: _ESCAPED[match[0]], identifier)
    return identifier[2:-2]


def compiled(text: str) -> Evaluate:
    """Return the function of an expression; raises CelSyntaxError."""
    return build(parse(text))


def build(node: Node) -> Evaluate:
    """Return the function of a tree."""
    match node:
        case Literal(value):
            return lambda scope: value  # noqa: ARG005 - one signature for all
        case Name(name):
            return _variable(name)
        case Select():
            return _select(node)
        case ListOf(items):
            parts = [build(each) for each in items]
            return lambda scope: [each(scope) for each in parts]
        case MapOf(entries):
            return _map(entries)
        case Call():
            return _call(node)


def _variable(name: str) -> Evaluate:
    def evaluate(scope: Scope) -> Any:
        if name in scope.variables:
            return scope.variables[name]
        if name in TYPES:
            return Type(TYPES[name])
        raise CelError(f"undeclared reference to '{name}'")

    return evaluate


def _map(entries: Iterable[tuple[Node, Node]]) -> Evaluate:
    parts = [(build(key), build(value)) for key, value in entries]

    def evaluate(scope: Scope) -> Any:
        found: dict[Any, Any] = {}
        for key, value in parts:
            name = as_key(key(scope))
            if name in found:
                raise CelError(f"Failed with repeated key {name}")
            found[name] = value(scope)
        return found

    return evaluate


def _select(node: Select) -> Evaluate:
    operand, name = build(node.operand), field_name(node.field)
    if node.optional:
        return lambda scope: _look(operand(scope), name)

    def evaluate(scope: Scope) -> Any:
        value = operand(scope)
        if isinstance(value, Optional):
            return _look(value, name)
        if not isinstance(value, Mapping):
            raise CelError(f"type '{type_of(value)}' does not support field selection")
        if name not in value:
            raise CelError(f"no such key: {name}")
        return value[name]

    return evaluate


def _look(value: Any, key: Any) -> Optional:
    """Return what ``value`` has under ``key``, if it has anything there."""
    if isinstance(value, Optional):
        if not value.present:
            return value
        value = value.value
    if isinstance(value, Mapping):
        return Optional(present=True, value=value[key]) if key in value else Optional(present=False)
    if isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool):
        return Optional(present=True, value=value[key]) if 0 <= key < len(value) else Optional(present=False)
    raise no_overload("_[?_]", value, key)


def _call(node: Call) -> Evaluate:
    match node:
        case Call("has", (Select(operand, field),), None):
            return _has(build(operand), field_name(field))
        case Call(name, (Name(variable), *bodies), target) if target is not None and name in MACROS and bodies:
            weight = 1 + sum(map(weight_of, bodies))
            return _comprehension(name, build(target), variable, [build(each) for each in bodies], weight)
        case Call("bind", (Name(variable), initial, body), Name("cel")):
            return _bind(variable, build(initial), build(body))
        case Call(("optMap" | "optFlatMap") as name, (Name(variable), body), target) if target is not None:
            return _opt_map(build(target), variable, build(body), flat=name == "optFlatMap")
        case Call("_?_:_", (condition, yes, no)):
            return _conditional(build(condition), build(yes), build(no))
        case Call("_&&_", (left, right)):
            return _logical(build(left), build(right), decides=False)
        case Call("_||_", (left, right)):
            return _logical(build(left), build(right), decides=True)
        case Call("_[?_]", (operand, index)):
            value, key = build(operand), build(index)
            return lambda scope: _look(value(scope), as_key(key(scope)))
        case Call(name, arguments, Name(library)) if f"{library}.{name}" in FUNCTIONS:
            return _function(f"{library}.{name}", arguments)
    arguments = node.arguments if node.target is None else (node.target, *node.arguments)
    return _function(node.function, arguments)


def _function(name: str, arguments: Iterable[Node]) -> Evaluate:
    parts = [build(each) for each in arguments]
    function = FUNCTIONS.get(name)

    def evaluate(scope: Scope) -> Any:
        if function is None:
            raise CelError(f"undeclared reference to '{name}'")
        return invoke(name, function, [each(scope) for each in parts], scope.budget)

    return evaluate


def _has(operand: Evaluate, name: str) -> Evaluate:
    def evaluate(scope: Scope) -> bool:
        value = operand(scope)
        if isinstance(value, Optional):
            return _look(value, name).present
        if not isinstance(value, Mapping):
            raise CelError(f"type '{type_of(value)}' does not support field selection")
        return name in value

    return evaluate


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise no_overload(where, value)
    return value


def _conditional(condition: Evaluate, yes: Evaluate, no: Evaluate) -> Evaluate:
    return lambda scope: (yes if _truth(condition(scope), "_?_:_") else no)(scope)


def _logical(left: Evaluate, right: Evaluate, *, decides: bool) -> Evaluate:
    """Return ``&&`` (decided by false) or ``||`` (decided by true)."""
    name = "_||_" if decides else "_&&_"

    def evaluate(scope: Scope) -> bool:
        try:
            if _truth(left(scope), name) is decides:
                return decides
        except OverBudget:
            raise
        except CelError:
            if _truth(right(scope), name) is decides:
                return decides
            raise
        return _truth(right(scope), name)

    return evaluate


def _bind(variable: str, initial: Evaluate, body: Evaluate) -> Evaluate:
    return lambda scope: body(Scope({**scope.variables, variable: initial(scope)}, scope.budget))


def _opt_map(target: Evaluate, variable: str, body: Evaluate, *, flat: bool) -> Evaluate:
    def evaluate(scope: Scope) -> Any:
        value = target(scope)
        if not isinstance(value, Optional):
            raise no_overload("optMap", value)
        if not value.present:
            return value
        result = body(Scope({**scope.variables, variable: value.value}, scope.budget))
        return result if flat else Optional(present=True, value=result)

    return evaluate


def weight_of(node: Node) -> int:
    """Return how many nodes a tree has: what evaluating it once costs, iterations apart."""
    match node:
        case Select(operand):
            return 1 + weight_of(operand)
        case Call(_, arguments, target):
            return 1 + sum(map(weight_of, arguments)) + (weight_of(target) if target is not None else 0)
        case ListOf(items):
            return 1 + sum(map(weight_of, items))
        case MapOf(entries):
            return 1 + sum(weight_of(key) + weight_of(value) for key, value in entries)
    return 1


def _comprehension(name: str, target: Evaluate, variable: str, bodies: list[Evaluate], weight: int) -> Evaluate:
    test, result = bodies[0], bodies[-1]
    take: Callable[[Scope, Iterable[Any]], Any]
    match name, len(bodies):
        case "all", 1:
            take = lambda scope, items: _quantified(test, variable, scope, items, decides=False)  # noqa: E731
        case "exists", 1:
            take = lambda scope, items: _quantified(test, variable, scope, items, decides=True)  # noqa: E731
        case (("exists_one" | "existsOne"), 1):
            take = lambda scope, items: sum(_each(test, variable, scope, items, truth=True)) == 1  # noqa: E731
        case "filter", 1:
            take = lambda scope, items: _filtered(test, variable, scope, items)  # noqa: E731
        case "map", 1:
            take = lambda scope, items: list(_each(result, variable, scope, items))  # noqa: E731
        case "map", 2:
            take = lambda scope, items: list(  # noqa: E731
                _each(result, variable, scope, _filtered(test, variable, scope, items))
            )
        case _:
            raise CelError(f"found no matching overload for '{name}' with {len(bodies) + 1} arguments")

    def evaluate(scope: Scope) -> Any:
        items = target(scope)
        if not isinstance(items, list | dict):
            raise CelError(f"expression of type '{type_of(items)}' cannot be range of a comprehension")
        scope.budget.spend(weight * len(items))
        return take(scope, list(items))

    return evaluate


def _each(body: Evaluate, variable: str, scope: Scope, items: Iterable[Any], *, truth: bool = False) -> Iterable[Any]:
    """Yield ``body`` for every item."""
    inner = Scope(dict(scope.variables), scope.budget)
    for item in items:
        inner.variables[variable] = item
        value = body(inner)
        yield _truth(value, "exists_one") if truth else value


def _filtered(test: Evaluate, variable: str, scope: Scope, items: Iterable[Any]) -> list[Any]:
    items = list(items)
    return [item for item, kept in zip(items, _each(test, variable, scope, items, truth=True), strict=True) if kept]


def _quantified(test: Evaluate, variable: str, scope: Scope, items: Iterable[Any], *, decides: bool) -> bool:
    """Return ``all`` (decided by false) or ``exists`` (decided by true)."""
    inner = Scope(dict(scope.variables), scope.budget)
    failed: CelError | None = None
    for item in items:
        inner.variables[variable] = item
        try:
            if _truth(test(inner), "exists" if decides else "all") is decides:
                return decides
        except OverBudget:
            raise
        except CelError as error:
            failed = error
    if failed is not None:
        raise failed
    return not decides


def evaluate(function: Evaluate, variables: Mapping[str, Any], budget: Budget) -> Any:
    """Return the value of a compiled expression; raises CelError."""
    budget.spend(1)
    try:
        return function(Scope(dict(variables), budget))
    except RecursionError:
        raise CelError("expression is nested too deeply") from None
