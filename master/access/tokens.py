"""Service-account tokens: issued to whoever asks for one, valid while the account and the bound object live.

A token names its account and its bound object by uid, so that it dies with them although it has not expired. Tokens of
the older kind lie in secrets and never expire; they die with their secret. Sources: kubernetes.io, "Managing Service
Accounts" and "Configure Service Accounts for Pods".
"""

import base64
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from api.kinds.core import Node, Secret, ServiceAccount
from api.kinds.pods import Pod
from api.meta import Resource
from master.access.authentication import Reviewed
from master.access.signing import InvalidToken, KeyRing, read_claims
from master.access.user import ACCOUNT_PREFIX, User
from master.lifecycle import seconds
from master.lookup import Lookup

LEGACY_ISSUER = "kubernetes/serviceaccount"
ACCOUNTS_GROUP = "system:serviceaccounts"
# What a pod's own volume asks for; only these tokens are extended.
POD_TOKEN_S = 3607
# A client that reads its token file once keeps working that long; whoever reads it again sees ``warnafter``.
EXTENDED_S = 365 * 24 * 3600
# A clock that lags, and a pod that still has something to say while it stops.
LEEWAY_S = 60.0
_VERIFIED_KEPT = 2048
_EXTRA = "authentication.kubernetes.io/"


