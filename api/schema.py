"""OpenAPI facts: one definition for each struct, as the published document names and shapes them.

Written from the structs (``api.shapes``) and the merge rules (``api.merge_keys``); kubectl validates manifests and
computes its patches from them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from api import descriptions
from api.custom.published import published, root_name
from api.kinds.extensions import CustomResourceDefinition
from api.kinds.table import Kind
from api.merge_keys import ATOMIC_MAPS, ATOMIC_STRUCTS, GRANULAR, RETAIN_KEYS, ListRule, list_rule
from api.meta import DeleteOptions, ListMeta, ObjectMeta, Resource, Status
from api.shapes import AnyJson, Deduced, Field, ListOf, MapOf, ObjectOf, Scalar, Shape, StructOf, fields_of
from api.struct import ApiStruct

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
TIME = f"{META}.Time"
MICRO_TIME = f"{META}.MicroTime"
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1"
# Module -> the package its structs are published under, for those that do not bear the group's name.
_PACKAGES = {
    "api.meta": META,
    "api.kinds.pods": "io.k8s.api.core.v1",
    "api.kinds.volumes": "io.k8s.api.core.v1",
    "api.kinds.runtime": "io.k8s.api.node.v1",
    "api.kinds.batch_v1beta1": "io.k8s.api.batch.v1beta1",
    "api.kinds.discovery_v1beta1": "io.k8s.api.discovery.v1beta1",
    "api.kinds.networking_v1beta1": "io.k8s.api.networking.v1beta1",
    "api.kinds.policy_v1beta1": "io.k8s.api.policy.v1beta1",
    "api.kinds.metrics": "io.k8s.metrics.pkg.apis.metrics.v1beta1",
    "api.kinds.extensions": EXTENSIONS,
}
# Structs that lie with the kinds that use them, and are published elsewhere.
_PACKAGES_OF = {
    "FieldSelectorRequirement": META,
    "TopologySelectorLabelRequirement": "io.k8s.api.core.v1",
    "TopologySelectorTerm": "io.k8s.api.core.v1",
}
# The module has both versions of autoscaling; these are the older one's, all others the newer one's.
_AUTOSCALING_V1 = frozenset({
    "Scale", "ScaleSpec", "ScaleStatus", "HorizontalPodAutoscaler", "HorizontalPodAutoscalerSpec",
    "HorizontalPodAutoscalerStatus", "CrossVersionObjectReference",
})  # fmt: skip
# What a client must send is what is always written, but for the structs that are held by value: of those, these.
_BY_VALUE = frozenset({"metadata", "spec", "status", "template", "jobTemplate"})
_REQUIRED = frozenset(
    """
    apps.ControllerRevision.data apps.DaemonSet.spec apps.DaemonSetSpec.template apps.Deployment.spec
    apps.DeploymentSpec.template apps.ReplicaSet.spec apps.StatefulSet.spec apps.StatefulSetSpec.template
    authentication.TokenReview.spec authorization.LocalSubjectAccessReview.spec
    authorization.SelfSubjectAccessReview.spec authorization.SelfSubjectRulesReview.spec
    authorization.SubjectAccessReview.spec autoscaling.HorizontalPodAutoscaler.spec
    autoscaling.HorizontalPodAutoscalerV2.spec batch.CronJob.spec batch.CronJobSpec.jobTemplate batch.JobSpec.template
    certificates.CertificateSigningRequest.spec core.Event.metadata extensions.CustomResourceDefinition.spec
    storage.CSIDriver.spec storage.CSINode.spec storage.VolumeAttachment.spec
    volumes.PersistentVolumeClaimTemplate.spec
