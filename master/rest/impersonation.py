"""Acting as somebody else: ``kubectl --as``. Source: kubernetes.io, "User impersonation"."""

from multidict import CIMultiDictProxy

from api.errors import BadRequest
from master.access.authentication import with_authenticated
from master.access.authorization import Authorizer
from master.access.user import ANONYMOUS, User

_EXTRA = "impersonate-extra-"


async def effective_user(user: User, headers: CIMultiDictProxy[str], authorizer: Authorizer) -> User:
    """Return whom a request acts as; raises Forbidden unless ``user`` may impersonate the name and every group."""
    name = headers.get("Impersonate-User", "")
    groups = headers.getall("Impersonate-Group", [])
    extra = {
        key[len(_EXTRA) :].lower(): tuple(headers.getall(key)) for key in headers if key.lower().startswith(_EXTRA)
    }
    if not name:
        if groups or extra or "Impersonate-Uid" in headers:
            raise BadRequest("requested impersonation of groups, uid or extra without impersonating a user")
        return user
    await authorizer.authorize(user, "impersonate", "", "users", name=name)
    for group in groups:
        await authorizer.authorize(user, "impersonate", "", "groups", name=group)
    for key, values in extra.items():
        for value in values:
            await authorizer.authorize(user, "impersonate", "authentication.k8s.io", "userextras", key, name=value)
    uid = headers.get("Impersonate-Uid", "")
    if uid:
        await authorizer.authorize(user, "impersonate", "authentication.k8s.io", "uids", name=uid)
    if name == ANONYMOUS.name:
        return ANONYMOUS
    return with_authenticated(User(name, tuple(groups), uid, extra))
