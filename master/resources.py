"""How much a pod asks for: the sums that quotas and limit ranges count. Pure, in exact fractions.

Source: kubernetes.io, "Init Containers", resource sharing: init containers run one after another, those that restart
run beside all that come after them.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache

from api import quantity
from api.kinds.pods import Container, Pod

Amounts = Mapping[str, Fraction]  # resource name -> amount

_parse = lru_cache(maxsize=1024)(quantity.parse)


def parsed(amounts: Mapping[str, str]) -> dict[str, Fraction]:
    """Return the amounts of a list of resources."""
    return {name: _parse(text) for name, text in amounts.items()}


def added(one: Amounts, other: Amounts) -> dict[str, Fraction]:
    """Return the sum; a resource that only one names counts as zero in the other."""
    return {name: one.get(name, Fraction()) + other.get(name, Fraction()) for name in {**one, **other}}


def largest(one: Amounts, other: Amounts) -> dict[str, Fraction]:
    """Return the greater amount of each resource."""
    return {name: max(one.get(name, Fraction()), other.get(name, Fraction())) for name in {**one, **other}}


def pod_requests(pod: Pod) -> dict[str, Fraction]:
    """Return what a pod asks for, its overhead included."""
    total = _total(pod, lambda container: container.resources.requests if container.resources else {})
    if pod.spec.resources is not None:
        total |= parsed(pod.spec.resources.requests)
    return added(total, parsed(pod.spec.overhead))


def pod_limits(pod: Pod) -> dict[str, Fraction]:
    """Return the most that a pod may use; its overhead is added to the resources that have a limit."""
    total = _total(pod, lambda container: container.resources.limits if container.resources else {})
    if pod.spec.resources is not None:
        total |= parsed(pod.spec.resources.limits)
    overhead = parsed(pod.spec.overhead)
    return {name: amount + overhead.get(name, Fraction()) for name, amount in total.items()}


def _total(pod: Pod, part: Callable[[Container], Mapping[str, str]]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = {}
    for container in pod.spec.containers:
        total = added(total, parsed(part(container)))
    beside: dict[str, Fraction] = {}  # restartable init containers that have been started so far
    highest: dict[str, Fraction] = {}
    for container in pod.spec.init_containers:
        amounts = parsed(part(container))
        if container.restart_policy == "Always":
            beside = added(beside, amounts)
            highest = largest(highest, beside)
        else:
            highest = largest(highest, added(beside, amounts))
    return largest(added(total, beside), highest)
