"""Who sent a request: what a verified client certificate or a bearer token says.

A client certificate names the user in its CN and the groups in its O fields. A request with neither certificate nor
token is anonymous; one with a token that nobody knows is refused, never taken for anonymous.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from api.errors import Unauthorized
from master.access.user import ANONYMOUS, AUTHENTICATED, User

CREDENTIAL = "authentication.kubernetes.io/credential-id"


class Reviewed(NamedTuple):
    """Who bears a token, and for which of the audiences asked for it is good."""

    user: User
    audiences: tuple[str, ...]


class TokenVerifier(Protocol):
    """Knows the bearers of some tokens."""

    async def verify(self, token: str) -> User | None:
        """Return who bears ``token``, or None if it is not one of ours."""


@runtime_checkable
class AudienceVerifier(Protocol):
    """Knows also for whom a token is meant."""

    async def review(self, token: str, audiences: Sequence[str]) -> Reviewed | None:
        """Return who bears ``token`` if it is good for one of ``audiences``."""


class Authenticator:
    """Asks the certificate first, then each verifier of tokens in turn.

    audiences: those of this API, for which a token that names none is good.
    """

    def __init__(self, verifiers: Sequence[TokenVerifier] = (), *, audiences: Sequence[str] = ()) -> None:
        self._verifiers = tuple(verifiers)
        self._audiences = tuple(audiences)

    async def authenticate(
        self, *, certificate: Mapping[str, Any] | None, authorization: str, encoded: bytes | None = None
    ) -> User:
        """Return the user behind a request.

        certificate: as ``ssl.SSLSocket.getpeercert`` returns it, verified; None or empty without one.
        authorization: the header of that name; empty without one.
        encoded: the certificate in DER, by whose hash the user is told apart from others of the same name.
        Raises Unauthorized for credentials that prove nothing.
        """
        if certificate and (user := user_of_certificate(certificate)) is not None:
            return user if encoded is None else _with_fingerprint(user, encoded)
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            for verifier in self._verifiers:
                if (known := await verifier.verify(token.strip())) is not None:
                    return with_authenticated(known)
        raise Unauthorized("Unauthorized")

    async def review(self, token: str, audiences: Sequence[str]) -> Reviewed | None:
        """Return who bears ``token`` if it is good for one of ``audiences`` (empty: for this API)."""
        wanted = tuple(audiences) or self._audiences
        own = tuple(each for each in wanted if each in self._audiences)
        for verifier in self._verifiers:
            if isinstance(verifier, AudienceVerifier):
                reviewed = await verifier.review(token, wanted)
            elif wanted and not own:
                continue
            else:
                user = await verifier.verify(token)
                reviewed = None if user is None else Reviewed(user, own)
            if reviewed is not None:
                return Reviewed(with_authenticated(reviewed.user), reviewed.audiences)
        return None


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """Return the user that a verified certificate names, or None if it has no CN."""
    names, groups = [], []
    for relative_name in certificate.get("subject", ()):
        for key, value in relative_name:
            if key == "commonName":
                names.append(value)
            elif key == "organizationName":
                groups.append(value)
    return with_authenticated(User(names[-1], tuple(groups))) if names else None


def _with_fingerprint(user: User, encoded: bytes) -> User:
    return User(user.name, user.groups, user.uid, {CREDENTIAL: (f"X509SHA256={hashlib.sha256(encoded).hexdigest()}",)})


def with_authenticated(user: User) -> User:
    """Return ``user`` with the group that everyone vouched for belongs to."""
    if AUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)