""".split()
)
# Fields that hold JSON of any type: (struct, attribute) -> the definition that says so.
_OF_ANY_TYPE = {
    ("JSONSchemaProps", "default"): "JSON",
    ("JSONSchemaProps", "example"): "JSON",
    ("JSONSchemaProps", "enum"): "JSON",
    ("JSONSchemaProps", "items"): "JSONSchemaPropsOrArray",
    ("JSONSchemaProps", "additional_items"): "JSONSchemaPropsOrBool",
    ("JSONSchemaProps", "additional_properties"): "JSONSchemaPropsOrBool",
    ("JSONSchemaProps", "dependencies"): "JSONSchemaPropsOrStringArray",
}

Schema = dict[str, Any]
# OpenAPI version -> what a reference starts with.
PREFIXES = {2: "#/definitions/", 3: "#/components/schemas/"}


def definition_name(model: type[ApiStruct]) -> str:
    """Return ``io.k8s.api.core.v1.Pod``."""
    name = model.__name__.removesuffix("V1beta1")
    package = _PACKAGES_OF.get(name) or _PACKAGES.get(model.__module__, "")
    if not package:
        group = model.__module__.rpartition(".")[2]
        version = "v2" if group == "autoscaling" and name not in _AUTOSCALING_V1 else "v1"
        package, name = f"io.k8s.api.{group}.{version}", name.removesuffix("V2")
    return f"{package}.{name}"


def kind_name(kind: Kind) -> str:
    """Return the definition name of a kind: ``io.k8s.api.core.v1.Pod``, ``com.example.stable.v1.CronTab``."""
    return root_name(kind.group, kind.version, kind.kind) if kind.custom is not None else definition_name(kind.model)


def list_name(kind: Kind) -> str:
    """Return the definition name of a kind's list."""
    package = kind_name(kind).rpartition(".")[0]
    return f"{package}.{kind.list_kind}"


def definitions(kinds: Iterable[Kind], *, version: int) -> dict[str, Schema]:
    """Return name -> schema for the kinds, their lists and every struct that they reach, in order of name.

    version: of OpenAPI, 2 or 3.
    """
    writer = _Writer(version)
    for kind in kinds:
        writer.add_kind(kind)
    for model in (Status, DeleteOptions):
        writer.add(model)
    return dict(sorted(writer.found.items()))


def group_version_kind(kind: Kind) -> dict[str, str]:
    """Return the value of ``x-kubernetes-group-version-kind`` for one kind."""
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


