"""The table of functions: a row's function takes values as they are and raises for types that it does not take.

``invoke`` turns whatever Python refuses into the language's own error, and makes long arguments pay.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from api.cel.values import (
    Budget,
    CelError,
    no_overload,
    type_of,
)

_CHARACTERS_A_STEP = 10
Function = Callable[..., Any]
FUNCTIONS: dict[str, Function] = {}


F = TypeVar("F", bound=Function)


def named(*names: str) -> Callable[[F], F]:
    """Return a decorator that enters a function in the table."""

    def enter(function: F) -> F:
        for name in names:
            FUNCTIONS[name] = function
        return function

    return enter


def invoke(name: str, function: Function, values: list[Any], budget: Budget) -> Any:
    """Return what ``function`` makes of ``values``; raises CelError."""
    size = sum(len(each) for each in values if isinstance(each, str | bytes | list | dict))
    budget.spend(1 + size // _CHARACTERS_A_STEP)
    try:
        return function(*values)
    except CelError:
        raise
    except (TypeError, AttributeError, KeyError):
        raise no_overload(name, *values) from None
    except (ValueError, OverflowError, ArithmeticError) as error:
        raise CelError(f"{name}: {error}") from None


def as_key(value: Any) -> Any:
    """Return ``value`` as the key of a map or the index of a list."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str | int | bool):
        return value
    raise CelError(f"unsupported key type: {type_of(value)}")


def need(kind: Any, *values: Any) -> None:
    """Raise TypeError unless every value is of ``kind``; a bool is no number."""
    for each in values:
        if not isinstance(each, kind) or (isinstance(each, bool) and kind is not bool):
            raise TypeError(each)
