"""Acting as somebody else: ``kubectl --as``. Source: kubernetes.io, "User impersonation"."""

from urllib.parse import unquote

from multidict import MultiMapping

from api.errors import BadRequest
from master.access.authentication import with_authenticated
from master.access.authorization import Authorizer
from master.access.tokens import account_groups
from master.access.user import ACCOUNT_PREFIX, ANONYMOUS, UNAUTHENTICATED, User

_EXTRA = "impersonate-extra-"
_GROUP = "authentication.k8s.io"


async def effective_user(user: User, headers: MultiMapping[str], authorizer: Authorizer) -> User:
    """Return whom a request acts as; raises Forbidden unless ``user`` may impersonate the name and all beside it."""
    name = headers.get("Impersonate-User", "")
    groups = tuple(headers.getall("Impersonate-Group", []))
    # Keys of extra fields are free text, which headers carry percent-encoded.
    extra = {
        unquote(key[len(_EXTRA) :].lower()): tuple(headers.getall(key))
        for key in headers
        if key.lower().startswith(_EXTRA)
    }
    uid = headers.get("Impersonate-Uid", "")
    if not name:
        if groups or extra or uid:
            raise BadRequest("requested impersonation of groups, uid or extra without impersonating a user")
        return user
    account = _account(name)
    if account is None:
        await authorizer.authorize(user, "impersonate", "", "users", name=name)
    else:
        await authorizer.authorize(user, "impersonate", "", "serviceaccounts", namespace=account[0], name=account[1])
    for group in groups:
        await authorizer.authorize(user, "impersonate", "", "groups", name=group)
    for key, values in extra.items():
        for value in values:
            await authorizer.authorize(user, "impersonate", _GROUP, "userextras", key, name=value)
    if uid:
        await authorizer.authorize(user, "impersonate", _GROUP, "uids", name=uid)
    if name == ANONYMOUS.name:
        return User(name, groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED), uid, extra)
    if account is not None and not groups:
        groups = account_groups(account[0])
    return with_authenticated(User(name, groups, uid, extra))


def _account(name: str) -> tuple[str, str] | None:
    """Return (namespace, name) if ``name`` is the user of a service account."""
    if not name.startswith(ACCOUNT_PREFIX):
        return None
    namespace, _, account = name.removeprefix(ACCOUNT_PREFIX).partition(":")
    return (namespace, account) if namespace and account and ":" not in account else None
