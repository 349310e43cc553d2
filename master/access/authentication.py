"""Who sent a request: what a verified client certificate or a bearer token says.

A client certificate names the user in its CN and the groups in its O fields. A request with neither certificate nor
token is anonymous; one with a token that nobody knows is refused, never taken for anonymous.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from api.errors import Unauthorized
from master.access.user import ANONYMOUS, AUTHENTICATED, User


class TokenVerifier(Protocol):
    """Knows the bearers of some tokens."""

    async def verify(self, token: str) -> User | None:
        """Return who bears ``token``, or None if it is not one of ours."""


class Authenticator:
    """Asks the certificate first, then each verifier of tokens in turn."""

    def __init__(self, verifiers: Sequence[TokenVerifier] = ()) -> None:
        self._verifiers = tuple(verifiers)

    async def authenticate(self, *, certificate: Mapping[str, Any] | None, authorization: str) -> User:
        """Return the user behind a request.

        certificate: as ``ssl.SSLSocket.getpeercert`` returns it, verified; None or empty without one.
        authorization: the header of that name; empty without one.
        Raises Unauthorized for credentials that prove nothing.
        """
        if certificate and (user := user_of_certificate(certificate)) is not None:
            return user
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            for verifier in self._verifiers:
                if (known := await verifier.verify(token.strip())) is not None:
                    return with_authenticated(known)
        raise Unauthorized("Unauthorized")


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


def with_authenticated(user: User) -> User:
    """Return ``user`` with the group that everyone vouched for belongs to."""
    if AUTHENTICATED in user.groups:
        return user
    return User(user.name, (*user.groups, AUTHENTICATED), user.uid, user.extra)
