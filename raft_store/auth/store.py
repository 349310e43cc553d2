"""The users and roles of one store: what may be changed, and who may do what. The same on every member."""

from bisect import bisect_left, insort
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from .model import (
    ROOT,
    Access,
    AuthFailed,
    AuthNotEnabled,
    Caller,
    InvalidManagement,
    NoPasswordUser,
    OldAuthRevision,
    PermissionDenied,
    PermissionNotGranted,
    Role,
    RoleEmpty,
    RoleExists,
    RoleNotFound,
    RoleNotGranted,
    RootRoleMissing,
    RootUserMissing,
    User,
    UserEmpty,
    UserExists,
    UserNotFound,
)
from .ranges import Interval, cover, interval
from .requests import (
    AuthDisable,
    AuthEnable,
    Management,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)

_by_key = attrgetter("key")


class AuthContents(msgspec.Struct, frozen=True, array_like=True):
    """Everything an AuthStore holds, for a snapshot."""

    enabled: bool = False
    revision: int = 1
    users: list[User] = []
    roles: list[Role] = []


class AuthStore:
    """Users, roles, whether anybody is asked for them, and the revision that every change of them adds 1 to."""

    def __init__(self, contents: AuthContents | None = None) -> None:
        contents = contents or AuthContents()
        self.enabled = contents.enabled
        self.revision = contents.revision
        self._users = {user.name: user for user in contents.users}
        self._roles = {role.name: role for role in contents.roles}
        self._allowed: dict[tuple[str, Access], list[Interval]] = {}  # found out when first asked for
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            AuthEnable: self._enable,
            AuthDisable: self._disable,
            UserAdd: self._user_add,
            UserDelete: self._user_delete,
            UserChangePassword: self._user_change_password,
            UserGrantRole: self._user_grant_role,
            UserRevokeRole: self._user_revoke_role,
            RoleAdd: self._role_add,
            RoleDelete: self._role_delete,
            RoleGrantPermission: self._role_grant_permission,
            RoleRevokePermission: self._role_revoke_permission,
        }

    def contents(self) -> AuthContents:
        """Return everything, in an order that is the same on every member."""
        return AuthContents(self.enabled, self.revision, self.users(), self.roles())

    # -- what is there -----------------------------------------------------------------------------------------------

    def users(self) -> list[User]:
        """Return every user, by name."""
        return [self._users[name] for name in sorted(self._users)]

    def roles(self) -> list[Role]:
        """Return every role, by name."""
        return [self._roles[name] for name in sorted(self._roles)]

    def __contains__(self, user: str) -> bool:
        return user in self._users

    def user(self, name: str) -> User:
        """Return a user. Raises UserNotFound."""
        try:
            return self._users[name]
        except KeyError:
            raise UserNotFound(name) from None

    def role(self, name: str) -> Role:
        """Return a role. Raises RoleNotFound."""
        try:
            return self._roles[name]
        except KeyError:
            raise RoleNotFound(name) from None

    def has_role(self, user: str, role: str) -> bool:
        """Return whether there is such a user with such a role."""
        found = self._users.get(user)
        return found is not None and role in found.roles

    def password_of(self, name: str) -> bytes:
        """Return the hash to check a password against. Raises AuthNotEnabled, AuthFailed, NoPasswordUser."""
        if not self.enabled:
            raise AuthNotEnabled
        user = self._users.get(name)
        if user is None:
            raise AuthFailed(name)
        if user.no_password:
            raise NoPasswordUser(name)
        return user.password

    # -- who may do what ---------------------------------------------------------------------------------------------

    def check(self, caller: Caller, access: Access, key: bytes, end: bytes = b"") -> None:
        """Raise UserEmpty, OldAuthRevision or PermissionDenied unless ``caller`` may read or write [key, end)."""
        if not self.enabled:
            return
        if not caller.auth_revision:
            raise UserEmpty
        if caller.auth_revision < self.revision:
            raise OldAuthRevision(caller.auth_revision)
        user = self._users.get(caller.user)
        if user is None:
            raise PermissionDenied(caller.user)
        if ROOT not in user.roles and not cover(self._intervals(user, access), interval(key, end)):
            raise PermissionDenied(caller.user)

    def check_admin(self, caller: Caller) -> None:
        """Raise UserEmpty, UserNotFound or PermissionDenied unless ``caller`` may do everything."""
        if not self.enabled:
            return
        if not caller.user:
            raise UserEmpty
        if ROOT not in self.user(caller.user).roles:
            raise PermissionDenied(caller.user)

    def _intervals(self, user: User, access: Access) -> list[Interval]:
        known = self._allowed.get((user.name, access))
        if known is None:
            known = self._allowed[user.name, access] = [
                interval(permission.key, permission.end)
                for name in user.roles
                if (role := self._roles.get(name)) is not None
                for permission in role.permissions
                if permission.access.allows(access)
            ]
        return known

    # -- changes -----------------------------------------------------------------------------------------------------

    def apply(self, command: Management) -> None:
        """Make a change. Raises AuthError; nothing was changed then."""
        self._handlers[type(command)](command)

    def _changed(self) -> None:
        self.revision += 1
        self._allowed.clear()

    def _enable(self, command: AuthEnable) -> None:
        del command
        if self.enabled:
            return
        root = self._users.get(ROOT)
        if root is None:
            raise RootUserMissing
        if ROOT not in root.roles:
            raise RootRoleMissing
        self.enabled = True

    def _disable(self, command: AuthDisable) -> None:
        del command
        if self.enabled:
            self.enabled = False
            self._changed()

    def _user_add(self, command: UserAdd) -> None:
        if not command.name:
            raise UserEmpty
        if command.name in self._users:
            raise UserExists(command.name)
        password = b"" if command.no_password else command.password
        self._users[command.name] = User(command.name, password, command.no_password)
        self._changed()

    def _user_delete(self, command: UserDelete) -> None:
        if self.enabled and command.name == ROOT:
            raise InvalidManagement("nobody could manage the store without the user root")
        self.user(command.name)
        del self._users[command.name]
        self._changed()

    def _user_change_password(self, command: UserChangePassword) -> None:
        user = self.user(command.name)
        self._users[user.name] = msgspec.structs.replace(user, password=command.password)
        self._changed()

    def _user_grant_role(self, command: UserGrantRole) -> None:
        user = self.user(command.user)
        if command.role != ROOT:  # whose permissions nobody has to write down
            self.role(command.role)
        if command.role in user.roles:
            return
        self._users[user.name] = msgspec.structs.replace(user, roles=tuple(sorted((*user.roles, command.role))))
        self._changed()

    def _user_revoke_role(self, command: UserRevokeRole) -> None:
        if self.enabled and command.user == ROOT and command.role == ROOT:
            raise InvalidManagement("nobody could manage the store without the user root's role root")
        user = self.user(command.user)
        if command.role not in user.roles:
            raise RoleNotGranted(command.role)
        self._take_away(user, command.role)
        self._changed()

    def _role_add(self, command: RoleAdd) -> None:
        if not command.name:
            raise RoleEmpty
        if command.name in self._roles:
            raise RoleExists(command.name)
        self._roles[command.name] = Role(command.name)
        self._changed()

    def _role_delete(self, command: RoleDelete) -> None:
        if self.enabled and command.name == ROOT:
            raise InvalidManagement("the role root is what may manage the store")
        self.role(command.name)
        del self._roles[command.name]
        for user in self.users():
            if command.name in user.roles:
                self._take_away(user, command.name)
        self._changed()

    def _role_grant_permission(self, command: RoleGrantPermission) -> None:
        granted = command.permission
        if not _is_range(granted.key, granted.end):
            raise InvalidManagement(f"[{granted.key!r}, {granted.end!r}) holds no key")
        role = self.role(command.role)
        permissions = list(role.permissions)
        at = bisect_left(permissions, granted.key, key=_by_key)
        # Like etcd, look at the first permission of that key only: another range from that key is another permission.
        if at < len(permissions) and (permissions[at].key, permissions[at].end) == (granted.key, granted.end):
            permissions[at] = granted
        else:
            insort(permissions, granted, key=_by_key)
        self._roles[role.name] = Role(role.name, tuple(permissions))
        self._changed()

    def _role_revoke_permission(self, command: RoleRevokePermission) -> None:
        role = self.role(command.role)
        kept = tuple(held for held in role.permissions if (held.key, held.end) != (command.key, command.end))
        if len(kept) == len(role.permissions):
            raise PermissionNotGranted(command.role)
        self._roles[role.name] = Role(role.name, kept)
        self._changed()

    def _take_away(self, user: User, role: str) -> None:
        kept = tuple(held for held in user.roles if held != role)
        self._users[user.name] = msgspec.structs.replace(user, roles=kept)


def _is_range(key: bytes, end: bytes) -> bool:
    if not end:
        return bool(key)
    return end == b"\0" or key < end
