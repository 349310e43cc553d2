"""Bootstrap tokens: secrets in kube-system by which new nodes introduce themselves.

Source: kubernetes.io, "Authenticating with Bootstrap Tokens".
"""

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping

from api.kinds.core import Secret
from master.access.user import User
from master.lifecycle import seconds
from master.lookup import Lookup

NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"
SECRET_PREFIX = "bootstrap-token-"
GROUP = "system:bootstrappers"
AUTHENTICATES = "usage-bootstrap-authentication"
SIGNS = "usage-bootstrap-signing"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


def fields_of(secret: Secret) -> Mapping[str, str]:
    """Return the decoded texts of a secret; one that is no text is left out."""
    found = {}
    for name, encoded in secret.data.items():
        try:
            found[name] = base64.b64decode(encoded).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
    return found


def is_expired(fields: Mapping[str, str], now: float) -> bool:
    """Return whether a token's time is over; one whose expiration cannot be read counts as over."""
    until = fields.get("expiration", "")
    if not until:
        return False
    try:
        return now >= seconds(until)
    except ValueError:
        return True


def is_token(secret: Secret, fields: Mapping[str, str]) -> bool:
    """Return whether a secret holds a whole bootstrap token under its own name."""
    token = f"{fields.get('token-id', '')}.{fields.get('token-secret', '')}"
    return (
        secret.type == SECRET_TYPE
        and bool(_TOKEN.fullmatch(token))
        and secret.metadata.name == f"{SECRET_PREFIX}{fields['token-id']}"
    )


def groups_of(fields: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the groups of a token's bearer; None if one is named that tokens may not give."""
    extra = tuple(each.strip() for each in fields.get("auth-extra-groups", "").split(",") if each.strip())
    return (GROUP, *extra) if all(_GROUP.fullmatch(each) for each in extra) else None


class BootstrapTokens:
    """Implements ``authentication.TokenVerifier``."""

    def __init__(self, lookup: Lookup, *, now: Callable[[], float] = time.time) -> None:
        self._lookup = lookup
        self._now = now

    async def verify(self, token: str) -> User | None:
        """Return the bearer of a token that is in force."""
        if (parts := _TOKEN.fullmatch(token)) is None:
            return None
        secret = await self._lookup.find(Secret, SECRET_PREFIX + parts[1], namespace=NAMESPACE)
        if secret is None or secret.metadata.deletion_timestamp:
            return None
        fields = fields_of(secret)
        if not is_token(secret, fields) or not hmac.compare_digest(fields["token-secret"], parts[2]):
            return None
        if is_expired(fields, self._now()) or fields.get(AUTHENTICATES) != "true":
            return None
        groups = groups_of(fields)
        return User(f"system:bootstrap:{parts[1]}", groups) if groups is not None else None
