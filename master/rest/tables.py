"""Objects as rows of a Table, which is what ``kubectl get`` prints, and as bare metadata."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from api import columns
from api.errors import BadRequest
from api.kinds.table import Kind
from api.meta import Resource
from master.rest.seam import Stored

INCLUDE = ("None", "Metadata", "Object")


class Printer:
    """Prints the objects of one kind as rows.

    include: what of the object travels beside each row: "None", "Metadata" (the default) or "Object".
    """

    def __init__(
        self, kind: Kind, *, version: str, include: str = "Metadata", now: Callable[[], float] = time.time
    ) -> None:
        if include not in ("", *INCLUDE):
            raise BadRequest(f'unrecognized includeObject value: "{include}"')
        self._kind = kind
        self._version = version
        self._include = include or "Metadata"
        self._now = now

    def table(
        self,
        items: Iterable[Stored],
        *,
        revision: int,
        continue_token: str = "",
        remaining: int | None = None,
        with_columns: bool = True,
    ) -> dict[str, Any]:
        """Return the Table of ``items``; a watch leaves the columns out after its first event."""
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if continue_token:
            metadata["continue"] = continue_token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
        now = self._now()
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{self._version}",
            "metadata": metadata,
            "columnDefinitions": [each.definition() for each in columns.of(self._kind)] if with_columns else None,
            "rows": [self._row(each, now) for each in items],
        }

    def _row(self, stored: Stored, now: float) -> dict[str, Any]:
        row = columns.cells(self._kind, stored.obj, now)
        shown: dict[str, Any] = {"cells": row}
        if self._include == "Metadata":
            shown["object"] = partial_metadata(stored.obj, self._version)
        elif self._include == "Object":
            shown["object"] = msgspec.Raw(stored.json)
        return shown


def partial_metadata(obj: Resource, version: str) -> dict[str, Any]:
    """Return the object reduced to its metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj.metadata}
