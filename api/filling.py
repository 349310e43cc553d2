"""How rules of defaults are applied to a document: where a path leads, and when a field says nothing."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

Document = dict[str, Any]
Rule = tuple[str, Any]  # (path, value, or a function of the parent that returns a value or None for "leave it")


def reach(document: Any, path: list[str]) -> Iterator[Document]:
    """Yield every map that ``path`` (without its last step) leads to."""
    if not isinstance(document, dict):
        return
    if not path:
        yield document
        return
    step, rest = path[0], path[1:]
    if step.endswith("[]"):
        items = document.get(step[:-2])
        for item in items if isinstance(items, list) else ():
            yield from reach(item, rest)
    elif step == "*":
        for value in document.values():
            yield from reach(value, rest)
    else:
        yield from reach(document.get(step), rest)


class OrZero:
    """A default of a number whose zero means that nothing was said."""

    def __init__(self, value: int) -> None:
        self.value = value


def _says_nothing(present: Any, default: Any) -> bool:
    if isinstance(default, OrZero):
        return present in (None, 0)
    if isinstance(default, str):
        return present in (None, "")
    return present == [] if isinstance(default, list) and present is not None else present is None


def fill(document: Document, rules: tuple[Rule, ...], prefix: str = "") -> None:
    """Fill ``document`` in place by ``rules``, whose paths begin at ``prefix`` ("" or "spec.")."""
    for path, value in rules:
        *way, last = (prefix + path).split(".")
        for parent in reach(document, way):
            filled = value(parent) if callable(value) else value
            if filled is not None and _says_nothing(parent.get(last), filled):
                # Containers are copied: two objects must never share a default.
                parent[last] = filled.value if isinstance(filled, OrZero) else deepcopy(filled)
