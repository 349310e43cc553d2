"""Write ``api/kinds/*.py`` and ``api/meta.py`` from the models of PyPI's ``kubernetes`` client.

The client's models are made from the API's published OpenAPI document, so field names, types and which fields are
required are facts taken from there; ``tests/unit/api/test_kinds.py`` checks that the committed structs still agree.

Run: ``python tools/generate_kinds.py`` and read the diff.
"""

import keyword
import re
import subprocess
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from kubernetes.client import models  # noqa: E402 - its import warns

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from api.struct import json_name  # noqa: E402 - needs the path above

ROOT = Path(__file__).resolve().parent.parent

# Module -> (what it holds, the models it starts from). A model reached from an earlier module is imported from there.
MODULES: dict[str, tuple[str, list[str]]] = {
    "api.meta": (
        "What every object carries, and what the API answers when it answers no object.",
        ["V1ObjectMeta", "V1ListMeta", "V1LabelSelector", "V1Condition", "V1Status", "V1DeleteOptions"],
    ),
    "api.kinds.volumes": (
        "core/v1: volumes, claims and what backs them.",
        ["V1Volume", "V1PersistentVolume", "V1PersistentVolumeClaim"],
    ),
    "api.kinds.pods": ("core/v1: pods and what they are made of.", ["V1Pod", "V1PodTemplate", "V1Binding"]),
    "api.kinds.core": (
        "core/v1: everything but pods and volumes.",
        [
            "V1Namespace",
            "V1Node",
            "V1Service",
            "V1Endpoints",
            "V1ConfigMap",
            "V1Secret",
            "V1ServiceAccount",
            "V1ReplicationController",
            "CoreV1Event",
            "V1LimitRange",
            "V1ResourceQuota",
            "V1ComponentStatus",
        ],
    ),
    "api.kinds.apps": (
        "apps/v1: the controllers of long-running pods.",
        ["V1Deployment", "V1ReplicaSet", "V1DaemonSet", "V1StatefulSet", "V1ControllerRevision"],
    ),
    "api.kinds.batch": ("batch/v1: pods that run to completion.", ["V1Job", "V1CronJob"]),
    "api.kinds.autoscaling": (
        "autoscaling/v1 and v2: replica counts that follow load.",
        ["V1Scale", "V1HorizontalPodAutoscaler", "V2HorizontalPodAutoscaler"],
    ),
    "api.kinds.policy": ("policy/v1: disruption budgets and eviction.", ["V1PodDisruptionBudget", "V1Eviction"]),
    "api.kinds.networking": (
        "networking.k8s.io/v1: ingress and network policy.",
        ["V1Ingress", "V1IngressClass", "V1NetworkPolicy"],
    ),
    "api.kinds.discovery": ("discovery.k8s.io/v1: the endpoints of services.", ["V1EndpointSlice"]),
    "api.kinds.coordination": ("coordination.k8s.io/v1: who holds what, until when.", ["V1Lease"]),
    "api.kinds.events": ("events.k8s.io/v1: the newer face of events.", ["EventsV1Event"]),
    "api.kinds.rbac": (
        "rbac.authorization.k8s.io/v1: who may do what.",
        ["V1Role", "V1ClusterRole", "V1RoleBinding", "V1ClusterRoleBinding"],
    ),
    "api.kinds.storage": (
        "storage.k8s.io/v1: classes, drivers and attachments.",
        ["V1StorageClass", "V1VolumeAttachment", "V1CSIDriver", "V1CSINode", "V1CSIStorageCapacity"],
    ),
    "api.kinds.scheduling": ("scheduling.k8s.io/v1: which pods go first.", ["V1PriorityClass"]),
    "api.kinds.runtime": ("node.k8s.io/v1: container runtimes to choose from.", ["V1RuntimeClass"]),
    "api.kinds.certificates": ("certificates.k8s.io/v1: signing requests.", ["V1CertificateSigningRequest"]),
    "api.kinds.authentication": (
        "authentication.k8s.io/v1: tokens and who bears them.",
        ["V1TokenReview", "AuthenticationV1TokenRequest", "V1SelfSubjectReview"],
    ),
    "api.kinds.authorization": (
        "authorization.k8s.io/v1: may somebody do something?",
        [
            "V1SubjectAccessReview",
            "V1LocalSubjectAccessReview",
            "V1SelfSubjectAccessReview",
            "V1SelfSubjectRulesReview",
        ],
    ),
    "api.kinds.extensions": (
        "apiextensions.k8s.io/v1: kinds defined at run time.",
        ["V1CustomResourceDefinition"],
    ),
}

