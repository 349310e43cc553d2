"""Limit ranges: what containers ask for when they do not say, and how much or little they may ask for. Pure but for
reading the ranges.

Source: kubernetes.io, "Limit Ranges"; the texts are the real server's.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from fractions import Fraction

from msgspec.structs import replace

from api import quantity
from api.kinds.core import LimitRange, LimitRangeItem
from api.kinds.pods import Container, Pod, ResourceRequirements
from api.kinds.volumes import PersistentVolumeClaim
from api.meta import Resource
from master.admission.chain import Attributes, Rule, refusal
from master.resources import Amounts, parsed, pod_limits, pod_requests

ANNOTATION = "kubernetes.io/limit-ranger"

ListRanges = Callable[[str], Awaitable[Sequence[LimitRange]]]


def effective(item: LimitRangeItem) -> LimitRangeItem:
    """Return a container's item with what its author left to be concluded: no limit said means the maximum."""
    if item.type != "Container":
        return item
    default = {**item.max, **item.default}
    return replace(item, default=default, default_request={**item.min, **default, **item.default_request})


def items_of(ranges: Iterable[LimitRange]) -> list[LimitRangeItem]:
    """Return the items of all ranges, complete."""
    return [effective(item) for each in ranges for item in each.spec.limits]


def with_defaults(pod: Pod, items: Iterable[LimitRangeItem]) -> Pod:
    """Return the pod with requests and limits where its containers name none; an annotation says which were added."""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    for item in items:
        if item.type == "Container":
            requests |= item.default_request
            limits |= item.default
    told: list[str] = []

    def filled(container: Container, kind: str) -> Container:
        known = container.resources or ResourceRequirements()
        new = {
            "request": {name: amount for name, amount in requests.items() if name not in known.requests},
            "limit": {name: amount for name, amount in limits.items() if name not in known.limits},
        }
        told.extend(
            f"{', '.join(sorted(added))} {what} for {kind} {container.name}" for what, added in new.items() if added
        )
        if not any(new.values()):
            return container
        resources = replace(
            known, requests={**known.requests, **new["request"]}, limits={**known.limits, **new["limit"]}
        )
        return replace(container, resources=resources)

    spec = replace(
        pod.spec,
        containers=tuple(filled(each, "container") for each in pod.spec.containers),
        init_containers=tuple(filled(each, "init container") for each in pod.spec.init_containers),
    )
    if not told:
        return pod
    annotations = {**pod.metadata.annotations, ANNOTATION: f"LimitRanger plugin set: {'; '.join(told)}"}
    return replace(pod, metadata=replace(pod.metadata, annotations=annotations), spec=spec)


def pod_faults(pod: Pod, items: Iterable[LimitRangeItem]) -> list[str]:
    """Return how a pod breaks the ranges, container by container and as a whole."""
    faults: list[str] = []
    for item in items:
        if item.type == "Container":
            for container in (*pod.spec.containers, *pod.spec.init_containers):
                known = container.resources or ResourceRequirements()
                faults += _faults(item, parsed(known.requests), parsed(known.limits))
        elif item.type == "Pod":
            faults += _faults(item, pod_requests(pod), pod_limits(pod))
    return faults


def claim_faults(claim: PersistentVolumeClaim, items: Iterable[LimitRangeItem]) -> list[str]:
    """Return how a claim breaks the ranges."""
    resources = claim.spec.resources
    requests = parsed(resources.requests) if resources is not None else {}
    return [
        fault
        for item in items
        if item.type == "PersistentVolumeClaim"
        for fault in (*_minimum(item, requests, {}), *_maximum_request(item, requests))
    ]


def _faults(item: LimitRangeItem, requests: Amounts, limits: Amounts) -> list[str]:
    return [*_minimum(item, requests, limits), *_maximum(item, requests, limits), *_ratio(item, requests, limits)]


