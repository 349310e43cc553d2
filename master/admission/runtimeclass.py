"""Runtime classes: what running a pod costs beside its containers, and where its runtime is to be found.

Source: kubernetes.io, "Runtime Class" and "Pod Overhead".
"""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from api.kinds.pods import Pod
from api.kinds.runtime import RuntimeClass
from api.meta import Resource
from master.admission.chain import Attributes, Rule, refusal

FindClass = Callable[[str], Awaitable[RuntimeClass | None]]


def scheduling_conflict(pod: Pod, found: RuntimeClass) -> str:
    """Return why the pod's own node selector and that of its class cannot both be met; empty if they can."""
    selector = found.scheduling.node_selector if found.scheduling is not None else {}
    clashing = [key for key, value in selector.items() if pod.spec.node_selector.get(key, value) != value]
    if not clashing:
        return ""
    key = min(clashing)
    return (
        f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {selector[key]}; "
        f"pod.spec.nodeSelector[{key}] = {pod.spec.node_selector[key]}"
    )


def with_class(pod: Pod, found: RuntimeClass) -> Pod:
    """Return the pod with its class's overhead, node selector and tolerations."""
    spec = pod.spec
    if found.overhead is not None and found.overhead.pod_fixed:
        spec = replace(spec, overhead=found.overhead.pod_fixed)
    if found.scheduling is not None:
        added = (each for each in found.scheduling.tolerations if each not in spec.tolerations)
        spec = replace(
            spec,
            node_selector={**spec.node_selector, **found.scheduling.node_selector},
            tolerations=(*spec.tolerations, *added),
        )
    return replace(pod, spec=spec)


class RuntimeClasses(Rule):
    """Brings a pod's runtime class into its spec."""

    def __init__(self, find: FindClass) -> None:
        self._find = find

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new pod with what its class says; raises Forbidden for an unknown class or one it contradicts."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return obj
        assert isinstance(obj, Pod), obj
        name = obj.spec.runtime_class_name
        if not name:
            if obj.spec.overhead:
                raise refusal(attributes, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined")
            return obj
        found = await self._find(name)
        if found is None:
            raise refusal(attributes, f'pod rejected: RuntimeClass "{name}" not found')
        fixed = found.overhead.pod_fixed if found.overhead is not None else {}
        if obj.spec.overhead and obj.spec.overhead != fixed:
            raise refusal(attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        if why := scheduling_conflict(obj, found):
            raise refusal(attributes, why)
        return with_class(obj, found)
