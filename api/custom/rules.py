"""CEL rules of schemas (``x-kubernetes-validations``): what is wrong with the rules, and with objects by them.

A rule sees the value that its schema describes as ``self`` and, on an update, what stood there before as ``oldSelf``.
Source: kubernetes.io, "Validation rules" of CustomResourceDefinitions.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from api.cel import functions
from api.cel.evaluation import MACROS, TYPES, Evaluate, build, evaluate, field_name
from api.cel.syntax import Call, CelSyntaxError, Literal, Name, Node, Select, parse, parts
from api.cel.values import Budget, CelError, Optional, OverBudget
from api.custom.patterns import pattern_fault
from api.custom.schema import ABSENT, Rule, Schema, find_keyed, key_of, same
from api.custom.schema import parse as parse_schema
from api.errors import Fault
from api.faults import forbidden, required, unsupported, wrong

STEPS_A_RULE = 50_000
STEPS_AN_OBJECT = 100_000
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


@lru_cache(maxsize=2048)
def _function(text: str) -> Evaluate:
    return build(parse(text))


@lru_cache(maxsize=2048)
def _is_about_change(text: str) -> bool:
    return _mentions(parse(text), "oldSelf")


# -- the rules themselves ---------------------------------------------------------------------------------------------


def rule_faults(schema: Mapping[str, Any], field: str) -> list[Fault]:
    """Return what is wrong with the rules of a schema document that is otherwise right."""
    return list(_of_schema(schema, parse_schema(schema), field, transitions=True))


def _of_schema(document: Mapping[str, Any], schema: Schema, field: str, *, transitions: bool) -> Iterator[Fault]:
    for index, rule in enumerate(schema.rules):
        yield from _of_rule(rule, schema, f"{field}.x-kubernetes-validations[{index}]", transitions=transitions)
    for name, each in (document.get("properties") or {}).items():
        yield from _of_schema(each, schema.properties[name], f"{field}.properties[{name}]", transitions=transitions)
    if isinstance(each := document.get("additionalProperties"), Mapping) and schema.additional is not None:
        yield from _of_schema(each, schema.additional, f"{field}.additionalProperties", transitions=transitions)
    if isinstance(each := document.get("items"), Mapping) and schema.items is not None:
        # Items of other lists cannot be told from one state to the next.
        kept = transitions and schema.list_type == "map"
        yield from _of_schema(each, schema.items, f"{field}.items", transitions=kept)


def _of_rule(rule: Rule, schema: Schema, field: str, *, transitions: bool) -> Iterator[Fault]:
    text = rule.rule.strip()
    if not text:
        yield required(f"{field}.rule", "rule is not specified")
        return
    if rule.reason and rule.reason not in REASONS:
        yield unsupported(f"{field}.reason", rule.reason, REASONS)
    if rule.message and ("\n" in rule.message or not rule.message.strip()):
        yield wrong(f"{field}.message", rule.message, "message must not contain line breaks")
    if "\n" in text and not rule.message and not rule.message_expression:
        yield required(f"{field}.message", "message must be specified if rule contains line breaks")
    for name, expression in (("rule", text), ("messageExpression", rule.message_expression.strip())):
        if not expression:
            continue
        try:
            tree = parse(expression)
            _check(tree, {"self": schema, "oldSelf": schema if not rule.optional_old_self else None})
        except (CelSyntaxError, CelError) as error:
            yield wrong(f"{field}.{name}", expression, f"compilation failed: ERROR: <input>:1:1: {error}")
            continue
        if name == "rule" and not transitions and _mentions(tree, "oldSelf"):
            why = "oldSelf cannot be used on the uncorrelatable portion of the schema"
            yield wrong(f"{field}.rule", expression, why)


def _mentions(node: Node, name: str) -> bool:
    return node == Name(name) or any(_mentions(each, name) for each in parts(node))


# What is known of a value: the schema that describes it, or nothing.
Known = Schema | None


def _check(node: Node, variables: Mapping[str, Known]) -> Known:
    """Return what is known of a node's value; raises CelError for names, fields and functions that do not exist."""
    match node:
        case Name(name):
            if name not in variables and name not in TYPES:
                raise CelError(f"undeclared reference to '{name}' (in container '')")
            return variables.get(name)
        case Select(operand, field):
            return _field(_check(operand, variables), field_name(field))
        case Call("_[_]" | "_[?_]", (operand, index)):
            _check(index, variables)
            known = _check(operand, variables)
            return None if known is None else known.items or known.additional
        case Call(name, (Name(variable), *bodies), target) if target is not None and name in MACROS and bodies:
            known = _check(target, variables)
            item = known.items if known is not None else None
            for each in bodies:
                _check(each, {**variables, variable: item})
            return known if name == "filter" else None
        case Call("bind", (Name(variable), initial, body), Name("cel")):
            return _check(body, {**variables, variable: _check(initial, variables)})
        case Call("optMap" | "optFlatMap", (Name(variable), body), target) if target is not None:
            _check(target, variables)
            _check(body, {**variables, variable: None})
            return None
        case Call(name, arguments, target):
            _check_function(name, arguments, target)
            library = isinstance(target, Name) and f"{target.name}.{name}" in functions.FUNCTIONS
            for each in arguments if library or target is None else (*arguments, target):
                _check(each, variables)
            return None
    for each in parts(node):
        _check(each, variables)
    return None


