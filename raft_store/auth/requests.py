"""What can be asked of users and roles: commands of the replicated log, like those of ``mvcc.requests``.

The numbers and the order of fields are the log's format. Passwords are hashed before they get here: hashing is slow,
and what is in the log is on every disk.
"""

import msgspec

from .model import Permission


class AuthEnable(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """From now on every request needs a user who may make it."""


class AuthDisable(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """From now on nobody is asked."""


class Authenticate(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Give out a token; whoever proposes it has checked the password."""

    user: str
    token_prefix: str


class UserAdd(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """Make a user; ``password`` is hashed."""

    name: str
    password: bytes
    no_password: bool = False


class UserDelete(msgspec.Struct, frozen=True, array_like=True, tag=36):
    """Forget a user."""

    name: str


class UserChangePassword(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """Give a user another password, hashed; tokens of the old one end."""

    name: str
    password: bytes


class UserGrantRole(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """Let a user act in a role."""

    user: str
    role: str


class UserRevokeRole(msgspec.Struct, frozen=True, array_like=True, tag=39):
    """Take a role away from a user."""

    user: str
    role: str


class RoleAdd(msgspec.Struct, frozen=True, array_like=True, tag=40):
    """Make a role that allows nothing yet."""

    name: str


class RoleDelete(msgspec.Struct, frozen=True, array_like=True, tag=41):
    """Forget a role and take it away from every user."""

    name: str


class RoleGrantPermission(msgspec.Struct, frozen=True, array_like=True, tag=42):
    """Let a role do more, or something else, to a range."""

    role: str
    permission: Permission


class RoleRevokePermission(msgspec.Struct, frozen=True, array_like=True, tag=43):
    """Take what a role may do to exactly this range away."""

    role: str
    key: bytes
    end: bytes


Management = (
    AuthEnable
    | AuthDisable
    | UserAdd
    | UserDelete
    | UserChangePassword
    | UserGrantRole
    | UserRevokeRole
    | RoleAdd
    | RoleDelete
    | RoleGrantPermission
    | RoleRevokePermission
)
AuthCommand = Management | Authenticate


class Token(msgspec.Struct, frozen=True):
    """The token that was given out, and the revision of users and roles at that time."""

    token: str
    auth_revision: int