# Struct-valued fields that the real server holds by value, so that they are never absent.
HELD_BY_VALUE = {"metadata", "spec", "status", "template", "job_template"}
# Optional strings whose empty value means something else than their absence.
POINTERS = {"storage_class_name", "volume_attributes_class_name"}
# The same, by struct; clients count on finding these however empty they are.
POINTERS_OF = {("DiscoveryV1EndpointPort", "name")}
# Times that are always written, as null where there is none: strict clients read no time in an empty text.
NULL_TIMES = {("EventsV1Event", "event_time"), ("EventsV1EventSeries", "last_observed_time")}
# Fields that stay JSON: structs would turn the whole numbers of a schema into fractions.
KEPT_AS_JSON = {("V1CustomResourceValidation", "open_apiv3_schema")}
# What only server-side apply looks into: kept as bytes, so that every other reader of an object skips it.
RAW = {"fields_v1"}
# core/v1 and a group both have a type of this name; ours says which.
RENAMED = {
    "V2HorizontalPodAutoscaler": "HorizontalPodAutoscalerV2",
    "V2HorizontalPodAutoscalerSpec": "HorizontalPodAutoscalerSpecV2",
    "V2HorizontalPodAutoscalerStatus": "HorizontalPodAutoscalerStatusV2",
    "V2CrossVersionObjectReference": "CrossVersionObjectReferenceV2",
}
PREFIX = re.compile(r"^(Core|Events|Discovery|Storage|Rbac|Authentication|Resource|Apiextensions)?V\d(beta\d|alpha\d)?")
# A function is no ``list`` or ``dict`` to msgspec, so that the empty value of a required field is still written.
EMPTY = {"tuple": "()", "dict": "{}"}
SCALARS = {
    "str": "str",
    "bytes": "str",
    "datetime": "str",
    "int": "int",
    "float": "float",
    "bool": "bool",
    "object": "Any",
}


def struct_name(model: str) -> str:
    """Return our name for ``model``: ``V1PodSpec`` -> ``PodSpec``."""
    return RENAMED.get(model) or PREFIX.sub("", model)


def references(model: str) -> list[str]:
    """Return the models that ``model``'s fields name, in field order."""
    types = getattr(models, model).openapi_types.values()
    return [name for text in types for name in re.findall(r"\w+", text) if hasattr(models, name) and name != "object"]


def reach(model: str, seen: dict[str, str], module: str, order: list[str], path: tuple[str, ...] = ()) -> None:
    """Append ``model`` and what it needs to ``order``, needed ones first; a cycle is cut where it closes."""
    if model in seen or model in path:
        return
    for needed in references(model):
        reach(needed, seen, module, order, (*path, model))
    if model not in seen:
        seen[model] = module
        order.append(model)


def python_type(text: str, *, integer_or_string: bool) -> str:
    """Return our annotation for the client's type name."""
    if integer_or_string:
        return "int | str"
    if inner := re.fullmatch(r"List\[(.*)\]", text):
        return f"tuple[{python_type(inner[1], integer_or_string=False)}, ...]"
    if inner := re.fullmatch(r"Dict\[str, (.*)\]", text):
        return f"dict[str, {python_type(inner[1], integer_or_string=False)}]"
    return SCALARS.get(text) or f'"{struct_name(text)}"'


def default(annotation: str, *, attribute: str, required: bool, pointer: bool, json: str | None) -> tuple[str, str]:
    """Return the annotation and the right side of a field's line."""
    name = f', name="{json}"' if json else ""
    if annotation.startswith(("tuple", "dict")):
        kind = annotation.split("[", maxsplit=1)[0]
        if required:  # A function is no ``list`` or ``dict`` to msgspec, so the empty value is still written.
            return annotation, f"field(default_factory=lambda: {EMPTY[kind]}{name})"
        empty = "()" if kind == "tuple" else "{}"
        return annotation, f"field(default={empty}{name})" if kind == "tuple" and json else (
            f"field(default_factory=dict{name})" if json else empty
        )
    if attribute in RAW:
        return "msgspec.Raw", "msgspec.Raw()"
    is_struct = annotation.startswith('"')
    if required or (is_struct and attribute in HELD_BY_VALUE):
        if annotation == "Any":
            return annotation, f"field(default=None{name})" if json else "None"
        factory = annotation.strip('"') if is_struct else annotation.split(" ", maxsplit=1)[0]
        factory = f"lambda: {factory}()" if is_struct else factory
        return annotation, f"field(default_factory={factory}{name})"
    if annotation == "str" and not pointer:
        return annotation, f'field(default=""{name})' if json else '""'
    optional = annotation if annotation == "Any" else f"{annotation} | None"
    if is_struct:
        optional = f'"{annotation.strip(chr(34))} | None"'
    return optional, f"field(default=None{name})" if json else "None"