class _Reference(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class _Private(msgspec.Struct, frozen=True):
    """What tokens say beside the registered claims."""

    namespace: str = ""
    serviceaccount: _Reference = _Reference()
    pod: _Reference | None = None
    secret: _Reference | None = None
    node: _Reference | None = None
    warnafter: int = 0


class _Claims(msgspec.Struct, frozen=True):
    iss: str = ""
    sub: str = ""
    aud: str | tuple[str, ...] = ()
    exp: float = 0
    nbf: float = 0
    iat: float = 0
    jti: str = ""
    private: _Private = msgspec.field(default=_Private(), name="kubernetes.io")


class _LegacyClaims(msgspec.Struct, frozen=True):
    sub: str = ""
    namespace: str = msgspec.field(default="", name="kubernetes.io/serviceaccount/namespace")
    secret: str = msgspec.field(default="", name="kubernetes.io/serviceaccount/secret.name")
    account: str = msgspec.field(default="", name="kubernetes.io/serviceaccount/service-account.name")
    uid: str = msgspec.field(default="", name="kubernetes.io/serviceaccount/service-account.uid")


class Issued(NamedTuple):
    """A new token and when it expires, in seconds since the epoch, as its holder is told."""

    token: str
    expires: float


class ServiceAccountTokens:
    """Issues and verifies; implements ``TokenVerifier`` and ``AudienceVerifier`` of ``master.access.authentication``.

    issuer: the first claim of every token, and where its documents of discovery are.
    audiences: those of this API; a token for others proves nothing here.
    """

    def __init__(
        self,
        keys: KeyRing,
        lookup: Lookup,
        *,
        issuer: str,
        audiences: Sequence[str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self.issuer = issuer
        self.audiences = tuple(audiences)
        self._lookup = lookup
        self._now = now
        # Checking a signature costs a tenth of a millisecond; whether the token still counts is asked every time.
        self._verified: OrderedDict[str, _Claims | _LegacyClaims] = OrderedDict()

    def issue(
        self,
        account: ServiceAccount,
        *,
        audiences: Sequence[str] = (),
        lifetime_s: int = 3600,
        bound: Resource | None = None,
        node: Node | None = None,
    ) -> Issued:
        """Return a token of ``account``, bound to a pod, a secret or a node if one is given.

        node: the one that a bound pod runs on, told beside it.
        """
        meta, now = account.metadata, int(self._now())
        wanted = tuple(audiences) or self.audiences
        private: dict[str, Any] = {"namespace": meta.namespace, "serviceaccount": _named(account)}
        if bound is not None:
            private[type(bound).__name__.lower()] = _named(bound)
        if node is not None:
            private["node"] = _named(node)
        expires = now + lifetime_s
        if lifetime_s == POD_TOKEN_S and isinstance(bound, Pod) and set(wanted) <= set(self.audiences):
            private["warnafter"], expires = expires, now + EXTENDED_S
        claims = {
            "aud": wanted,
            "exp": expires,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "nbf": now,
            "sub": f"{ACCOUNT_PREFIX}{meta.namespace}:{meta.name}",
        }
        return Issued(self.keys.sign(claims), now + lifetime_s)

    def issue_legacy(self, account: ServiceAccount, secret: str) -> str:
        """Return the token that lies in the secret of that name; it does not expire."""
        meta = account.metadata
        prefix = "kubernetes.io/serviceaccount"
        return self.keys.sign(
            {
                "iss": LEGACY_ISSUER,
                f"{prefix}/namespace": meta.namespace,
                f"{prefix}/secret.name": secret,
                f"{prefix}/service-account.name": meta.name,
                f"{prefix}/service-account.uid": meta.uid,
                "sub": f"{ACCOUNT_PREFIX}{meta.namespace}:{meta.name}",
            }
        )

    async def verify(self, token: str) -> User | None:
        """Return who bears ``token``, or None if it is not one of ours for this API."""
        reviewed = await self.review(token, self.audiences)
        return None if reviewed is None else reviewed.user

    async def review(self, token: str, audiences: Sequence[str]) -> Reviewed | None:
        """Return who bears ``token`` if it is good for one of ``audiences``."""
        try:
            claims = self._claims(token)
            if isinstance(claims, _LegacyClaims):
                user, good_for = await self._legacy(claims, token), self.audiences
            else:
                user, good_for = await self._bound(claims), _audiences(claims)
        except InvalidToken:
            return None
        matching = tuple(each for each in audiences if each in good_for)
        return Reviewed(user, matching) if matching else None

    def _claims(self, token: str) -> _Claims | _LegacyClaims:
        """Return what a token signed by us says; raises InvalidToken."""
        if (known := self._verified.get(token)) is not None:
            self._verified.move_to_end(token)
            return known
        # Whose token it may be is looked at before any costly arithmetic.
        if read_claims(token).get("iss") not in (self.issuer, LEGACY_ISSUER):
            raise InvalidToken("from another issuer")
        document = self.keys.verify(token)
        model: type[_Claims | _LegacyClaims] = _LegacyClaims if document.get("iss") == LEGACY_ISSUER else _Claims
        try:
            claims = msgspec.convert(document, model)
        except msgspec.ValidationError as error:
            raise InvalidToken(str(error)) from None
        self._verified[token] = claims
        if len(self._verified) > _VERIFIED_KEPT:
            self._verified.popitem(last=False)
        return claims

    async def _bound(self, claims: _Claims) -> User:
        """Return the user of a token that still counts; raises InvalidToken."""
        now, private = self._now(), claims.private
        if now > claims.exp + LEEWAY_S or now + LEEWAY_S < claims.nbf:
            raise InvalidToken("expired, or not valid yet")
        namespace = private.namespace
        account = await self._alive(ServiceAccount, private.serviceaccount, namespace)
        if claims.sub != f"{ACCOUNT_PREFIX}{namespace}:{account.metadata.name}":
            raise InvalidToken("the subject is not the service account")
        extra: dict[str, tuple[str, ...]] = {f"{_EXTRA}credential-id": (f"JTI={claims.jti}",)} if claims.jti else {}
        if private.secret is not None:
            await self._alive(Secret, private.secret, namespace)
        if private.pod is not None:
            await self._alive(Pod, private.pod, namespace)
            extra |= _told("pod", private.pod)
        elif private.node is not None:
            await self._alive(Node, private.node, "")
        if private.node is not None:
            extra |= _told("node", private.node)
        return account_user(account, extra)

    async def _legacy(self, claims: _LegacyClaims, token: str) -> User:
        secret = await self._lookup.find(Secret, claims.secret, namespace=claims.namespace)
        if secret is None or secret.metadata.deletion_timestamp or secret.data.get("token") != _base64(token):
            raise InvalidToken("its secret is gone")
        account = await self._alive(ServiceAccount, _Reference(claims.account, claims.uid), claims.namespace)
        return account_user(account, {})

    async def _alive(self, model: type[msgspec.Struct], reference: _Reference, namespace: str) -> Any:
        """Return the object that a token names if it is still the same; raises InvalidToken."""
        found: Any = await self._lookup.find(model, reference.name, namespace=namespace)
        if found is None or found.metadata.uid != reference.uid:
            raise InvalidToken(f"{model.__name__} {reference.name} is gone")
        if (gone := found.metadata.deletion_timestamp) and self._now() > seconds(gone) + LEEWAY_S:
            raise InvalidToken(f"{model.__name__} {reference.name} is being deleted")
        return found


def account_user(account: ServiceAccount, extra: Mapping[str, tuple[str, ...]]) -> User:
    """Return the user that pods of ``account`` act as."""
    meta = account.metadata
    groups = account_groups(meta.namespace)
    return User(f"{ACCOUNT_PREFIX}{meta.namespace}:{meta.name}", groups, meta.uid, extra)


def account_groups(namespace: str) -> tuple[str, str]:
    """Return the groups of every service account of ``namespace``."""
    return ACCOUNTS_GROUP, f"{ACCOUNTS_GROUP}:{namespace}"


def _named(obj: Resource) -> dict[str, str]:
    return {"name": obj.metadata.name, "uid": obj.metadata.uid}


def _told(what: str, reference: _Reference) -> dict[str, tuple[str, ...]]:
    return {f"{_EXTRA}{what}-name": (reference.name,), f"{_EXTRA}{what}-uid": (reference.uid,)}


def _audiences(claims: _Claims) -> tuple[str, ...]:
    return (claims.aud,) if isinstance(claims.aud, str) else claims.aud


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
