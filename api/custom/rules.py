"""CEL rules of schemas (``x-kubernetes-validations``): refused, since nothing here evaluates them yet.

Accepted silently they would promise what nobody keeps.
"""

from collections.abc import Mapping
from typing import Any

from api.errors import Fault
from api.faults import forbidden


def rule_faults(schema: Mapping[str, Any], field: str) -> list[Fault]:
    """Return what is wrong with the rules of a schema that is otherwise right."""
    faults = []
    if schema.get("x-kubernetes-validations"):
        faults.append(forbidden(f"{field}.x-kubernetes-validations", "CEL rules are not supported by this server"))
    for name, each in (schema.get("properties") or {}).items():
        faults += rule_faults(each, f"{field}.properties[{name}]")
    for name in ("items", "additionalProperties"):
        if isinstance(each := schema.get(name), Mapping):
            faults += rule_faults(each, f"{field}.{name}")
    return faults
