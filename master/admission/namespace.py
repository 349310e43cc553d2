"""Namespaces: objects are made only in one that exists and is not being deleted; the system's own stay."""

from collections.abc import Awaitable, Callable

from api.errors import Fault, Forbidden, not_found
from api.kinds.core import Namespace
from api.meta import Resource
from master.admission.chain import Attributes, Rule

IMMORTAL = ("default", "kube-system", "kube-public", "kube-node-lease")

FindNamespace = Callable[[str], Awaitable[Resource | None]]


class NamespaceLifecycle(Rule):
    """Refuses new objects in namespaces that are missing or terminating.

    find: returns a namespace as the cache has it, or as the store has it if the cache does not know it.
    """

    def __init__(self, find: FindNamespace) -> None:
        self._find = find

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Raise NotFound or Forbidden for a new object that has nowhere to live: before anything else is said of it."""
        if attributes.operation == "CREATE" and attributes.kind.namespaced and not attributes.subresource:
            await self._check(attributes)
        return obj

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden for the deletion of a namespace that the system needs."""
        kind = attributes.kind
        namespaces = (kind.group, kind.plural) == ("", "namespaces")
        if namespaces and attributes.operation == "DELETE" and attributes.name in IMMORTAL:
            raise Forbidden(
                f'namespaces "{attributes.name}" is forbidden: this namespace may not be deleted',
                kind="namespaces",
                name=attributes.name,
            )

    async def _check(self, attributes: Attributes) -> None:
        kind = attributes.kind
        namespace = await self._find(attributes.namespace)
        if namespace is None:
            raise not_found("namespaces", attributes.namespace)
        assert isinstance(namespace, Namespace)
        if namespace.metadata.deletion_timestamp:
            why = f"unable to create new content in namespace {attributes.namespace} because it is being terminated"
            plural = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
            raise Forbidden(
                f'{plural} "{attributes.name}" is forbidden: {why}',
                group=kind.group,
                kind=kind.plural,
                name=attributes.name,
                causes=[
                    Fault(
                        "metadata.namespace",
                        f"namespace {attributes.namespace} is being terminated",
                        "NamespaceTerminating",
                    )
                ],
            )
