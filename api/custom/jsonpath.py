"""The JSON paths that definitions use: in printer columns a small query, elsewhere the way to one field.

``.spec.replicas``, ``.metadata.labels['app.kubernetes.io/name']``, ``.status.conditions[?(@.type=="Ready")].status``,
``.spec.hosts[*].name``, ``.items[0]``. Source: kubernetes.io, "JSONPath Support"; the fields' descriptions.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\.\.(?P<deep>[\w\-/*]+)
      | \.(?P<name>(?:\\.|[^.\[\\\s])+)
      | \[\s*(?P<quote>['"])(?P<key>(?:\\.|(?!(?P=quote)).)*)(?P=quote)\s*\]
      | \[\s*\?\((?P<filter>[^\]]*)\)\s*\]
      | \[\s*(?P<slice>-?\d*:-?\d*(?::-?\d+)?)\s*\]
      | \[\s*(?P<index>-?\d+(?:\s*,\s*-?\d+)*)\s*\]
      | \[\s*(?P<all>\*)\s*\]""",
    re.VERBOSE,
)
_FILTER = re.compile(r"""\s*@(?P<path>\S*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<literal>'[^']*'|"[^"]*"|\S+)\s*)?""")


@lru_cache(maxsize=1024)
def compiled(path: str) -> tuple[Step, ...]:
    """Return the steps of ``path``; raises ValueError with what is wrong with it."""
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        raise ValueError(f"unrecognized character in action: {text[0]!r}")
    steps, at = [], 0
    while at < len(text):
        if text[at:] == ".":
            break
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"unexpected path at {text[at:]!r}")
        steps.append(_step(found))
        at = found.end()
    return tuple(steps)


def _step(found: re.Match[str]) -> Step:
    groups = found.groupdict()
    if groups["deep"] is not None:
        return _deep(groups["deep"])
    if groups["name"] is not None:
        return _every if groups["name"] == "*" else _field(re.sub(r"\\(.)", r"\1", groups["name"]))
    if groups["key"] is not None:
        return _field(re.sub(r"\\(.)", r"\1", groups["key"]))
    if groups["filter"] is not None:
        return _filter(groups["filter"])
    if groups["slice"] is not None:
        return _slice(groups["slice"])
    if groups["index"] is not None:
        return _indexes([int(each) for each in groups["index"].split(",")])
    return _every


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping) and name in value:
            yield value[name]

    return step


def _every(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _indexes(indexes: Sequence[int]) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            for index in indexes:
                if -len(value) <= index < len(value):
                    yield value[index]

    return step


def _slice(text: str) -> Step:
    parts = [int(each) if each else None for each in text.split(":")]
    wanted = slice(*parts)

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[wanted]

    return step


def _deep(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping):
            if name == "*":
                yield from value.values()
            elif name in value:
                yield value[name]
        for each in _every(value):
            yield from step(each)

    return step


def _filter(text: str) -> Step:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise ValueError(f"unrecognized filter: {text!r}")
    steps = compiled(found["path"]) if found["path"] else ()
    operator, literal = found["op"], _literal(found["literal"])

    def holds(item: Any) -> bool:
        values = list(walk(item, steps))
        return bool(values) and (operator is None or _compare(values[0], operator, literal))

    def step(value: Any) -> Iterator[Any]:
        yield from filter(holds, _every(value))

    return step


def _literal(text: str | None) -> Any:
    if text is None:
        return None
    if text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"unrecognized literal: {text!r}") from None


def _compare(value: Any, operator: str, literal: Any) -> bool:
    if isinstance(value, bool) is not isinstance(literal, bool) or isinstance(value, str) is not isinstance(
        literal, str
    ):
        return operator == "!="
    if operator in ("==", "!="):
        return bool((value == literal) is (operator == "=="))
    try:
        return bool(
            {"<": value < literal, "<=": value <= literal, ">": value > literal, ">=": value >= literal}[operator]
        )
    except TypeError:
        return False


def walk(value: Any, steps: Iterable[Step]) -> Iterator[Any]:
    """Yield everything that ``steps`` lead to from ``value``."""
    found: Iterable[Any] = (value,)
    for step in steps:
        found = [each for one in found for each in step(one)]
    yield from found


_SIMPLE = re.compile(r"(\.[^.\[\]\s]+|\[['\"][^\]'\"]+['\"]\])+")


def simple_steps(path: str) -> tuple[str, ...]:
    """Return the field names of a path without queries, ``.spec.replicas``; raises ValueError for another."""
    if not _SIMPLE.fullmatch(path):
        raise ValueError("is not a simple path of fields")
    found = re.findall(r"\.([^.\[\]\s]+)|\[['\"]([^\]'\"]+)['\"]\]", path)
    return tuple(name or key for name, key in found)


def get_field(document: Any, names: Sequence[str]) -> Any:
    """Return the value at a path of fields, or None."""
    for name in names:
        if not isinstance(document, Mapping):
            return None
        document = document.get(name)
    return document


def set_field(document: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Write ``value`` at a path of fields, in place; objects on the way that are missing are made."""
    for name in names[:-1]:
        below = document.get(name)
        if not isinstance(below, dict):
            below = document[name] = {}
        document = below
    document[names[-1]] = value
