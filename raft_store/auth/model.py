"""Users, roles, permissions, and what can go wrong with them.

Errors
    StoreError
        AuthError
            AuthNotEnabled
            RootUserMissing         authentication cannot be enabled without somebody who may do everything
            RootRoleMissing
            UserEmpty               no user given, also where one is needed
            UserExists
            UserNotFound
            RoleEmpty
            RoleExists
            RoleNotFound
            RoleNotGranted
            PermissionNotGranted
            PermissionNotGiven
            PermissionDenied
            AuthFailed              no such user, or not this password
            NoPasswordUser          this user is known by a certificate alone
            InvalidToken            never given out, or its time has run out
            InvalidManagement       would lock everybody out, or has no meaning
            OldAuthRevision         users or roles changed while the request was on its way; it may be tried again
"""

from enum import IntEnum

import msgspec

from raft_store.mvcc.model import StoreError

ROOT = "root"  # the user without whom authentication cannot be enabled, and the role that may do everything


class AuthError(StoreError):
    """The caller may not do this, or it cannot be done to users and roles."""


class AuthNotEnabled(AuthError):
    """Nobody needs a token."""


class RootUserMissing(AuthError):
    """There is no user ``root``."""


class RootRoleMissing(AuthError):
    """The user ``root`` does not have the role ``root``."""


class UserEmpty(AuthError):
    """No user was named."""


class UserExists(AuthError):
    """A user of this name is there."""


class UserNotFound(AuthError):
    """No user has this name."""


class RoleEmpty(AuthError):
    """No role was named."""


class RoleExists(AuthError):
    """A role of this name is there."""


class RoleNotFound(AuthError):
    """No role has this name."""


class RoleNotGranted(AuthError):
    """The user does not have the role."""


class PermissionNotGranted(AuthError):
    """The role does not have the permission."""


class PermissionNotGiven(AuthError):
    """The request names no permission."""


class PermissionDenied(AuthError):
    """None of the user's roles allows it."""


class AuthFailed(AuthError):
    """No such user, or not this password; which of them is not told."""


class NoPasswordUser(AuthError):
    """A password was given for a user that has none."""


class InvalidToken(AuthError):
    """The token is not, or no longer, known."""


class InvalidManagement(AuthError):
    """The change would lock everybody out, or has no meaning."""


class OldAuthRevision(AuthError):
    """Users or roles changed while the request was on its way."""


class Access(IntEnum):
    """What a permission allows; the numbers are etcd's."""

    READ = 0
    WRITE = 1
    READ_WRITE = 2

    def allows(self, wanted: "Access") -> bool:
        """Return whether ``wanted``, READ or WRITE, is among it."""
        return self in (wanted, Access.READ_WRITE)


class Permission(msgspec.Struct, frozen=True, array_like=True):
    """Access to the range [key, end), with etcd's two special ends."""

    access: Access
    key: bytes
    end: bytes = b""


class Role(msgspec.Struct, frozen=True, array_like=True):
    """A name for permissions, in the order of their keys."""

    name: str
    permissions: tuple[Permission, ...] = ()


class User(msgspec.Struct, frozen=True, array_like=True):
    """``password`` is hashed, empty for one who is known by a certificate alone; ``roles`` are sorted."""

    name: str
    password: bytes
    no_password: bool = False
    roles: tuple[str, ...] = ()


class Caller(msgspec.Struct, frozen=True):
    """Who makes a request, and the revision of users and roles by which that was found out; 0: nobody."""

    user: str = ""
    auth_revision: int = 0


NOBODY = Caller()