def _minimum(item: LimitRangeItem, requests: Amounts, limits: Amounts) -> list[str]:
    faults = []
    for name, least in item.min.items():
        rule = f"minimum {name} usage per {item.type} is {least}"
        request, limit = requests.get(name), limits.get(name)
        if request is None:
            faults.append(f"{rule}.  No request is specified")
        elif request < quantity.parse(least):
            faults.append(f"{rule}, but request is {shown(name, request)}")
        elif limit is not None and limit < quantity.parse(least):
            faults.append(f"{rule}, but limit is {shown(name, limit)}")
    return faults


def _maximum(item: LimitRangeItem, requests: Amounts, limits: Amounts) -> list[str]:
    faults = []
    for name, most in item.max.items():
        rule = f"maximum {name} usage per {item.type} is {most}"
        request, limit = requests.get(name), limits.get(name)
        if limit is None:
            faults.append(f"{rule}.  No limit is specified")
        elif limit > quantity.parse(most):
            faults.append(f"{rule}, but limit is {shown(name, limit)}")
        elif request is not None and request > quantity.parse(most):
            faults.append(f"{rule}, but request is {shown(name, request)}")
    return faults


def _maximum_request(item: LimitRangeItem, requests: Amounts) -> list[str]:
    """A claim has no limits: its request is held against the maximum."""
    faults = []
    for name, most in item.max.items():
        rule = f"maximum {name} usage per {item.type} is {most}"
        request = requests.get(name)
        if request is None:
            faults.append(f"{rule}.  No request is specified")
        elif request > quantity.parse(most):
            faults.append(f"{rule}, but request is {shown(name, request)}")
    return faults


def _ratio(item: LimitRangeItem, requests: Amounts, limits: Amounts) -> list[str]:
    faults = []
    for name, most in item.max_limit_request_ratio.items():
        rule = f"{name} max limit to request ratio per {item.type} is {most}"
        request, limit = requests.get(name), limits.get(name)
        if not request:
            faults.append(f"{rule}, but no request is specified or request is 0")
        elif not limit:
            faults.append(f"{rule}, but no limit is specified or limit is 0")
        elif limit / request > quantity.parse(most):
            faults.append(f"{rule}, but provided ratio is {float(limit / request):f}")
    return faults


def shown(name: str, amount: Fraction) -> str:
    """Return an amount of a resource as people write it: bytes in binary steps, CPU in thousandths."""
    if name == "memory" or name.endswith("storage") or name.startswith("hugepages-"):
        return (
            quantity.from_bytes(amount.numerator) if amount.denominator == 1 else quantity.canonical(str(float(amount)))
        )
    return quantity.from_millis(int(amount * 1000)) if (amount * 1000).denominator == 1 else str(float(amount))


class LimitRanger(Rule):
    """Holds new pods and claims against the limit ranges of their namespace."""

    def __init__(self, ranges: ListRanges) -> None:
        self._ranges = ranges

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a pod with the defaults of its namespace."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return obj
        assert isinstance(obj, Pod), obj
        ranges = await self._ranges(attributes.namespace)
        return with_defaults(obj, items_of(ranges)) if ranges else obj

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden, with every rule that is broken."""
        faults: Sequence[str] = ()
        # What a pod's containers ask for changes by a resize alone, what a claim asks for by any update.
        resized = attributes.subresource == "resize"
        if attributes.is_of("", "pods") and (attributes.creates or resized):
            assert isinstance(attributes.obj, Pod)
            faults = pod_faults(attributes.obj, items_of(await self._ranges(attributes.namespace)))
        elif (
            attributes.is_of("", "persistentvolumeclaims") and attributes.obj is not None and not attributes.subresource
        ):
            assert isinstance(attributes.obj, PersistentVolumeClaim)
            if not attributes.obj.metadata.deletion_timestamp:
                faults = claim_faults(attributes.obj, items_of(await self._ranges(attributes.namespace)))
        if faults:
            raise refusal(attributes, faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
