"""Which rules hold for the objects of which kind: (group, plural) -> what returns their faults.

SPEC_RULES judge an object whenever it is written, CREATE_RULES only a new one, CHANGE_RULES an update: (old, new).
FACE_RULES judge who writes by a face that refuses more than its place.
"""

from collections.abc import Callable, Mapping
from typing import Any

from api.custom.definitions import PLACE as DEFINITIONS
from api.errors import Fault
from api.kinds.extensions import CustomResourceDefinition
from api.validation import batch, cluster, data, events, networking, pods, scaling, services, storage, workloads

_PODS = ("", "pods")


def _definition_faults(definition: CustomResourceDefinition) -> list[Fault]:
    from api.custom import definition_rules  # noqa: PLC0415 - with what reads CEL, it is large, and definitions are few

    return definition_rules.definition_faults(definition)


def _definition_change_faults(old: CustomResourceDefinition, new: CustomResourceDefinition) -> list[Fault]:
    from api.custom import definition_rules  # noqa: PLC0415 - as above

    return definition_rules.definition_change_faults(old, new)


SPEC_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    **batch.SPEC_RULES,
    **cluster.SPEC_RULES,
    **data.SPEC_RULES,
    **networking.SPEC_RULES,
    **scaling.SPEC_RULES,
    **services.SPEC_RULES,
    **storage.SPEC_RULES,
    **workloads.SPEC_RULES,
    DEFINITIONS: _definition_faults,
    _PODS: pods.pod_faults,
}
# (group, version, plural) of a face -> what it refuses of (old, new); old is None for a new object.
FACE_RULES: Mapping[tuple[str, str, str], Callable[[Any, Any], list[Fault]]] = {
    ("events.k8s.io", "v1", "events"): events.event_faults,
}
CREATE_RULES: Mapping[tuple[str, str], Callable[[Any], list[Fault]]] = {
    **batch.CREATE_RULES,
    **networking.CREATE_RULES,
    _PODS: pods.new_pod_faults,
}
CHANGE_RULES: Mapping[tuple[str, str], Callable[[Any, Any], list[Fault]]] = {
    **cluster.CHANGE_RULES,
    **batch.CHANGE_RULES,
    **data.CHANGE_RULES,
    **networking.CHANGE_RULES,
    **services.CHANGE_RULES,
    **storage.CHANGE_RULES,
    **workloads.CHANGE_RULES,
    DEFINITIONS: _definition_change_faults,
    _PODS: pods.pod_change_faults,
}
