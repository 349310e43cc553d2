"""discovery.k8s.io/v1beta1: the older version of EndpointSlice."""

from msgspec import field

from api.kinds.discovery import EndpointConditions, EndpointHints, EndpointPort
from api.kinds.volumes import ObjectReference
from api.meta import Resource
from api.struct import ApiStruct


class EndpointV1beta1(ApiStruct, frozen=True, kw_only=True):
    """Endpoint."""

    addresses: tuple[str, ...] = field(default_factory=lambda: ())
    conditions: EndpointConditions | None = None
    hints: EndpointHints | None = None
    hostname: str = ""
    node_name: str = ""
    target_ref: ObjectReference | None = None
    topology: dict[str, str] = {}


class EndpointSliceV1beta1(Resource, frozen=True, kw_only=True):
    """Endpoint Slice."""

    address_type: str = field(default_factory=str)
    endpoints: tuple[EndpointV1beta1, ...] = ()
    ports: tuple[EndpointPort, ...] = ()
