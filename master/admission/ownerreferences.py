"""Owner references: only who may delete an object says whose it is, and only who may hold an owner back blocks it.

Source: kubernetes.io, "Using Admission Controllers", OwnerReferencesPermissionEnforcement.
"""

from collections.abc import Iterable

from api.kinds.table import Table
from api.meta import OwnerReference, Resource
from master.access.authorization import Authorizer
from master.access.rules import Request
from master.admission.chain import Attributes, Rule, refusal


def blocking(references: Iterable[OwnerReference]) -> dict[str, OwnerReference]:
    """Return uid -> reference, for those that keep their owner from going before the object."""
    return {each.uid: each for each in references if each.block_owner_deletion}


def _references(obj: Resource | None) -> tuple[OwnerReference, ...]:
    return obj.metadata.owner_references if obj is not None else ()


class OwnerReferences(Rule):
    """Asks authorization for two permissions that a change of owners needs."""

    def __init__(self, authorizer: Authorizer, table: Table) -> None:
        self._authorizer = authorizer
        self._table = table

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden."""
        if attributes.obj is None or attributes.subresource in ("status", "token"):
            return
        old, new = _references(attributes.old), _references(attributes.obj)
        if old == new:
            return
        user = attributes.user
        if attributes.operation == "UPDATE":
            kind = attributes.kind
            wanted = Request(user, "delete", kind.group, kind.plural, "", attributes.namespace, attributes.name)
            decision = await self._authorizer.decide(wanted)
            if not decision.allowed:
                why = "cannot set an ownerRef on a resource you can't delete"
                raise refusal(attributes, f"{why}: {decision.reason}")
        known = blocking(old)
        for uid, reference in blocking(new).items():
            if uid not in known:
                await self._may_block(attributes, reference)

    async def _may_block(self, attributes: Attributes, reference: OwnerReference) -> None:
        owner = self._table.kind(reference.api_version, reference.kind)
        why = "cannot set blockOwnerDeletion"
        if owner is None:
            raise refusal(
                attributes,
                f"{why} in this case because cannot find RESTMapping for APIVersion {reference.api_version} Kind "
                f"{reference.kind}",
            )
        namespace = attributes.namespace if owner.namespaced else ""
        wanted = Request(attributes.user, "update", owner.group, owner.plural, "finalizers", namespace, reference.name)
        decision = await self._authorizer.decide(wanted)
        if not decision.allowed:
            where = "if an ownerReference refers to a resource you can't set finalizers on"
            raise refusal(attributes, f"{why} {where}: {decision.reason}")