def _field(known: Known, name: str) -> Known:
    if known is None or known.preserve_unknown or (not known.properties and known.additional is None):
        return None
    if known.additional is not None:
        return known.additional
    if name not in known.properties and not (known.embedded and name in ("apiVersion", "kind", "metadata")):
        raise CelError(f"undefined field '{name}'")
    return known.properties.get(name)


def _check_function(name: str, arguments: tuple[Node, ...], target: Node | None) -> None:
    special = ("has", "_?_:_", "_&&_", "_||_")
    library = f"{target.name}.{name}" if isinstance(target, Name) else ""
    if name not in functions.FUNCTIONS and name not in special and library not in functions.FUNCTIONS:
        raise CelError(f"undeclared reference to '{name}' (in container '')")
    match name, arguments[-1:]:
        case "matches", (Literal(str() as pattern),) if why := pattern_fault(pattern):
            raise CelError(why)


# -- objects ---------------------------------------------------------------------------------------------------------


def broken_rules(value: Any, schema: Schema, *, old: Any = ABSENT) -> list[Fault]:
    """Return every rule that ``value`` breaks; what has not changed since ``old`` is not asked about."""
    return list(_broken(value, schema, "", old, Budget(STEPS_AN_OBJECT)))


def _broken(value: Any, schema: Schema, path: str, old: Any, budget: Budget) -> Iterator[Fault]:
    if value is None or (old is not ABSENT and same(value, old)):
        return
    for rule in schema.rules:
        if (fault := _judged(rule, value, schema, path, old, budget)) is not None:
            yield fault
    if isinstance(value, Mapping):
        before = old if isinstance(old, Mapping) else {}
        for name, each in value.items():
            below = schema.properties.get(name, schema.additional)
            if below is not None:
                here = f"{path}.{name}" if path else name
                yield from _broken(each, below, here, before.get(name, ABSENT), budget)
    elif isinstance(value, list) and schema.items is not None:
        for index, item in enumerate(value):
            earlier = ABSENT
            if schema.list_type == "map" and isinstance(old, list):
                earlier = find_keyed(old, key_of(item, schema), schema)
            yield from _broken(item, schema.items, f"{path}[{index}]", earlier, budget)


def _judged(rule: Rule, value: Any, schema: Schema, path: str, old: Any, budget: Budget) -> Fault | None:
    """Return the fault of a value that breaks a rule."""
    text = rule.rule.strip()
    variables = {"self": to_cel(value, schema)}
    if rule.optional_old_self:
        variables["oldSelf"] = (
            Optional(present=False) if old is ABSENT else Optional(present=True, value=to_cel(old, schema))
        )
    elif _is_about_change(text):
        if old is ABSENT:
            return None  # a rule about change, and there is none
        variables["oldSelf"] = to_cel(old, schema)
    mine = Budget(min(STEPS_A_RULE, budget.left))
    try:
        kept = evaluate(_function(text), variables, mine)
        if kept is True:
            return None
        message = _message(rule, variables, mine)
    except OverBudget as error:
        return _fault(rule, path, schema, f"{error} evaluating rule: {rule.message or text}")
    except CelError as error:
        return _fault(rule, path, schema, f"{error} evaluating rule: {text}")
    finally:
        budget.left -= min(STEPS_A_RULE, budget.left) - max(mine.left, 0)
    return _fault(rule, path, schema, message)


def _message(rule: Rule, variables: Mapping[str, Any], budget: Budget) -> str:
    if rule.message_expression:
        try:
            text = evaluate(_function(rule.message_expression.strip()), variables, budget)
        except CelError:
            text = ""  # the message below says enough
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text.strip()
    return rule.message or f"failed rule: {rule.rule.strip()}"


def _fault(rule: Rule, path: str, schema: Schema, message: str) -> Fault:
    where = f"{path}{rule.field_path}" if path else rule.field_path.removeprefix(".")
    where = where or "<nil>"
    shown = schema.type or "object"
    make: Callable[[], Fault] | None = {
        "FieldValueRequired": lambda: required(where, message),
        "FieldValueForbidden": lambda: forbidden(where, message),
        "FieldValueDuplicate": lambda: Fault(where, f'Duplicate value: "{shown}"', "FieldValueDuplicate"),
    }.get(rule.reason)
    return make() if make is not None else wrong(where, shown, message)


def to_cel(value: Any, schema: Schema | None) -> Any:
    """Return a JSON value as rules see it: by its schema a text may be a time, a whole number a fraction."""
    if schema is None:
        return value
    match value:
        case Mapping():
            below = ((name, schema.properties.get(name, schema.additional)) for name in value)
            return {name: to_cel(value[name], each) for name, each in below}
        case list():
            return [to_cel(each, schema.items) for each in value]
        case int() if schema.type == "number" and not isinstance(value, bool):
            return float(value)
        case float() if schema.type == "integer":
            return int(value)
        case str() if schema.keywords.get("format"):
            return _formatted(value, schema.keywords["format"])
    return value


def _formatted(text: str, name: str) -> str | bytes | datetime | timedelta:
    try:
        match name:
            case "date-time" | "datetime":
                return functions.timestamp(text)
            case "date":
                return functions.timestamp(f"{text}T00:00:00Z")
            case "duration":
                return functions.duration(text)
    except CelError:
        return text
    return text
