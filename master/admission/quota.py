"""Resource quotas: whatever is made is charged to the quotas of its namespace, and refused where it does not fit.

A charge is a compare-and-swap of the quota's status in the store: two masters that charge at the same moment cannot
both take the last of it. What was charged and then refused is given back at once; where nobody knows what came of it
(the store did not answer, the master died), the quota controller finds out, which counts what is there. Last in the
chain, so that what others refuse is never charged.
"""

import asyncio
import contextlib
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from fractions import Fraction

from msgspec.structs import replace

from api.errors import ApiError, Conflict, NotFound
from api.kinds.core import ResourceQuota
from api.kinds.pods import Pod
from api.kinds.table import Kind
from api.meta import Resource
from master.admission.chain import Attributes, Ledger, Rule, refusal
from master.modify import Modifier
from master.objects import StoredObject
from master.quota import as_text, exceeded, increase, is_about, masked, unsaid, usage_of
from master.resources import added, parsed

ListQuotas = Callable[[str], Awaitable[Sequence[ResourceQuota]]]
Amounts = dict[str, Fraction]

# Rounds of the modifier's own attempts before a client is asked to come again.
_ROUNDS = 6
_PAUSE_S = 0.02
# Subresources whose writes change what an object counts for.
_CHARGED = ("", "resize")


class ResourceQuotas(Rule):
    """Charges new and growing objects.

    kind: the row of resource quotas. quotas: returns those of a namespace as the cache has them.
    """

    def __init__(
        self,
        kind: Kind,
        quotas: ListQuotas,
        modifier: Modifier,
        *,
        rng: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kind = kind
        self._quotas = quotas
        self._modifier = modifier
        self._rng = rng
        self._now = now
        # One charge at a time in a namespace of this master: only other masters can be in the way.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def judge(self, attributes: Attributes) -> None:
        """Charge the quotas; raises Forbidden, with nothing charged, if one of them would be exceeded."""
        obj = attributes.obj
        if obj is None or not attributes.kind.namespaced or attributes.subresource not in _CHARGED:
            return
        quotas = await self._quotas(attributes.namespace)
        ledger = attributes.ledger or Ledger()
        charges = _still_due(self._charges(attributes, obj, quotas), quotas, ledger) if quotas else []
        if not charges:
            return
        lock = self._locks.setdefault(attributes.namespace, asyncio.Lock())
        async with lock:
            await self._charge(attributes, charges)
        if not attributes.dry_run:
            for quota, amounts in charges:
                name = quota.metadata.name
                ledger.charged[name] = added(ledger.charged.get(name, {}), amounts)

    def _charges(
        self, attributes: Attributes, obj: Resource, quotas: Sequence[ResourceQuota]
    ) -> list[tuple[ResourceQuota, Amounts]]:
        """Return by how much each quota is charged; raises Forbidden for a pod that leaves open what is counted."""
        now = self._now()
        after = usage_of(attributes.kind, obj, now)
        before = usage_of(attributes.kind, attributes.old, now) if attributes.old is not None else {}
        charges = []
        for quota in sorted(quotas, key=lambda each: each.metadata.name):
            if not is_about(quota, obj):
                continue
            if isinstance(obj, Pod) and attributes.operation == "CREATE" and (open_ := unsaid(quota, obj)):
                raise refusal(attributes, f"failed quota: {quota.metadata.name}: must specify {open_}")
            # An object that comes into a quota's scope by a change counts wholly.
            known = before if attributes.old is not None and is_about(quota, attributes.old) else {}
            if wanted := masked(increase(known, after), quota.status.hard):
                charges.append((quota, wanted))
        return charges

    async def _charge(self, attributes: Attributes, charges: Sequence[tuple[ResourceQuota, Amounts]]) -> None:
        done: list[tuple[ResourceQuota, Amounts]] = []
        try:
            for quota, wanted in charges:
                await self._change(quota, wanted, attributes)
                done.append((quota, wanted))
        except Exception:
            for quota, wanted in done:
                await self._change(quota, _negative(wanted), attributes)
            raise

    async def give_back(self, namespace: str, ledger: Ledger) -> None:
        """Take what a request was charged from its quotas; one that cannot be reached is put right by its count."""
        charged = [(name, amounts) for name, amounts in ledger.charged.items() if amounts]
        if not charged:
            return
        ledger.charged.clear()
        known = {quota.metadata.name: quota for quota in await self._quotas(namespace)}
        async with self._locks.setdefault(namespace, asyncio.Lock()):
            for name, amounts in charged:
                if name in known:
                    with contextlib.suppress(ApiError):
                        await self._change(known[name], _negative(amounts))

    async def _change(self, quota: ResourceQuota, wanted: Amounts, attributes: Attributes | None = None) -> None:
        """Charge ``wanted``; for a request that ``attributes`` tell of, raise Forbidden if that is too much."""

        async def alter(stored: StoredObject) -> Resource:
            present = stored.obj
            assert isinstance(present, ResourceQuota), present
            if attributes is not None and (why := exceeded(present, wanted)):
                raise refusal(attributes, why)
            # Its author may have taken a resource out of it meanwhile.
            used = added(parsed(present.status.used), masked(wanted, present.status.hard))
            floored = {name: max(amount, Fraction()) for name, amount in used.items()}
            meta = replace(present.metadata, resource_version="")
            return replace(present, metadata=meta, status=replace(present.status, used=dict(as_text(floored))))

        meta, dry_run = quota.metadata, attributes is not None and attributes.dry_run
        for attempt in range(_ROUNDS):
            try:
                await self._modifier.modify(self._kind, meta.namespace, meta.name, alter, dry_run=dry_run)
            except NotFound:
                return  # gone meanwhile: nothing is limited any more
            except Conflict:
                if attempt == _ROUNDS - 1:
                    raise
                await asyncio.sleep(self._rng.uniform(0, _PAUSE_S * 2**attempt))
            else:
                return


def _negative(amounts: Mapping[str, Fraction]) -> Amounts:
    return {name: -amount for name, amount in amounts.items()}


def _still_due(
    charges: Sequence[tuple[ResourceQuota, Amounts]], quotas: Sequence[ResourceQuota], ledger: Ledger
) -> list[tuple[ResourceQuota, Amounts]]:
    """Return the charges less what the request has paid; what it paid and wants no more is given back."""
    wanted = {quota.metadata.name: amounts for quota, amounts in charges}
    found = []
    for quota in sorted(quotas, key=lambda each: each.metadata.name):
        name = quota.metadata.name
        paid = {resource: -amount for resource, amount in ledger.charged.get(name, {}).items()}
        due = {resource: amount for resource, amount in added(wanted.get(name, {}), paid).items() if amount}
        if due:
            found.append((quota, due))
    return found
