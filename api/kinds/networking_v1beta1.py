"""networking.k8s.io/v1beta1: the older version of Ingress."""

from msgspec import field

from api.kinds.networking import IngressStatus, IngressTLS
from api.kinds.volumes import TypedLocalObjectReference
from api.meta import Resource
from api.struct import ApiStruct


class IngressBackendV1beta1(ApiStruct, frozen=True, kw_only=True):
    """Ingress Backend."""

    resource: TypedLocalObjectReference | None = None
    service_name: str = ""
    service_port: int | str | None = None


class HTTPIngressPathV1beta1(ApiStruct, frozen=True, kw_only=True):
    """HTTP Ingress Path."""

    backend: IngressBackendV1beta1 = field(default_factory=lambda: IngressBackendV1beta1())
    path: str = ""
    path_type: str = ""


class HTTPIngressRuleValueV1beta1(ApiStruct, frozen=True, kw_only=True):
    """HTTP Ingress Rule Value."""

    paths: tuple[HTTPIngressPathV1beta1, ...] = field(default_factory=lambda: ())


class IngressRuleV1beta1(ApiStruct, frozen=True, kw_only=True):
    """Ingress Rule."""

    host: str = ""
    http: HTTPIngressRuleValueV1beta1 | None = None


class IngressSpecV1beta1(ApiStruct, frozen=True, kw_only=True):
    """Ingress Spec."""

    backend: IngressBackendV1beta1 | None = None
    ingress_class_name: str = ""
    rules: tuple[IngressRuleV1beta1, ...] = ()
    tls: tuple[IngressTLS, ...] = ()


class IngressV1beta1(Resource, frozen=True, kw_only=True):
    """Ingress."""

    spec: IngressSpecV1beta1 = field(default_factory=lambda: IngressSpecV1beta1())
    status: IngressStatus = field(default_factory=lambda: IngressStatus())
