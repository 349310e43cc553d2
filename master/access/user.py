"""Who sent a request."""

from collections.abc import Mapping

import msgspec

SYSTEM_MASTERS = "system:masters"
SYSTEM_NODES = "system:nodes"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
NODE_PREFIX = "system:node:"
MASTER_PREFIX = "system:master:"
ACCOUNT_PREFIX = "system:serviceaccount:"


class User(msgspec.Struct, frozen=True):
    """A name and the groups it belongs to, as an authenticator vouches for them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}

    @property
    def anonymous(self) -> bool:
        """Return whether nobody vouched for this user."""
        return UNAUTHENTICATED in self.groups

    @property
    def node(self) -> str:
        """Return the name of the node that this user is the agent of, or the empty string."""
        if SYSTEM_NODES in self.groups and self.name.startswith(NODE_PREFIX):
            return self.name.removeprefix(NODE_PREFIX)
        return ""


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))
