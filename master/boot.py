"""The objects that every cluster has: made when they are missing, put right when they are wrong."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from api import codec
from api.errors import AlreadyExists, ApiError, NotFound
from api.faults import special_address_faults
from api.kinds.scheduling import PriorityClass
from api.kinds.table import Kind
from master.access.bootstrap_roles import BootstrapRoles
from master.access.user import SYSTEM_MASTERS, User
from master.admission.priority import SYSTEM_CLASSES
from master.config import MasterConfig
from master.registry import Registry
from master.rest.seam import WriteOptions

log = logging.getLogger(__name__)

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
USER = User("system:apiserver", (SYSTEM_MASTERS,))
_RETRY_S = 0.25
_API_PORT = 443


class BootObjects:
    """Every master sees to them; whoever comes first makes them."""

    def __init__(self, config: MasterConfig, registry: Registry) -> None:
        self._config = config
        self._registry = registry
        self._options = WriteOptions(user=USER, field_manager="trireme-master")

    async def ensure(self) -> None:
        """Make them, as soon as the store lets us."""
        for document in self._documents():
            await self._ensure_one(document)
        await self._until_done("default roles", BootstrapRoles(self._registry, self._options).ensure)
        log.info("boot objects are in place")

    async def _ensure_one(self, document: Mapping[str, Any]) -> None:
        await self._until_done(document["metadata"]["name"], lambda: self._make(document))

    @staticmethod
    async def _until_done(name: str, make: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await make()
            except ApiError as error:
                log.debug("boot object not made yet name=%s error=%s", name, error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _make(self, document: Mapping[str, Any]) -> None:
        kind = self._registry.table.kind(document["apiVersion"], document["kind"])
        assert kind is not None, document["kind"]
        metadata = document["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        try:
            await self._registry.get(kind, namespace=namespace, name=name)
        except NotFound:
            try:
                await self._registry.create(kind, document, namespace=namespace, options=self._options)
            except AlreadyExists:
                await self._repair(kind, document)
        else:
            await self._repair(kind, document)

    async def _repair(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """Bring what the document says into an object that exists; all else stays as it is."""
        if kind.plural not in ("endpoints", "endpointslices", "configmaps"):
            return
        metadata = document["metadata"]
        await self._registry.patch(
            kind,
            dict(document),
            "merge",
            namespace=metadata["namespace"],
            name=metadata["name"],
            options=self._options,
        )

    def _documents(self) -> list[Mapping[str, Any]]:
        config = self._config
        host, _, port = config.api_address.rpartition(":")
        return [
            *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES),
            *(_priority_class(each) for each in SYSTEM_CLASSES.values()),
            _service(
                "default",
                "kubernetes",
                str(config.service_cidr[1]),
                {"component": "apiserver", "provider": "kubernetes"},
                [{"name": "https", "port": _API_PORT, "protocol": "TCP", "targetPort": int(port)}],
            ),
            *self._ways_to_us(host, int(port)),
            _client_authority(Path(config.tls.client_ca).read_text()),
            _service(
                "kube-system",
                "kube-dns",
                config.cluster_dns,
                {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
                [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                ],
            ),
        ]

    @staticmethod
    def _ways_to_us(host: str, port: int) -> list[Mapping[str, Any]]:
        """Return the endpoints of the service ``kubernetes``; none of a master that only its own host reaches."""
        if special_address_faults(host, "ip"):
            log.info("service without endpoints: the API's address leads each client to itself address=%s", host)
            return []
        return [_endpoints(host, port), _endpoint_slice(host, port)]


def _priority_class(system: PriorityClass) -> Mapping[str, Any]:
    return {**codec.to_document(system), "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"}


def _service(
    namespace: str, name: str, address: str, labels: Mapping[str, str], ports: list[Mapping[str, Any]]
) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": ports, "sessionAffinity": "None"},
    }


def _client_authority(certificates: str) -> Mapping[str, Any]:
    """Return what servers that extend the API read to know whose client certificates we accept."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": certificates},
    }


def _endpoints(host: str, port: int) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {"addresses": [{"ip": host}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]},
        ],
    }


def _endpoint_slice(host: str, port: int) -> Mapping[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
