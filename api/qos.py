"""The quality of service that a pod gets: who loses memory and processor first where there is not enough for all.

Source: kubernetes.io, "Pod Quality of Service Classes".
"""

from api import quantity
from api.kinds.pods import Container, PodSpec

_COUNTED = ("cpu", "memory")


def qos_class(spec: PodSpec) -> str:
    """Return Guaranteed (every container has equal limits and requests of both), Burstable, or BestEffort."""
    containers = (*spec.containers, *spec.init_containers)
    if not any(_amounts(each, part) for each in containers for part in ("limits", "requests")):
        return "BestEffort"
    return "Guaranteed" if all(_is_guaranteed(each) for each in containers) else "Burstable"


def _amounts(container: Container, part: str) -> dict[str, str]:
    """Return the CPU and memory that a container names, without zeros."""
    amounts: dict[str, str] = getattr(container.resources, part, None) or {}
    return {name: text for name, text in amounts.items() if name in _COUNTED and quantity.parse(text) > 0}


def _is_guaranteed(container: Container) -> bool:
    limits = _amounts(container, "limits")
    requests = container.resources.requests if container.resources is not None else {}
    return len(limits) == len(_COUNTED) and all(
        quantity.parse(requests.get(name, text)) == quantity.parse(text) for name, text in limits.items()
    )
