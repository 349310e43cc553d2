"""Aggregated cluster roles: their rules are those of all roles that they select."""

import logging
from collections.abc import Iterable

from msgspec.structs import replace

from api import selectors
from api.errors import NotFound
from api.kinds.rbac import ClusterRole
from client.resources import Resources
from client.runner import Runner
from master.access.default_roles import aggregated_rules
from master.controllers.context import Context

log = logging.getLogger(__name__)


class AggregationController:
    """Keeps the rules of roles with an aggregationRule."""

    def __init__(self, context: Context) -> None:
        self._roles = context.informers.of(ClusterRole)
        self.runner = Runner(
            "clusterrole-aggregation",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._roles.subscribe(self.runner.queue.add, self._concerned)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _concerned(self, before: ClusterRole | None, after: ClusterRole | None) -> Iterable[str]:
        """Return the aggregated roles among those that changed and those that select them."""
        changed = [each for each in (before, after) if each is not None]
        names = {each.metadata.name for each in changed if each.aggregation_rule is not None}
        for role in self._roles:
            if role.aggregation_rule is not None and any(_selects(role, each) for each in changed):
                names.add(role.metadata.name)
        return names

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Write the rules of one role, if they are not what they should be."""
        role = self._roles.get(key)
        if role is None or role.aggregation_rule is None or role.metadata.deletion_timestamp:
            return None
        rules = aggregated_rules(role, self._roles)
        if rules == role.rules:
            return None
        try:
            await api.update(replace(role, rules=rules))
        except NotFound:
            return None
        log.info("aggregated role brought up to date name=%s rules=%d", key, len(rules))
        return None


def _selects(role: ClusterRole, other: ClusterRole) -> bool:
    assert role.aggregation_rule is not None
    chosen = role.aggregation_rule.cluster_role_selectors
    return any(selectors.of_struct(each).matches(other.metadata.labels) for each in chosen)
