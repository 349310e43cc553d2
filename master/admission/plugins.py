"""The admission chain of a master: every plugin, in the order of the real server's."""

import random
from collections.abc import Awaitable, Callable

import msgspec

from api.kinds.core import LimitRange, ResourceQuota, ServiceAccount
from api.kinds.networking import IngressClass
from api.kinds.pods import Pod
from api.kinds.runtime import RuntimeClass
from api.kinds.scheduling import PriorityClass
from api.kinds.storage import StorageClass
from api.meta import Resource
from master.access.assembly import Access
from master.admission.certificates import CertificateApproval, CertificateRequests, CertificateSigning
from master.admission.chain import Chain, Plugin
from master.admission.defaultclasses import DefaultIngressClass, DefaultStorageClass
from master.admission.escalation import Escalation
from master.admission.limits import LimitRanger
from master.admission.namespace import NamespaceLifecycle
from master.admission.noderestriction import NodeRestriction
from master.admission.ownerreferences import OwnerReferences
from master.admission.podsecurity import PodSecurity
from master.admission.priority import SYSTEM_CLASSES, Priority
from master.admission.quota import ResourceQuotas
from master.admission.runtimeclass import RuntimeClasses
from master.admission.serviceaccount import ServiceAccounts
from master.admission.storageprotection import StorageObjectInUse
from master.admission.tolerations import DefaultTolerationSeconds, ExtendedResourceToleration, TaintNodesByCondition
from master.modify import Modifier


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set."""

    toleration_s: int = 300  # how long pods stay on a node that has fallen silent, unless they say otherwise
    masters: frozenset[str] = frozenset()  # the hosts' names: the store's members know each other by them


def make_chain(
    access: Access,
    modifier: Modifier,
    *,
    find_namespace: Callable[[str], Awaitable[Resource | None]],
    settings: Settings,
    rng: random.Random,
) -> Chain:
    """Return the chain; find_namespace: returns a namespace as fresh as can be."""
    lookup, table, authorizer = access.lookup, access.lookup.table, access.authorizer

    async def priority_class(name: str) -> PriorityClass | None:
        return await lookup.find(PriorityClass, name) or SYSTEM_CLASSES.get(name)

    plugins: list[Plugin] = [
        NamespaceLifecycle(find_namespace),
        Escalation(authorizer),
        LimitRanger(lambda namespace: lookup.all(LimitRange, namespace=namespace)),
        NodeRestriction(lambda namespace, name: lookup.find(Pod, name, namespace=namespace)),
        TaintNodesByCondition(),
        PodSecurity(find_namespace, lambda namespace: lookup.all(Pod, namespace=namespace)),
        Priority(lambda: lookup.all(PriorityClass), priority_class),
        DefaultTolerationSeconds(settings.toleration_s),
        ExtendedResourceToleration(),
        RuntimeClasses(lambda name: lookup.find(RuntimeClass, name)),
        CertificateRequests(settings.masters),
        CertificateApproval(authorizer),
        CertificateSigning(authorizer),
        DefaultIngressClass(lambda: lookup.all(IngressClass)),
        DefaultStorageClass(lambda: lookup.all(StorageClass)),
        StorageObjectInUse(),
        OwnerReferences(authorizer, table),
        ResourceQuotas(
            table.of(ResourceQuota),
            lambda namespace: lookup.all(ResourceQuota, namespace=namespace),
            modifier,
            rng=rng,
        ),
    ]
    if access.tokens is not None:
        # Without a key there are no tokens to mount.
        accounts = ServiceAccounts(lambda namespace, name: lookup.find(ServiceAccount, name, namespace=namespace), rng)
        plugins.insert(3, accounts)
    return Chain(plugins)
