"""The RBAC objects and pods that authorization reads, from a master's cache."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, cast

from api.errors import NotFound
from api.kinds.pods import Pod
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from api.kinds.table import Table
from api.kinds.volumes import PersistentVolume
from api.meta import Resource
from master.lookup import Reads
from master.rest.seam import Query, Stored

R = TypeVar("R", bound=Resource)
_KEPT = 4096


class Source(Reads, Protocol):
    """What is read from: a registry has all of it."""

    @property
    def table(self) -> Table:
        """Return the kinds that are served."""


class RegistryPolicies:
    """Reads at any revision the cache holds, so that no request waits for the store only to be authorized."""

    def __init__(self, registry: Source) -> None:
        self._registry = registry
        # The same hundred roles and bindings are read for every request: their structs are kept beside the states that
        # they were decoded from. id of a state -> (the state, its struct)
        self._decoded: dict[int, tuple[Stored, Resource]] = {}

    async def cluster_role(self, name: str) -> ClusterRole | None:
        """Return a cluster role."""
        return await self._get(ClusterRole, "", name)

    async def role(self, namespace: str, name: str) -> Role | None:
        """Return a role."""
        return await self._get(Role, namespace, name)

    async def cluster_role_bindings(self) -> Iterable[ClusterRoleBinding]:
        """Return all bindings for the whole cluster."""
        return await self._list(ClusterRoleBinding)

    async def role_bindings(self, namespace: str) -> Iterable[RoleBinding]:
        """Return the bindings of one namespace."""
        return await self._list(RoleBinding, namespace=namespace)

    async def pods_of_node(self, node: str) -> Iterable[Pod]:
        """Return the pods bound to a node."""
        query = Query(field_selector=f"spec.nodeName={node}", resource_version="0")
        page = await self._registry.list(self._registry.table.of(Pod), query)
        return [cast("Pod", each.obj) for each in page.items]

    async def claim_of_volume(self, name: str) -> tuple[str, str] | None:
        """Return (namespace, name) of the claim that a persistent volume is bound to."""
        volume = await self._get(PersistentVolume, "", name)
        claim = volume.spec.claim_ref if volume is not None else None
        return (claim.namespace, claim.name) if claim is not None else None

    async def _get(self, model: type[R], namespace: str, name: str) -> R | None:
        kind = self._registry.table.of(model)
        try:
            stored = await self._registry.get(kind, namespace=namespace, name=name, resource_version="0")
        except NotFound:
            return None
        return self._struct(model, stored)

    async def _list(self, model: type[R], *, namespace: str = "") -> list[R]:
        query = Query(namespace=namespace, resource_version="0")
        page = await self._registry.list(self._registry.table.of(model), query)
        return [self._struct(model, each) for each in page.items]

    def _struct(self, model: type[R], stored: Stored) -> R:
        known = self._decoded.get(id(stored))
        if known is None or known[0] is not stored:
            if len(self._decoded) >= _KEPT:
                self._decoded.clear()
            known = self._decoded[id(stored)] = (stored, stored.obj)
        obj = known[1]
        assert isinstance(obj, model), obj
        return obj
