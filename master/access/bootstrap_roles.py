"""Makes the default roles and bindings, and puts back what was taken out of them; additions of others stay."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from api import codec
from api.errors import AlreadyExists, Conflict, NotFound
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from api.kinds.table import Kind
from api.meta import DeleteOptions, Preconditions, Resource
from master.access.default_roles import AUTOUPDATE, default_objects
from master.access.rules import uncovered
from master.registry import Registry
from master.rest.seam import Query, WriteOptions

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
_AT_ONCE = 8


def repaired(present: Resource, default: Resource) -> Resource:
    """Return ``present`` with everything that ``default`` says; the same object if nothing is missing.

    Rules and subjects that were added stay. An object marked with autoupdate "false" stays as it is.
    """
    if present.metadata.annotations.get(AUTOUPDATE) == "false":
        return present
    meta, wanted = present.metadata, default.metadata
    labels = {**meta.labels, **wanted.labels}
    annotations = {**wanted.annotations, **meta.annotations}
    changed = present
    if (labels, annotations) != (meta.labels, meta.annotations):
        changed = replace(present, metadata=replace(meta, labels=labels, annotations=annotations))
    if isinstance(default, ClusterRole) and default.aggregation_rule is not None:
        role = cast("ClusterRole", changed)
        rule = role.aggregation_rule or default.aggregation_rule
        missing = tuple(
            each for each in default.aggregation_rule.cluster_role_selectors if each not in rule.cluster_role_selectors
        )
        if role.aggregation_rule is not None and not missing:
            return changed
        return replace(
            role, aggregation_rule=replace(rule, cluster_role_selectors=(*rule.cluster_role_selectors, *missing))
        )
    if isinstance(default, ClusterRole | Role):
        role_ = cast("Any", changed)
        missing_rules = tuple(each for each in default.rules if uncovered(role_.rules, [each]))
        return cast("Resource", replace(role_, rules=(*role_.rules, *missing_rules))) if missing_rules else changed
    assert isinstance(default, ClusterRoleBinding | RoleBinding), default
    binding = cast("Any", changed)
    missing_subjects = tuple(each for each in default.subjects if each not in binding.subjects)
    if not missing_subjects:
        return changed
    return cast("Resource", replace(binding, subjects=(*binding.subjects, *missing_subjects)))


class BootstrapRoles:
    """Every master sees to them when it starts; whoever comes first writes."""

    def __init__(self, registry: Registry, options: WriteOptions) -> None:
        self._registry = registry
        self._options = options
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def ensure(self) -> None:
        """Bring the store to the defaults; raises ApiError if it cannot be done now."""
        table = self._registry.table
        present: dict[tuple[str, str, str], Resource] = {}
        for model in (ClusterRole, Role, ClusterRoleBinding, RoleBinding):
            page = await self._registry.list(table.of(model), Query())
            present |= {_key(table.of(model), each.obj): each.obj for each in page.items}
        objects = default_objects()
        # Roles before bindings: a binding to a role that is not there yet allows nothing.
        for part in ((ClusterRole, Role), (ClusterRoleBinding, RoleBinding)):
            wanted = [each for each in objects if isinstance(each, part)]
            await asyncio.gather(*(self._one(each, present) for each in wanted))

    async def _one(self, default: Resource, present: Mapping[tuple[str, str, str], Resource]) -> None:
        kind = self._registry.table.of(type(default))
        found = present.get(_key(kind, default))
        async with self._at_once:
            if found is None:
                await self._create(kind, default)
            elif isinstance(default, ClusterRoleBinding | RoleBinding) and _moved(found, default):
                await self._replace(kind, found, default)
            elif (fixed := repaired(found, default)) is not found:
                await self._update(kind, fixed)

    async def _create(self, kind: Kind, obj: Resource) -> None:
        try:
            await self._registry.create(
                kind, codec.to_document(obj), namespace=obj.metadata.namespace, options=self._options
            )
        except AlreadyExists:
            return  # another master was faster

    async def _update(self, kind: Kind, obj: Resource) -> None:
        log.info("default role or binding put right kind=%s name=%s", kind.kind, obj.metadata.name)
        meta = obj.metadata
        try:
            await self._registry.update(
                kind, codec.to_document(obj), namespace=meta.namespace, name=meta.name, options=self._options
            )
        except (Conflict, NotFound):
            return  # somebody else is at it; the next start of a master looks again

    async def _replace(self, kind: Kind, found: Resource, default: Resource) -> None:
        """Make a binding anew that names another role: which one it names cannot be changed."""
        meta = found.metadata
        options = DeleteOptions(preconditions=Preconditions(uid=meta.uid))
        try:
            await self._registry.delete(
                kind, namespace=meta.namespace, name=meta.name, options=options, user=self._options.user
            )
        except (Conflict, NotFound):
            return
        await self._create(kind, default)


def _moved(found: Resource, default: ClusterRoleBinding | RoleBinding) -> bool:
    if found.metadata.annotations.get(AUTOUPDATE) == "false":
        return False
    return cast("ClusterRoleBinding", found).role_ref != default.role_ref


def _key(kind: Kind, obj: Resource) -> tuple[str, str, str]:
    return kind.kind, obj.metadata.namespace, obj.metadata.name