def struct_lines(model: str) -> list[str]:
    """Return the source lines of one struct."""
    cls = getattr(models, model)
    is_object = {"api_version", "kind", "metadata"} <= set(cls.openapi_types)
    base = "Resource" if is_object and cls.openapi_types["metadata"] == "V1ObjectMeta" else "ApiStruct"
    lines = [f"class {struct_name(model)}({base}, frozen=True, kw_only=True):", f'    """{title(model)}"""', ""]
    fields = []
    for attribute, text in cls.openapi_types.items():
        if base == "Resource" and attribute in ("api_version", "kind", "metadata"):
            continue
        if (model, attribute) in NULL_TIMES:
            fields.append(f"    {attribute}: str | None = field(default_factory=lambda: None)")
            continue
        # The client renames what would hide a word of Python or of pydantic: _from, var_schema.
        info = cls.model_fields.get(attribute) or cls.model_fields["var_" + attribute.lstrip("_")]
        name = attribute.lstrip("_")
        name = f"{name}_" if keyword.iskeyword(name) or name == "field" else name
        json = cls.attribute_map[attribute]
        alternatives = str(info.annotation)
        integer_or_string = text == "object" and "int" in alternatives and "str" in alternatives
        annotation, value = default(
            "Any" if (model, name) in KEPT_AS_JSON else python_type(text, integer_or_string=integer_or_string),
            attribute=name,
            required=info.is_required(),
            pointer=attribute in POINTERS or (model, attribute) in POINTERS_OF,
            json=None if json_name(name) == json else json,
        )
        fields.append(f"    {name}: {annotation} = {value}")
    return [*lines, *fields, ""] if fields else [*lines[:-1], ""]


def title(model: str) -> str:
    """Return a one-line docstring: the words of the name, spelled out."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", struct_name(model))
    return f"{words}."


def module_source(module: str, doc: str, order: list[str], seen: dict[str, str]) -> str:
    """Return the text of one generated module."""
    needed: dict[str, set[str]] = {}
    for model in order:
        for name in references(model):
            if seen[name] != module:
                needed.setdefault(seen[name], set()).add(struct_name(name))
    lines = [f'"""{doc}', "", "Generated by tools/generate_kinds.py from the published API; do not edit.", '"""', ""]
    body: list[str] = []
    for model in order:
        body += struct_lines(model) + [""]
    text = "\n".join(body)
    if "Any" in text:
        lines += ["from typing import Any", ""]
    if "msgspec." in text:
        lines += ["import msgspec"]
    if "field(" in text:
        lines += ["from msgspec import field", ""]
    if module != "api.meta" and "(Resource" in text:
        needed.setdefault("api.meta", set()).add("Resource")
    lines += [f"from {source} import {', '.join(sorted(names))}" for source, names in sorted(needed.items())]
    lines += ["from api.struct import ApiStruct", "", ""]
    if module == "api.meta":
        text += RESOURCE
    return "\n".join(lines) + text


RESOURCE = '''
class Resource(ApiStruct, frozen=True, kw_only=True):
    """The base of every kind: what any code may rely on without knowing which kind it holds."""

    api_version: str = field(default_factory=str)
    kind: str = field(default_factory=str)
    metadata: "ObjectMeta" = field(default_factory=lambda: ObjectMeta())
'''


def main() -> None:
    """Rewrite every generated module and format it."""
    seen: dict[str, str] = {}
    written = []
    for module, (doc, roots) in MODULES.items():
        order: list[str] = []
        for root in roots:
            reach(root, seen, module, order)
        path = ROOT / (module.replace(".", "/") + ".py")
        path.write_text(module_source(module, doc, order, seen))
        written.append(str(path))
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--quiet", "--fix-only", *written], check=True)
    subprocess.run([*ruff, "format", "--quiet", *written], check=True)


if __name__ == "__main__":
    main()
