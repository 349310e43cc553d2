"""metrics.k8s.io/v1beta1: what nodes and containers use, as the node agents measure it."""

from msgspec import field

from api.meta import Resource
from api.struct import ApiStruct


class ContainerMetrics(ApiStruct, frozen=True, kw_only=True):
    """Container Metrics."""

    name: str = field(default_factory=str)
    usage: dict[str, str] = field(default_factory=dict)


class NodeMetrics(Resource, frozen=True, kw_only=True):
    """Node Metrics."""

    timestamp: str = field(default_factory=str)
    window: str = field(default_factory=str)
    usage: dict[str, str] = field(default_factory=dict)


class PodMetrics(Resource, frozen=True, kw_only=True):
    """Pod Metrics."""

    timestamp: str = field(default_factory=str)
    window: str = field(default_factory=str)
    containers: tuple[ContainerMetrics, ...] = field(default_factory=lambda: ())
