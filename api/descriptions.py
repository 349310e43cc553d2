"""What the published API says of each struct and field: read from ``descriptions.json`` when somebody asks."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from api.struct import ApiStruct


@cache
def _all() -> Mapping[str, Mapping[str, str]]:
    data = Path(__file__).with_name("descriptions.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, dict[str, str]])


def of(model: type[ApiStruct]) -> Mapping[str, str]:
    """Return JSON name of a field -> its description; "" is the struct itself."""
    return _all().get(f"{model.__module__}.{model.__name__}", {})
