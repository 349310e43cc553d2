"""Classes that objects get when they name none: storage classes of claims, ingress classes of ingresses."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from api.kinds.networking import Ingress, IngressClass
from api.kinds.storage import StorageClass
from api.kinds.volumes import PersistentVolumeClaim
from api.meta import Resource
from master.admission.chain import Attributes, Rule, refusal

STORAGE_DEFAULT = "storageclass.kubernetes.io/is-default-class"
STORAGE_DEFAULT_BETA = "storageclass.beta.kubernetes.io/is-default-class"
STORAGE_BETA = "volume.beta.kubernetes.io/storage-class"
INGRESS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
INGRESS_LEGACY = "kubernetes.io/ingress.class"

C = TypeVar("C", bound=Resource)


def newest_default(classes: Iterable[C], *annotations: str) -> C | None:
    """Return the default class: of several that are marked the newest, of equally old ones the first by name."""
    marked = [each for each in classes if any(each.metadata.annotations.get(key) == "true" for key in annotations)]
    marked.sort(key=lambda each: each.metadata.name)
    return max(marked, key=lambda each: each.metadata.creation_timestamp, default=None)


class DefaultStorageClass(Rule):
    """Gives claims that name no class the default one; an empty name is a name: no class at all."""

    def __init__(self, classes: Callable[[], Awaitable[Sequence[StorageClass]]]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new claim with its class."""
        if not (attributes.is_of("", "persistentvolumeclaims") and attributes.creates):
            return obj
        assert isinstance(obj, PersistentVolumeClaim), obj
        if obj.spec.storage_class_name is not None or STORAGE_BETA in obj.metadata.annotations:
            return obj
        chosen = newest_default(await self._classes(), STORAGE_DEFAULT, STORAGE_DEFAULT_BETA)
        if chosen is None:
            return obj
        return replace(obj, spec=replace(obj.spec, storage_class_name=chosen.metadata.name))


class DefaultIngressClass(Rule):
    """Gives ingresses that name no class the default one; more than one default is nobody's choice."""

    def __init__(self, classes: Callable[[], Awaitable[Sequence[IngressClass]]]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return a new ingress with its class; raises Forbidden if several classes are the default."""
        if not (attributes.is_of("networking.k8s.io", "ingresses") and attributes.creates):
            return obj
        assert isinstance(obj, Ingress), obj
        if obj.spec.ingress_class_name or INGRESS_LEGACY in obj.metadata.annotations:
            return obj
        marked = [each for each in await self._classes() if each.metadata.annotations.get(INGRESS_DEFAULT) == "true"]
        if len(marked) > 1:
            raise refusal(attributes, f"{len(marked)} default IngressClasses were found, only 1 allowed")
        return replace(obj, spec=replace(obj.spec, ingress_class_name=marked[0].metadata.name)) if marked else obj
