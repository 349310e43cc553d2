"""Compare ``api/protobuf_fields.py`` with the .proto files of a checkout of kubernetes/api.

Run: ``python tools/check_protobuf_fields.py <folder>``. Prints a row for each message whose numbers differ or are
missing, and exits with 1 if there are any; fields that only newer servers know are not counted.
"""

import re
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from api.kinds.table import TABLE
from api.protobuf_fields import NUMBERS
from api.shapes import ListOf, MapOf, Shape, StructOf, fields_of
from api.struct import ApiStruct

Fields = dict[int, tuple[str, str]]  # number -> (name, type)
# Module -> the folder of its messages, where it does not bear the name.
FOLDERS = {"pods": "core", "volumes": "core", "runtime": "node"}
ELSEWHERE = ("meta", "metrics", "extensions")


@cache
def messages(path: Path) -> dict[str, Fields]:
    """Return message -> its fields."""
    found = {}
    for each in re.finditer(r"^message (\w+) \{\n(.*?)^\}", path.read_text(), re.DOTALL | re.MULTILINE):
        lines = re.finditer(r"^  (?:optional |repeated )?(map<[^>]*>|[\w.]+) (\w+) = (\d+)", each[2], re.MULTILINE)
        found[each[1]] = {int(line[3]): (line[2], line[1]) for line in lines}
    return found


def structs(shape: Shape, seen: dict[type[ApiStruct], None]) -> None:
    """Add every struct that ``shape`` leads to."""
    match shape:
        case StructOf(model) if model not in seen:
            seen[model] = None
            for field in fields_of(model).values():
                structs(field.shape, seen)
        case ListOf(inner) | MapOf(inner):
            structs(inner, seen)


def wrong_fields(checkout: Path, model: type[ApiStruct]) -> list[str]:
    """Return what of one struct's row is not as the checkout has it."""
    module, name = model.__module__.rpartition(".")[2], model.__name__
    if module in ELSEWHERE or module.endswith("beta1"):
        return []
    folder = checkout / FOLDERS.get(module, module)
    older, newer = folder / "v1" / "generated.proto", folder / "v2" / "generated.proto"
    published = messages(older).get(name)
    # The older version of autoscaling keeps messages of the same names that its JSON never had.
    if newer.exists() and not (name.startswith("HorizontalPodAutoscaler") and not name.endswith("V2")):
        published = messages(newer).get(name.removesuffix("V2"), published)
    if published is None:
        return []
    row = NUMBERS.get(f"{module}.{name}") or NUMBERS.get(name) or {}
    if not row and published:
        return ["the row is missing"]
    return [
        f"{number}: {ours!r}, published {published.get(number, ('nothing', ''))[0]!r}"
        for number, ours in row.items()
        if not ours.startswith("*") and published.get(number, ("", ""))[0].lower() != ours.lower()
    ]


def main() -> None:
    """Print what differs."""
    seen: dict[type[ApiStruct], None] = {}
    for kind in TABLE:
        structs(StructOf(kind.model), seen)
    checkout = Path(sys.argv[1])
    lines = [f"{model.__module__}.{model.__name__} {line}" for model in seen for line in wrong_fields(checkout, model)]
    print("\n".join(lines) or f"{len(seen)} structs agree")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
