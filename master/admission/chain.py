"""The admission chain: every write passes its plugins, first those that change the object, then those that judge it."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Protocol

import msgspec

from api.errors import Fault, Forbidden
from api.kinds.table import Kind
from api.meta import Resource
from master.access.user import User

Operation = Literal["CREATE", "UPDATE", "DELETE"]


Charges = dict[str, dict[str, Fraction]]  # quota -> resource -> amount


class Ledger:
    """What one request has been charged so far: a write that is worked out again pays only what it wants more."""

    def __init__(self) -> None:
        self.charged: Charges = {}


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin may look at. ``obj`` is None for DELETE, ``old`` for CREATE."""

    kind: Kind
    operation: Operation
    namespace: str
    name: str
    subresource: str = ""
    user: User
    dry_run: bool = False
    obj: Resource | None = None
    old: Resource | None = None
    ledger: Ledger | None = None  # of the request, if its write may be worked out more than once

    @property
    def creates(self) -> bool:
        """Return whether this makes an object, and does nothing to a subresource."""
        return self.operation == "CREATE" and not self.subresource

    def is_of(self, group: str, plural: str) -> bool:
        """Return whether the object is of that resource."""
        return self.kind.place == (group, plural)


def refusal(attributes: Attributes, why: str, *, causes: Sequence[Fault] = ()) -> Forbidden:
    """Return the refusal of what ``attributes`` tell: ``pods "web" is forbidden: why``."""
    kind = attributes.kind
    plural = f"{kind.plural}.{kind.group}" if kind.group else kind.plural
    message = f'{plural} "{attributes.name}" is forbidden: {why}'
    return Forbidden(message, group=kind.group, kind=kind.plural, name=attributes.name, causes=causes)


class Plugin(Protocol):
    """One rule of admission."""

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return what to make of ``obj``; raises ApiError to refuse it."""

    async def judge(self, attributes: Attributes) -> None:
        """Raise ApiError if this may not be done."""

    async def give_back(self, namespace: str, ledger: Ledger) -> None:
        """Give back what a request was charged that came to nothing; never raises ApiError."""


class Rule:
    """A plugin that does nothing; others override what they need."""

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:  # noqa: ARG002 - the protocol's shape
        """Change nothing."""
        return obj

    async def judge(self, attributes: Attributes) -> None:
        """Refuse nothing."""

    async def give_back(self, namespace: str, ledger: Ledger) -> None:
        """Owe nothing."""


class Chain:
    """The plugins in their order."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self._plugins = tuple(plugins)

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return ``obj`` as every plugin in turn has changed it."""
        for plugin in self._plugins:
            obj = await plugin.mutate(attributes, obj)
        return obj

    async def judge(self, attributes: Attributes) -> None:
        """Let every plugin refuse."""
        for plugin in self._plugins:
            await plugin.judge(attributes)

    async def give_back(self, namespace: str, ledger: Ledger) -> None:
        """Let every plugin give back what it has charged."""
        for plugin in self._plugins:
            await plugin.give_back(namespace, ledger)