class _Writer:
    def __init__(self, version: int) -> None:
        self._version = version
        self._prefix = PREFIXES[version]
        self.found: dict[str, Schema] = {
            QUANTITY: self._either({"type": "string"}, "number"),
            INT_OR_STRING: self._either({"type": "string", "format": "int-or-string"}, "integer"),
            TIME: {"type": "string", "format": "date-time"},
            MICRO_TIME: {"type": "string", "format": "date-time"},
        }

    def _either(self, schema: Schema, other: str) -> Schema:
        """Return the schema of what may be of another type, too, which only v3 can say."""
        if self._version == 2:
            return schema
        kept = {key: value for key, value in schema.items() if key != "type"}
        return {"oneOf": [{"type": other}, {"type": schema["type"]}], **kept}

    def add_kind(self, kind: Kind) -> None:
        own = group_version_kind(kind)
        name = kind_name(kind)
        if kind.custom is not None:
            self.add(ObjectMeta)
            texts = descriptions.of(CustomResourceDefinition)
            head = {
                field: self._described(schema, texts.get(field, _OF_METADATA))
                for field, schema in (
                    ("apiVersion", {"type": "string"}),
                    ("kind", {"type": "string"}),
                    ("metadata", self._reference(definition_name(ObjectMeta))),
                )
            }
            self.found[name] = published(kind.custom.document, head, version=self._version)
        else:
            self.add(kind.model)
        self.found[name]["x-kubernetes-group-version-kind"] = [own]
        if "list" in kind.verbs:
            self.add(ListMeta)
            items = {"type": "array", "items": self._reference(name)}
            properties = {"apiVersion": {"type": "string"}, "items": items, "kind": {"type": "string"}}
            self.found[list_name(kind)] = {
                "type": "object",
                "required": ["items"],
                "properties": {**properties, "metadata": self._reference(definition_name(ListMeta))},
                "x-kubernetes-group-version-kind": [{**own, "kind": kind.list_kind}],
            }

    def add(self, model: type[ApiStruct]) -> None:
        name = definition_name(model)
        if name in self.found:
            return
        texts = descriptions.of(model)
        schema: Schema = {"description": texts[""]} if "" in texts else {}
        schema["type"] = "object"
        if model.__name__ in ATOMIC_STRUCTS:
            schema["x-kubernetes-map-type"] = "atomic"
        self.found[name] = schema  # before its fields: structs may refer to themselves
        fields = fields_of(model)
        if required := [each.name for each in fields.values() if is_required(model, each)]:
            schema["required"] = required
        schema["properties"] = {
            each.name: self._described(self._property(model, each), texts.get(each.name) or _of_struct(model, each))
            for each in fields.values()
        }

    def _described(self, schema: Schema, text: str) -> Schema:
        if not text:
            return schema
        if "$ref" in schema and self._version == 3:
            # Beside a reference v3 allows nothing.
            return {"description": text, "allOf": [{"$ref": schema.pop("$ref")}], **schema}
        return {"description": text, **schema}

    def _property(self, model: type[ApiStruct], field: Field) -> Schema:
        schema, place = self._schema(field.shape), (model.__name__, field.attribute)
        if (name := _OF_ANY_TYPE.get(place)) is not None:
            return self._of_any_type(name, field.shape)
        if isinstance(field.shape, ListOf):
            schema |= dict(_list_extensions(list_rule(*place)))
        if place in RETAIN_KEYS:
            schema["x-kubernetes-patch-strategy"] = "retainKeys"
        if place in ATOMIC_MAPS or place in GRANULAR:
            schema["x-kubernetes-map-type"] = "atomic" if place in ATOMIC_MAPS else "granular"
        return schema

    def _schema(self, shape: Shape) -> Schema:
        match shape:
            case AnyJson() | ObjectOf() | Deduced():
                return {"type": "object"}
            case Scalar("quantity"):
                return self._reference(QUANTITY)
            case Scalar("time"):
                return self._reference(TIME)
            case Scalar("micro-time"):
                return self._reference(MICRO_TIME)
            case Scalar("int-or-string"):
                return self._reference(INT_OR_STRING)
            case Scalar("integer"):
                return {"type": "integer", "format": "int64"}
            case Scalar("number"):
                return {"type": "number", "format": "double"}
            case Scalar("bytes"):
                return {"type": "string", "format": "byte"}
            case Scalar(name):
                return {"type": name}
            case ListOf(items):
                return {"type": "array", "items": self._schema(items)}
            case MapOf(values):
                return {"type": "object", "additionalProperties": self._schema(values)}
            case StructOf(model):
                self.add(model)
                return self._reference(definition_name(model))

    def _of_any_type(self, name: str, shape: Shape) -> Schema:
        """Return a reference to a definition without a type, or a list or map of it."""
        self.found.setdefault(f"{EXTENSIONS}.{name}", {})
        reference = self._reference(f"{EXTENSIONS}.{name}")
        match shape:
            case ListOf():
                return {"type": "array", "items": reference, "x-kubernetes-list-type": "atomic"}
            case MapOf():
                return {"type": "object", "additionalProperties": reference}
        return reference

    def _reference(self, name: str) -> Schema:
        return {"$ref": self._prefix + name}


def is_required(model: type[ApiStruct], field: Field) -> bool:
    """Return whether a client must send ``field``."""
    if field.name in ("apiVersion", "kind") and "metadata" in fields_of(model):
        return False
    if f"{model.__module__.rpartition('.')[2]}.{model.__name__}.{field.name}" in _REQUIRED:
        return True
    return field.required and not (field.name in _BY_VALUE and isinstance(field.shape, StructOf))


# What every object's metadata is said to be.
_OF_METADATA = (
    "Standard object's metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def _of_struct(model: type[ApiStruct], field: Field) -> str:
    """Return what is said of the struct that a field holds, for a field of which nothing is said."""
    if field.shape == StructOf(ObjectMeta) and issubclass(model, Resource):
        return _OF_METADATA
    return descriptions.of(field.shape.model).get("", "") if isinstance(field.shape, StructOf) else ""


def _list_extensions(rule: ListRule | None) -> Iterator[tuple[str, Any]]:
    if rule is None:
        yield "x-kubernetes-list-type", "atomic"
        return
    if rule.set_:
        yield "x-kubernetes-list-type", "set"
    elif rule.map_keys:
        yield "x-kubernetes-list-type", "map"
        yield "x-kubernetes-list-map-keys", list(rule.map_keys)
    else:
        yield "x-kubernetes-list-type", "atomic"
    if rule.merge:
        yield "x-kubernetes-patch-strategy", "merge,retainKeys" if rule.retain_keys else "merge"
    if rule.merge and rule.patch_key:
        yield "x-kubernetes-patch-merge-key", rule.patch_key
