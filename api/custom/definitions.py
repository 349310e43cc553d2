"""From a CustomResourceDefinition to the rows that it adds to the table."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from api.custom import jsonpath
from api.custom.kind import Custom, PrinterColumn, ScalePaths
from api.custom.objects import CustomObject
from api.custom.schema import ANYTHING, has_rules, parse
from api.custom.shape import root_shape
from api.kinds.extensions import (
    CustomResourceDefinition,
    CustomResourceDefinitionNames,
    CustomResourceDefinitionVersion,
    CustomResourceSubresources,
)
from api.kinds.table import STANDARD_VERBS, Kind
from api.meta import Resource

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
PLACE = ("apiextensions.k8s.io", "customresourcedefinitions")
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")


class Rows(msgspec.Struct, frozen=True):
    """What a definition adds: ``owner`` says how objects are stored, ``served`` is in the order of preference."""

    owner: Kind
    served: tuple[Kind, ...]


def version_rank(name: str) -> tuple[int, int, int, str]:
    """Return a key that sorts versions as clients prefer them: v2, v1, v1beta2, v1beta1, v1alpha1, others by name."""
    found = _VERSION.fullmatch(name)
    if found is None:
        return 1, 0, 0, name
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return 0, stage, -(int(found[1]) * 1000 + int(found[3] or 0)), ""


def condition_of(definition: CustomResourceDefinition, type_: str) -> str:
    """Return the status of a condition: "True", "False", or the empty string if it is not there."""
    return next((each.status for each in definition.status.conditions if each.type == type_), "")


def is_established(definition: CustomResourceDefinition) -> bool:
    """Return whether the kind is served."""
    return condition_of(definition, "Established") == "True"


def storage_version(definition: CustomResourceDefinition) -> CustomResourceDefinitionVersion | None:
    """Return the version that objects are stored in."""
    return next((each for each in definition.spec.versions if each.storage), None)


def rows_of(definition: CustomResourceDefinition, model: type[CustomObject]) -> Rows | None:
    """Return the rows of an established definition, None for another; ``model`` is the struct of its objects.

    Raises ValueError for a definition that validation would not have let pass.
    """
    storage = storage_version(definition)
    if not is_established(definition) or storage is None:
        return None
    versions = sorted(definition.spec.versions, key=lambda each: version_rank(each.name))
    rows = {each.name: _row(definition, each, model) for each in versions}
    served = tuple(rows[each.name] for each in versions if each.served)
    return Rows(rows[storage.name], served)


def _row(
    definition: CustomResourceDefinition, version: CustomResourceDefinitionVersion, model: type[CustomObject]
) -> Kind:
    spec = definition.spec
    names = definition.status.accepted_names or spec.names
    subresources = version.subresources or CustomResourceSubresources()
    return Kind(
        group=spec.group,
        version=version.name,
        kind=names.kind,
        plural=names.plural,
        singular=names.singular,
        short_names=names.short_names,
        categories=names.categories,
        namespaced=spec.scope == "Namespaced",
        model=model,
        verbs=STANDARD_VERBS,
        subresources=tuple(name for name in ("status", "scale") if getattr(subresources, name) is not None),
        deprecated=_deprecation(version, spec.group, names.kind),
        custom=_custom(definition, version, names),
    )


def _deprecation(version: CustomResourceDefinitionVersion, group: str, kind: str) -> str:
    if not version.deprecated:
        return ""
    return version.deprecation_warning or f"{group}/{version.name} {kind} is deprecated"


def _custom(
    definition: CustomResourceDefinition,
    version: CustomResourceDefinitionVersion,
    names: CustomResourceDefinitionNames,
) -> Custom:
    document: Mapping[str, Any] = (version.schema.open_apiv3_schema if version.schema else None) or {}
    schema = parse(document) if document else ANYTHING
    api_version = f"{definition.spec.group}/{version.name}"
    return Custom(
        definition=definition.metadata.name,
        api_version=api_version,
        kind=names.kind,
        list_kind=names.list_kind or f"{names.kind}List",
        storage_version=storage.name if (storage := storage_version(definition)) is not None else "",
        document=document,
        schema=schema,
        ruled=has_rules(schema),
        shape=root_shape(schema),
        columns=tuple(
            PrinterColumn(each.name, each.type, each.json_path, each.format, each.description, each.priority or 0)
            for each in version.additional_printer_columns
        ),
        scale=_scale(version.subresources),
        selectable={each.json_path.removeprefix("."): _getter(each.json_path) for each in version.selectable_fields},
        terminating=condition_of(definition, "Terminating") == "True" or bool(definition.metadata.deletion_timestamp),
    )


def _scale(subresources: CustomResourceSubresources | None) -> ScalePaths | None:
    if subresources is None or subresources.scale is None:
        return None
    scale = subresources.scale
    selector = scale.label_selector_path
    return ScalePaths(
        jsonpath.simple_steps(scale.spec_replicas_path),
        jsonpath.simple_steps(scale.status_replicas_path),
        jsonpath.simple_steps(selector) if selector else (),
    )


def _getter(path: str) -> Callable[[Resource], str]:
    """Return a function from an object to the value of a selectable field, as selectors write it."""
    names = jsonpath.simple_steps(path)

    def get(obj: Resource) -> str:
        assert isinstance(obj, CustomObject), obj
        value = jsonpath.get_field(obj.content, names)
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    return get
