"""Escalation: nobody grants by a role, or by a binding, what they may not do themselves.

Whoever may ``escalate`` a role, or ``bind`` the one that a binding names, is excepted. Source: kubernetes.io, "Using
RBAC Authorization", privilege escalation prevention.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from api.errors import not_found
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding
from api.meta import Resource
from master.access.authorization import EVERYTHING, Authorizer
from master.access.rules import Request, joined, shown, shown_user, uncovered
from master.access.user import SYSTEM_MASTERS
from master.admission.chain import Attributes, Rule, refusal

GROUP = "rbac.authorization.k8s.io"


class Escalation(Rule):
    """Holds what roles and bindings grant against what their author holds."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden."""
        obj, old = attributes.obj, attributes.old
        if attributes.kind.group != GROUP or obj is None or SYSTEM_MASTERS in attributes.user.groups:
            return
        if old is not None and _only_collected(old, obj):
            return
        match obj:
            case ClusterRole() | Role():
                await self._judge_role(attributes, obj)
            case ClusterRoleBinding() | RoleBinding():
                await self._judge_binding(attributes, obj)

    async def _judge_role(self, attributes: Attributes, role: ClusterRole | Role) -> None:
        wanted = Request(
            attributes.user, "escalate", GROUP, attributes.kind.plural, "", attributes.namespace, attributes.name
        )
        if await self._authorizer.allows(wanted):
            return
        if isinstance(role, ClusterRole) and role.aggregation_rule is not None:
            held, _ = await self._authorizer.rules_for(attributes.user, "")
            if uncovered(held, EVERYTHING):
                raise refusal(attributes, "must have cluster-admin privileges to use an aggregationRule")
        await self._confirm(attributes, role.rules)

    async def _judge_binding(self, attributes: Attributes, binding: ClusterRoleBinding | RoleBinding) -> None:
        reference = binding.role_ref
        plural = "clusterroles" if reference.kind == "ClusterRole" else "roles"
        # Asked where the binding is: in its namespace, or for the whole cluster.
        wanted = Request(attributes.user, "bind", GROUP, plural, "", attributes.namespace, reference.name)
        if await self._authorizer.allows(wanted):
            return
        rules = await self._authorizer.rules_of_role(reference, attributes.namespace)
        if rules is None:
            raise not_found(plural, reference.name, group=GROUP)
        await self._confirm(attributes, rules)

    async def _confirm(self, attributes: Attributes, rules: Sequence[PolicyRule]) -> None:
        held, missing = await self._authorizer.rules_for(attributes.user, attributes.namespace)
        if not (beyond := uncovered(held, rules)):
            return
        told = "\n".join(shown(each) for each in joined(beyond))
        resolution = f"; resolution errors: {missing}" if missing else ""
        raise refusal(
            attributes,
            f"{shown_user(attributes.user)} is attempting to grant RBAC permissions not currently held:\n{told}"
            f"{resolution}",
        )


def _only_collected(old: Resource, new: Resource) -> bool:
    """Return whether a change touches only what the garbage collector needs to: owners and finalizers."""
    meta = replace(
        new.metadata,
        owner_references=old.metadata.owner_references,
        finalizers=old.metadata.finalizers,
        managed_fields=old.metadata.managed_fields,
        resource_version=old.metadata.resource_version,
    )
    return replace(new, metadata=meta) == old
