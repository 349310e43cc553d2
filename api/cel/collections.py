"""Strings, lists and sets."""

import re
from collections.abc import Mapping, Sequence
from functools import cmp_to_key
from itertools import pairwise
from typing import Any

from api.cel.operators import add, compare, is_in, to_string
from api.cel.registry import named, need
from api.cel.values import (
    CelError,
    Type,
    equal,
)
from api.custom.patterns import all_found, found_in, pattern_fault


@named("size")
def _size(value: Any) -> int:
    need(str | bytes | list | dict, value)
    return len(value)


@named("startsWith")
def _starts(text: Any, part: Any) -> bool:
    need(str, text, part)
    return bool(text.startswith(part))


@named("endsWith")
def _ends(text: Any, part: Any) -> bool:
    need(str, text, part)
    return bool(text.endswith(part))


@named("contains")
def _contains(whole: Any, part: Any) -> bool:
    need(str, whole, part)
    return part in whole


@named("matches")
def _matches(text: Any, pattern: Any) -> bool:
    need(str, text, pattern)
    if why := pattern_fault(pattern):
        raise CelError(why)
    return bool(found_in(pattern, text))


@named("find")
def _find(text: Any, pattern: Any) -> str:
    found: list[str] = _find_all(text, pattern, 1)
    return found[0] if found else ""


@named("findAll")
def _find_all(text: Any, pattern: Any, limit: int = -1) -> list[str]:
    need(str, text, pattern)
    if why := pattern_fault(pattern):
        raise CelError(why)
    found = all_found(pattern, text)
    return found if limit < 0 else found[:limit]


@named("charAt")
def _char_at(text: Any, index: int) -> str:
    need(str, text)
    if not 0 <= index <= len(text):
        raise CelError(f"index out of range: {index}")
    return str(text[index : index + 1])


@named("indexOf")
def _index_of(whole: Any, part: Any, start: int = 0) -> int:
    if isinstance(whole, list):
        return next((n for n, each in enumerate(whole) if equal(each, part)), -1)
    need(str, whole, part)
    return int(whole.find(part, start))


@named("lastIndexOf")
def _last_index_of(whole: Any, part: Any, start: int | None = None) -> int:
    if isinstance(whole, list):
        return next((n for n in range(len(whole) - 1, -1, -1) if equal(whole[n], part)), -1)
    need(str, whole, part)
    return int(whole.rfind(part) if start is None else whole.rfind(part, 0, start + len(part)))


@named("lowerAscii")
def _lower(text: Any) -> str:
    need(str, text)
    return "".join(each.lower() if each.isascii() else each for each in text)


@named("upperAscii")
def _upper(text: Any) -> str:
    need(str, text)
    return "".join(each.upper() if each.isascii() else each for each in text)


@named("replace")
def _replace(text: Any, old: Any, new: Any, limit: int = -1) -> str:
    need(str, text, old, new)
    return str(text.replace(old, new, limit))


@named("split")
def _split(text: Any, separator: Any, limit: int = -1) -> list[str]:
    need(str, text, separator)
    if limit in (0, 1):
        return [text] if limit else []
    if not separator:
        return list(text) if limit < 0 else [*text[: limit - 1], text[limit - 1 :]]
    return list(text.split(separator, limit - 1 if limit > 0 else -1))


@named("join")
def _join(parts: Any, separator: str = "") -> str:
    need(list, parts)
    need(str, separator, *parts)
    return separator.join(parts)


@named("substring")
def _substring(text: Any, start: int, end: int | None = None) -> str:
    need(str, text)
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise CelError(f"index out of range: {start}")
    return str(text[start:end])


@named("trim")
def _trim(text: Any) -> str:
    need(str, text)
    return str(text.strip())


@named("reverse")
def _reverse(value: Any) -> Any:
    need(str | list, value)
    return value[::-1]


@named("format")
def _format(template: Any, values: Any) -> str:
    need(str, template)
    need(list, values)
    left = list(values)

    def write(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if not left:
            raise CelError("index out of range in format")
        value, verb = left.pop(0), match["verb"]
        match verb:
            case "s":
                return _shown(value)
            case "d":
                return str(int(value))
            case "f" | "e":
                return f"{float(value):.{match['precision'] or 6}{verb}}"
            case "b":
                return f"{int(value):b}"
            case "o":
                return f"{int(value):o}"
        text = (
            value.encode().hex()
            if isinstance(value, str)
            else value.hex()
            if isinstance(value, bytes)
            else f"{value:x}"
        )
        return text.upper() if verb == "X" else text

    return re.sub(r"%%|%(?:\.(?P<precision>\d+))?(?P<verb>[sdfebxXo])", write, template)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_shown(key)}: {_shown(each)}" for key, each in sorted(value.items())) + "}"
    return "null" if value is None else value.name if isinstance(value, Type) else to_string(value)


@named("isSorted")
def _is_sorted(values: Any) -> bool:
    need(list, values)
    return all(compare(left, right) <= 0 for left, right in pairwise(values))


@named("sum")
def _sum(values: Any) -> Any:
    need(list, values)
    if not values:
        return 0
    total = values[0]
    for each in values[1:]:
        total = add(total, each)
    return total


@named("min")
def _min(values: Any) -> Any:
    return _ordered(values)[0]


@named("max")
def _max(values: Any) -> Any:
    return _ordered(values)[-1]


def _ordered(values: Any) -> Sequence[Any]:
    need(list, values)
    if not values:
        raise CelError("min or max called on empty list")
    return sorted(values, key=cmp_to_key(compare))


@named("distinct")
def _distinct(values: Any) -> list[Any]:
    need(list, values)
    found: list[Any] = []
    for each in values:
        if not any(equal(each, other) for other in found):
            found.append(each)
    return found


@named("flatten")
def _flatten(values: Any) -> list[Any]:
    need(list, values)
    return [inner for each in values for inner in (each if isinstance(each, list) else [each])]


@named("slice")
def _slice(values: Any, start: int, end: int) -> list[Any]:
    need(list, values)
    if not 0 <= start <= end <= len(values):
        raise CelError(f"cannot slice({start}, {end}), list has {len(values)} elements")
    return list(values[start:end])


@named("sets.contains")
def _sets_contains(left: Any, right: Any) -> bool:
    return all(is_in(each, left) for each in right)


@named("sets.equivalent")
def _sets_equivalent(left: Any, right: Any) -> bool:
    return bool(_sets_contains(left, right) and _sets_contains(right, left))


@named("sets.intersects")
def _sets_intersects(left: Any, right: Any) -> bool:
    return any(is_in(each, left) for each in right)
