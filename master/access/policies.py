"""The RBAC objects and pods that authorization reads, from the registry's cache."""

from collections.abc import Iterable
from typing import TypeVar, cast

from api.errors import NotFound
from api.kinds.pods import Pod
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from api.meta import Resource
from master.rest.seam import Query, Registry

R = TypeVar("R", bound=Resource)


class RegistryPolicies:
    """Reads at any revision the cache holds, so that no request waits for the store only to be authorized."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

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
        return await self._list(Pod, field_selector=f"spec.nodeName={node}")

    async def _get(self, model: type[R], namespace: str, name: str) -> R | None:
        kind = self._registry.table.of(model)
        try:
            stored = await self._registry.get(kind, namespace=namespace, name=name, resource_version="0")
        except NotFound:
            return None
        return cast("R", stored.obj)

    async def _list(self, model: type[R], *, namespace: str = "", field_selector: str = "") -> list[R]:
        query = Query(namespace=namespace, field_selector=field_selector, resource_version="0")
        page = await self._registry.list(self._registry.table.of(model), query)
        return [cast("R", each.obj) for each in page.items]
