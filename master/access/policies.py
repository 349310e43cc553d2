"""The RBAC objects and pods that authorization reads, from a master's cache."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from api.errors import NotFound, Unavailable
from api.kinds.pods import Pod
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from api.kinds.table import Table
from api.kinds.volumes import PersistentVolume
from api.meta import Resource
from master.access.user import ACCOUNT_PREFIX, User
from master.cache import WatchCache
from master.lookup import Reads
from master.rest.seam import Query

R = TypeVar("R", bound=Resource)


class Source(Reads, Protocol):
    """What is read from: a registry has all of it."""

    @property
    def table(self) -> Table:
        """Return the kinds that are served."""


class _Known(NamedTuple):
    """All objects of a place, decoded, as they were after so many changes."""

    changes: int
    objects: Mapping[str, Any]  # "namespace/name", or "name"
    # Of bindings: (namespace, kind, name of a subject) -> those that name it; a service account is named as a user.
    by_subject: Mapping[tuple[str, str, str], Sequence[Any]]


class CachedPolicies:
    """Reads a master's watch cache. Roles and bindings change seldom and are asked for at every request: their structs
    are kept until something of their kind changes.
    """

    def __init__(self, table: Table, cache: WatchCache) -> None:
        self._table = table
        self._cache = cache
        self._known: dict[type[Resource], _Known] = {}

    async def cluster_role(self, name: str) -> ClusterRole | None:
        """Return a cluster role."""
        return cast("ClusterRole | None", self._of(ClusterRole).objects.get(name))

    async def role(self, namespace: str, name: str) -> Role | None:
        """Return a role."""
        return cast("Role | None", self._of(Role).objects.get(f"{namespace}/{name}"))

    async def cluster_role_bindings(self, user: User) -> Iterable[ClusterRoleBinding]:
        """Return the bindings for the whole cluster that name ``user``."""
        return self._naming(ClusterRoleBinding, "", user)

    async def role_bindings(self, namespace: str, user: User) -> Iterable[RoleBinding]:
        """Return the bindings of one namespace that name ``user``."""
        return self._naming(RoleBinding, namespace, user)

    def _naming(self, model: type[R], namespace: str, user: User) -> list[R]:
        known = self._of(model).by_subject
        subjects = (("User", user.name), *(("Group", group) for group in user.groups))
        found = (each for kind, name in subjects for each in known.get((namespace, kind, name), ()))
        return list({id(each): each for each in found}.values())  # one that names two of them counts once

    async def pods_of_node(self, node: str) -> Iterable[Pod]:
        """Return the pods bound to a node."""
        place = self._cache.place(self._table.of(Pod))
        found = (stored for stored in place.objects.values() if stored.field("spec.nodeName") == node)
        return [cast("Pod", stored.obj) for stored in found]

    async def claim_of_volume(self, name: str) -> tuple[str, str] | None:
        """Return (namespace, name) of the claim that a persistent volume is bound to."""
        stored = self._cache.place(self._table.of(PersistentVolume)).get("", name)
        claim = cast("PersistentVolume", stored.obj).spec.claim_ref if stored is not None else None
        return (claim.namespace, claim.name) if claim is not None else None

    def _of(self, model: type[Resource]) -> _Known:
        if not self._cache.synced:
            raise Unavailable("the watch cache has not read the store yet", retry_after_s=1)
        place, known = self._cache.place(self._table.of(model)), self._known.get(model)
        if known is None or known.changes != place.changes:
            objects = {key: stored.obj for key, stored in place.objects.items()}
            known = self._known[model] = _Known(place.changes, objects, _by_subject(objects.values()))
        return known


def _by_subject(objects: Iterable[Any]) -> dict[tuple[str, str, str], list[Any]]:
    found: dict[tuple[str, str, str], list[Any]] = {}
    for obj in objects:
        namespace = obj.metadata.namespace
        for subject in getattr(obj, "subjects", ()):
            kind, name = subject.kind, subject.name
            if kind == "ServiceAccount":
                kind, name = "User", f"{ACCOUNT_PREFIX}{subject.namespace or namespace}:{name}"
            found.setdefault((namespace, kind, name), []).append(obj)
    return found


class RegistryPolicies:
    """Reads any registry, as it is asked."""

    def __init__(self, registry: Source) -> None:
        self._registry = registry

    async def cluster_role(self, name: str) -> ClusterRole | None:
        """Return a cluster role."""
        return await self._get(ClusterRole, "", name)

    async def role(self, namespace: str, name: str) -> Role | None:
        """Return a role."""
        return await self._get(Role, namespace, name)

    async def cluster_role_bindings(self, user: User) -> Iterable[ClusterRoleBinding]:
        """Return all bindings for the whole cluster."""
        del user
        return await self._list(ClusterRoleBinding)

    async def role_bindings(self, namespace: str, user: User) -> Iterable[RoleBinding]:
        """Return the bindings of one namespace."""
        del user
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
        return cast("R", stored.obj)

    async def _list(self, model: type[R], *, namespace: str = "") -> list[R]:
        query = Query(namespace=namespace, resource_version="0")
        page = await self._registry.list(self._registry.table.of(model), query)
        return [cast("R", each.obj) for each in page.items]
