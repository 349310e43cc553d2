"""Priorities: what a pod's class is worth, and the class of pods that name none.

Source: kubernetes.io, "Pod Priority and Preemption".
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from msgspec.structs import replace

from api.errors import Fault, invalid
from api.kinds.pods import Pod
from api.kinds.scheduling import PriorityClass
from api.meta import ObjectMeta, Resource
from master.admission.chain import Attributes, Rule, refusal

DEFAULT_POLICY = "PreemptLowerPriority"
HIGHEST_OF_USERS = 1_000_000_000
# Every cluster has these two; nobody changes what they are worth.
SYSTEM_CLASSES: Mapping[str, PriorityClass] = {
    name: PriorityClass(
        metadata=ObjectMeta(name=name),
        value=value,
        description=f"Used for system critical pods that {what}.",
        preemption_policy=DEFAULT_POLICY,
    )
    for name, value, what in (
        ("system-node-critical", 2_000_001_000, "must not be moved from their current node"),
        (
            "system-cluster-critical",
            2_000_000_000,
            "must run in the cluster, but can be moved to another node if necessary",
        ),
    )
}

ListClasses = Callable[[], Awaitable[Sequence[PriorityClass]]]
FindClass = Callable[[str], Awaitable[PriorityClass | None]]


def default_class(classes: Iterable[PriorityClass]) -> PriorityClass | None:
    """Return the class of pods that name none: of several the one that is worth least."""
    marked = [each for each in classes if each.global_default]
    return min(marked, key=lambda each: each.value or 0, default=None)


def with_priority(pod: Pod, chosen: PriorityClass | None) -> Pod:
    """Return the pod with the worth of its class; None: it has none, and is worth nothing."""
    spec = pod.spec
    if chosen is None:
        return replace(pod, spec=replace(spec, priority=0, preemption_policy=spec.preemption_policy or DEFAULT_POLICY))
    policy = chosen.preemption_policy or DEFAULT_POLICY
    return replace(
        pod,
        spec=replace(
            spec,
            priority_class_name=chosen.metadata.name,
            priority=chosen.value or 0,
            preemption_policy=spec.preemption_policy or policy,
        ),
    )


class Priority(Rule):
    """Resolves priority classes, and keeps the default one unique."""

    def __init__(self, classes: ListClasses, find: FindClass) -> None:
        self._classes = classes
        self._find = find

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new pod with its priority; raises Forbidden for an unknown class or a priority of its own making."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return obj
        assert isinstance(obj, Pod), obj
        chosen = await self._class_of(attributes, obj)
        policy = (chosen.preemption_policy if chosen is not None else "") or DEFAULT_POLICY
        if obj.spec.preemption_policy not in ("", policy):
            raise refusal(
                attributes,
                f"the string value of PreemptionPolicy ({obj.spec.preemption_policy}) must not be provided in pod "
                f"spec; priority admission controller computed {policy} from the given PriorityClass name",
            )
        worth = (chosen.value or 0) if chosen is not None else 0
        if obj.spec.priority not in (None, worth):
            raise refusal(
                attributes,
                f"the integer value of priority ({obj.spec.priority}) must not be provided in pod spec; priority "
                f"admission controller computed {worth} from the given PriorityClass name",
            )
        return with_priority(obj, chosen)

    async def _class_of(self, attributes: Attributes, pod: Pod) -> PriorityClass | None:
        name = pod.spec.priority_class_name
        if not name:
            return default_class(await self._classes())
        found = await self._find(name)
        if found is None:
            raise refusal(attributes, f"no PriorityClass with name {name} was found")
        return found

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden for a second default class, Invalid for one worth more than users' may be."""
        if not attributes.is_of("scheduling.k8s.io", "priorityclasses") or attributes.obj is None:
            return
        new = attributes.obj
        assert isinstance(new, PriorityClass), new
        if faults := _class_faults(new):
            raise invalid("PriorityClass", attributes.name, faults, group="scheduling.k8s.io")
        others = [each for each in await self._classes() if each.metadata.name != attributes.name]
        if new.global_default and (present := default_class(others)) is not None:
            name = present.metadata.name
            raise refusal(
                attributes,
                f"PriorityClass {name} is already marked as default. Only one default can exist",
            )


def _class_faults(new: PriorityClass) -> list[Fault]:
    """Return what is wrong with a class: names and numbers of the system's own are taken."""
    name, value = new.metadata.name, new.value or 0
    system = SYSTEM_CLASSES.get(name)
    if system is not None:
        return (
            [] if value == system.value else [Fault("value", f"Invalid value: {value}: is {system.value} for {name}")]
        )
    if name.startswith("system-"):
        why = "priority class names with 'system-' prefix are reserved for system use only"
        return [Fault("metadata.name", f"Forbidden: {why}. error: {name} is not a known system priority class",
                      "FieldValueForbidden")]  # fmt: skip
    if value > HIGHEST_OF_USERS:
        why = f"maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"
        return [Fault("value", f"Forbidden: {why}", "FieldValueForbidden")]
    return []
