"""Write ``api/descriptions.json``, what ``kubectl explain`` says of built-in kinds, from PyPI's ``kubernetes`` client.

The client's models carry the descriptions of the API's published OpenAPI document. ``tests/unit/api/test_schema.py``
checks that the committed file still agrees with them.

Run: ``python tools/generate_descriptions.py`` and read the diff.
"""

import importlib
import inspect
import json
import pkgutil
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from kubernetes.client import models  # noqa: E402 - its import warns

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import api.kinds  # noqa: E402 - needs the path above
from api.shapes import fields_of  # noqa: E402
from api.struct import ApiStruct  # noqa: E402
from tools.generate_kinds import struct_name  # noqa: E402

Descriptions = dict[str, dict[str, str]]


def structs() -> list[type[ApiStruct]]:
    """Return every struct that kinds are made of, in order of name."""
    modules = ["api.meta", *(f"api.kinds.{each.name}" for each in pkgutil.iter_modules(api.kinds.__path__))]
    found = [
        cls
        for module in modules
        for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass)
        if issubclass(cls, ApiStruct) and cls.__module__ == module
    ]
    return sorted(found, key=key_of)


def key_of(struct: type[ApiStruct]) -> str:
    """Return the name under which a struct's descriptions are kept."""
    return f"{struct.__module__}.{struct.__name__}"


def model_of(struct: type[ApiStruct]) -> type | None:
    """Return the client's model of a struct: the one of its name with the same fields; the newest comes first."""
    names = set(fields_of(struct))
    found = [
        cls
        for name, cls in inspect.getmembers(models, inspect.isclass)
        if hasattr(cls, "openapi_types")
        and struct_name(name) == struct.__name__
        and set(cls.attribute_map.values()) == names
    ]
    return found[0] if found else None


def describe(model: type) -> dict[str, str]:
    """Return field -> description of a model; "" is the model itself."""
    own = (model.__doc__ or "").strip().partition("\n")[0].strip()
    found = {"": own} if own else {}
    for attribute, name in model.attribute_map.items():
        info = model.model_fields.get(attribute) or model.model_fields["var_" + attribute.lstrip("_")]
        if info.description:
            found[name] = info.description
    return found


def describe_all() -> Descriptions:
    """Return struct -> field -> description."""
    found = {key_of(struct): describe(model) for struct in structs() if (model := model_of(struct)) is not None}
    return {key: texts for key, texts in found.items() if texts}


def main() -> None:
    """Rewrite the file."""
    text = json.dumps(describe_all(), indent=0, ensure_ascii=False, sort_keys=True)
    (ROOT / "api" / "descriptions.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
