"""Definitions of custom kinds: names and conditions while they live, their objects' end when they are deleted."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.custom.definitions import FINALIZER
from api.custom.naming import Condition, plan_status, with_condition
from api.errors import Conflict, NotFound
from api.kinds.extensions import CustomResourceDefinition
from api.kinds.table import Kind
from api.meta import Resource
from client.clock import timestamp
from client.resources import Resources
from client.runner import Runner
from master.controllers.context import Context

# While objects of a kind that goes are held by finalizers, they are counted again after so long.
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
_AT_ONCE = 16

log = logging.getLogger(__name__)


class DefinitionController:
    """Accepts names, establishes kinds, and empties kinds that are to go.

    One worker: which of two definitions gets a name that both want is decided one after the other.
    """

    def __init__(self, context: Context) -> None:
        self._clock = context.clock
        self._table = context.table
        self._definitions = context.informers.of(CustomResourceDefinition)
        self._written: dict[str, CustomResourceDefinition] = {}  # name -> what we wrote and the cache may not show yet
        self._rounds: Counter[str] = Counter()
        self.runner = Runner(
            "definitions",
            self.reconcile,
            resources=context.resources,
            informers=context.informers,
            workers=1,
            clock=context.clock,
        )
        self._definitions.subscribe(self.runner.queue.add, self._concerned)

    async def run(self) -> None:
        """Work until cancelled."""
        await self.runner.run()

    def _concerned(
        self, before: CustomResourceDefinition | None, after: CustomResourceDefinition | None
    ) -> Iterable[str]:
        """A definition whose names change, or that goes, may set names free that others of its group wait for."""
        changed = after or before
        assert changed is not None
        yield changed.metadata.name
        if before is not None and (after is None or before.status.accepted_names != after.status.accepted_names):
            for each in self._definitions:
                if each.spec.group == changed.spec.group and each.metadata.name != changed.metadata.name:
                    yield each.metadata.name

    async def reconcile(self, key: str, api: Resources) -> float | None:
        """Bring one definition's status to what it should be, or its objects to their end."""
        definition = self._definitions.get(key)
        if definition is None:
            self._written.pop(key, None)
            self._rounds.pop(key, None)
            return None
        if definition.metadata.deletion_timestamp:
            return await self._finish(api, definition) if FINALIZER in definition.metadata.finalizers else None
        status = plan_status(definition, self._others(), self._table, timestamp(self._clock.time()))
        if status != definition.status:
            self._written[key] = await api.update(replace(definition, status=status), subresource="status")
        return None

    def _others(self) -> Sequence[CustomResourceDefinition]:
        """Return every definition as it was last seen or written."""
        found = []
        for each in self._definitions:
            name = each.metadata.name
            written = self._written.get(name)
            if written is not None and int(written.metadata.resource_version) <= int(each.metadata.resource_version):
                written = self._written.pop(name, None) and None
            found.append(written or each)
        return found

    # The end

    async def _finish(self, api: Resources, definition: CustomResourceDefinition) -> float | None:
        """Delete every object of the kind; when none is left let the definition go."""
        name = definition.metadata.name
        left = await self._empty(api, self._model(definition))
        if left:
            message = f"CustomResource deletion is in progress: {left} left"
            await self._tell(api, definition, "True", "InstanceDeletionInProgress", message)
            self._rounds[name] += 1
            return float(min(FIRST_WAIT_S * 2 ** min(self._rounds[name] - 1, 10), LONGEST_WAIT_S))
        meta = definition.metadata
        kept = tuple(each for each in meta.finalizers if each != FINALIZER)
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": list(kept)}}
        try:
            await api.patch(CustomResourceDefinition, name, patch)
        except NotFound:
            return None
        log.info("custom kind emptied name=%s", name)
        return None

    def _model(self, definition: CustomResourceDefinition) -> type[Resource] | None:
        """Return the struct of the kind's objects; None if it was never established, so that there are none."""
        row: Kind | None = self._table.defined_by(definition.metadata.name)
        return row.model if row is not None else None

    @staticmethod
    async def _empty(api: Resources, model: type[Resource] | None) -> int:
        """Delete what is there; return how many objects are left."""
        if model is None:
            return 0
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def delete(obj: Resource) -> None:
            meta = obj.metadata
            async with at_once:
                try:
                    await api.delete(model, meta.name, namespace=meta.namespace, uid=meta.uid, propagation="Background")
                except (NotFound, Conflict):
                    return  # it left by itself, or another has its name: counted below

        items = (await api.list(model)).items
        await asyncio.gather(*(delete(each) for each in items if not each.metadata.deletion_timestamp))
        return len((await api.list(model)).items) if items else 0

    async def _tell(
        self, api: Resources, definition: CustomResourceDefinition, status: str, reason: str, message: str
    ) -> None:
        new = Condition(type="Terminating", status=status, reason=reason, message=message)
        conditions = with_condition(definition.status.conditions, new, timestamp(self._clock.time()))
        if conditions != definition.status.conditions:
            changed = replace(definition, status=replace(definition.status, conditions=conditions))
            try:
                await api.update(changed, subresource="status")
            except NotFound:
                return
