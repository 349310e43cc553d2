"""All that is wrong with a CustomResourceDefinition, at once, and what an update may not change.

Source: the field descriptions of CustomResourceDefinition; kubernetes.io, "Extend the Kubernetes API with
CustomResourceDefinitions" and "Versions in CustomResourceDefinitions".
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from api.custom import jsonpath
from api.custom.definitions import is_established
from api.custom.naming import APPROVED, is_protected
from api.custom.rules import rule_faults
from api.custom.structure import schema_faults
from api.errors import Fault
from api.faults import check, check_given, duplicate, forbidden, immutable, required, too_many, unsupported, wrong
from api.kinds.extensions import (
    CustomResourceDefinition,
    CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion,
    CustomResourceSubresources,
)
from api.names import label_1035, subdomain

_APPROVAL_URL = "https://github.com/kubernetes/enhancements/pull/1111"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE_LIMIT = 8
_MIXED_CASE = "may have mixed case, but should otherwise match: "


def definition_faults(definition: CustomResourceDefinition) -> list[Fault]:
    """Return everything that is wrong with a new, defaulted definition; its metadata is checked elsewhere."""
    spec, faults = definition.spec, []
    if definition.metadata.name != f"{spec.names.plural}.{spec.group}":
        faults.append(wrong("metadata.name", definition.metadata.name, 'must be spec.names.plural+"."+spec.group'))
    faults += [*_group(spec.group, definition), *_scope(spec), *_names(spec.names), *_conversion(spec)]
    if spec.preserve_unknown_fields:
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        faults.append(wrong("spec.preserveUnknownFields", value=True, detail=why))
    return faults + list(_versions(spec))


def definition_change_faults(old: CustomResourceDefinition, new: CustomResourceDefinition) -> list[Fault]:
    """Return what an update of a definition changes and may not."""
    before, after, faults = old.spec, new.spec, []
    faults += immutable(before.group, after.group, "spec.group")
    faults += immutable(before.names.plural, after.names.plural, "spec.names.plural")
    if is_established(old):
        faults += immutable(before.scope, after.scope, "spec.scope")
        faults += immutable(before.names.kind, after.names.kind, "spec.names.kind")
    present = {each.name for each in after.versions}
    for index, name in enumerate(new.status.stored_versions):
        if name not in present:
            why = (
                "missing from spec.versions; "
                f"{name} was previously a storage version, and must remain in spec.versions until a storage migration "
                f"ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            )
            faults.append(wrong(f"status.storedVersions[{index}]", name, why))
    return faults


def _group(group: str, definition: CustomResourceDefinition) -> Iterator[Fault]:
    faults = check_given(subdomain, group, "spec.group")
    yield from faults
    if not faults and "." not in group:
        yield wrong("spec.group", group, "should be a domain with at least one dot")
    if is_protected(group):
        where, text = f"metadata.annotations[{APPROVED}]", definition.metadata.annotations.get(APPROVED, "")
        if not text:
            yield required(where, f'protected groups must have approval annotation "{APPROVED}", see {_APPROVAL_URL}')
        elif not text.startswith(("https://", "http://", "unapproved")):
            why = (
                f'protected groups must have approval annotation "{APPROVED}" with either a URL or a reason starting '
                f'with "unapproved", see {_APPROVAL_URL}'
            )
            yield wrong(where, text, why)


def _scope(spec: CustomResourceDefinitionSpec) -> Iterator[Fault]:
    if not spec.scope:
        yield required("spec.scope")
    elif spec.scope not in ("Cluster", "Namespaced"):
        yield unsupported("spec.scope", spec.scope, ("Cluster", "Namespaced"))


def _names(names: CustomResourceDefinitionNames) -> Iterator[Fault]:
    for name, value in (("plural", names.plural), ("singular", names.singular)):
        yield from check_given(label_1035, value, f"spec.names.{name}")
    for name, value in (("kind", names.kind), ("listKind", names.list_kind)):
        if not value:
            yield required(f"spec.names.{name}")
        for why in label_1035(value.lower()) if value else ():
            yield wrong(f"spec.names.{name}", value, _MIXED_CASE + why)
    for name, values in (("shortNames", names.short_names), ("categories", names.categories)):
        for index, value in enumerate(values):
            yield from check(label_1035, value, f"spec.names.{name}[{index}]")
    if names.kind and names.kind == names.list_kind:
        yield wrong("spec.names.listKind", names.list_kind, "kind and listKind may not be the same")


def _conversion(spec: CustomResourceDefinitionSpec) -> Iterator[Fault]:
    conversion = spec.conversion
    if conversion is None:
        return
    if conversion.strategy == "Webhook":
        # Accepted silently it would hand out objects of one version under the name of another.
        yield forbidden("spec.conversion.strategy", "conversion by webhook is not supported by this server: use None")
    elif conversion.strategy != "None":
        yield unsupported("spec.conversion.strategy", conversion.strategy, ("None", "Webhook"))
    elif conversion.webhook is not None:
        yield forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")


def _versions(spec: CustomResourceDefinitionSpec) -> Iterator[Fault]:
    versions, field = spec.versions, "spec.versions"
    names = [each.name for each in versions]
    if len(set(names)) != len(names):
        yield wrong(field, names, "must contain unique version names")
    if sum(each.storage for each in versions) != 1:
        yield wrong(field, names, "must have exactly one version marked as storage version")
    # One schema for all versions is told about as the real server does: it holds it outside of the versions.
    schemas = [each.schema.open_apiv3_schema if each.schema else None for each in versions]
    common = bool(schemas) and all(each == schemas[0] for each in schemas) and schemas[0] is not None
    if common:
        yield from _schema(schemas[0], "spec.validation.openAPIV3Schema")
    for index, version in enumerate(versions):
        at = f"{field}[{index}]"
        yield from check(label_1035, version.name, f"{at}.name")
        if schemas[index] is None:
            yield required(f"{at}.schema.openAPIV3Schema", "schemas are required")
        elif not common:
            yield from _schema(schemas[index], f"{at}.schema.openAPIV3Schema")
        if version.deprecation_warning and not version.deprecated:
            yield wrong(
                f"{at}.deprecationWarning", version.deprecation_warning, "can only be set for deprecated versions"
            )
        yield from _subresources(version.subresources, f"{at}.subresources")
        yield from _columns(version, f"{at}.additionalPrinterColumns")
        yield from _selectable(version, schemas[index], f"{at}.selectableFields")


def _schema(schema: Any, field: str) -> Iterable[Fault]:
    faults = schema_faults(schema, field)
    return faults or rule_faults(schema, field)


def _subresources(subresources: CustomResourceSubresources | None, field: str) -> Iterator[Fault]:
    if subresources is None or subresources.scale is None:
        return
    scale = subresources.scale
    for name, path, root, need in (
        ("specReplicasPath", scale.spec_replicas_path, ".spec.", True),
        ("statusReplicasPath", scale.status_replicas_path, ".status.", True),
        ("labelSelectorPath", scale.label_selector_path, (".spec.", ".status."), False),
    ):
        where = f"{field}.scale.{name}"
        if not path:
            if need:
                yield required(where)
            continue
        try:
            jsonpath.simple_steps(path)
        except ValueError as error:
            yield wrong(where, path, str(error))
            continue
        if not path.startswith(root):
            roots = root if isinstance(root, str) else " or ".join(root)
            yield wrong(where, path, f"should be a json path under {roots.rstrip('.')}")


def _columns(version: CustomResourceDefinitionVersion, field: str) -> Iterator[Fault]:
    for index, column in enumerate(version.additional_printer_columns):
        at = f"{field}[{index}]"
        if not column.name:
            yield required(f"{at}.name")
        if not column.type:
            yield required(f"{at}.type", f"must be one of {', '.join(_COLUMN_TYPES)}")
        elif column.type not in _COLUMN_TYPES:
            yield wrong(f"{at}.type", column.type, f"must be one of {', '.join(_COLUMN_TYPES)}")
        if column.format and column.format not in _COLUMN_FORMATS:
            yield wrong(f"{at}.format", column.format, f"must be one of {', '.join(_COLUMN_FORMATS)}")
        if not column.json_path:
            yield required(f"{at}.jsonPath")
            continue
        try:
            jsonpath.compiled(column.json_path)
        except ValueError as error:
            yield wrong(f"{at}.jsonPath", column.json_path, str(error))


def _selectable(version: CustomResourceDefinitionVersion, schema: Any, field: str) -> Iterator[Fault]:
    fields = version.selectable_fields
    if len(fields) > _SELECTABLE_LIMIT:
        yield too_many(field, len(fields), _SELECTABLE_LIMIT)
    for index, each in enumerate(fields):
        at, path = f"{field}[{index}].jsonPath", each.json_path
        if any(path == other.json_path for other in fields[:index]):
            yield duplicate(at, path)
        try:
            names = jsonpath.simple_steps(path)
        except ValueError as error:
            yield wrong(at, path, f"is an invalid path: {error}")
            continue
        if names[0] == "metadata":
            yield wrong(at, path, "must not point to fields in metadata")
        elif _type_at(schema, names) not in ("string", "boolean", "integer"):
            yield wrong(at, path, "must point to a field of type string, boolean or integer")


def _type_at(schema: Any, names: tuple[str, ...]) -> str:
    for name in names:
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        schema = properties.get(name) if isinstance(properties, Mapping) else None
    return str(schema.get("type", "")) if isinstance(schema, Mapping) else ""
