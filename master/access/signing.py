"""JSON web tokens: signed by the first key of a ring, verified by every key in it.

To rotate a key put a new one first and keep the old one behind it until the tokens that it signed have expired. A key
of which only the public half is at hand verifies and cannot sign. Sources: RFC 7515, 7517, 7518; the key's id is the
SHA-256 of its public half, as the real server makes it.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# Curve -> (algorithm, hash, bytes of each half of a signature).
_CURVES: Mapping[str, tuple[str, hashes.HashAlgorithm, int]] = {
    "secp256r1": ("ES256", hashes.SHA256(), 32),
    "secp384r1": ("ES384", hashes.SHA384(), 48),
    "secp521r1": ("ES512", hashes.SHA512(), 66),
}
_CURVE_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class InvalidToken(Exception):
    """A text that is no token of ours; the message says why."""


def to_base64url(data: bytes) -> str:
    """Return ``data`` as tokens carry it: URL-safe and without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Return the bytes of ``text``; raises InvalidToken."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise InvalidToken("not base64url") from None


class Key:
    """One key with its id and algorithm; ``private`` is None where only the public half is known."""

    def __init__(self, public: PublicKey, private: PrivateKey | None = None) -> None:
        self._public = public
        self._private = private
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.id = to_base64url(hashlib.sha256(der).digest())
        self.algorithm = "RS256" if isinstance(public, rsa.RSAPublicKey) else _curve(public)[0]

    @property
    def signs(self) -> bool:
        """Return whether the private half is known."""
        return self._private is not None

    def sign(self, data: bytes) -> bytes:
        """Return the signature in the form that tokens carry."""
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        assert self._private is not None, "a key without its private half signs nothing"
        _, algorithm, size = _curve(self._private.public_key())
        r, s = decode_dss_signature(self._private.sign(data, ec.ECDSA(algorithm)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether this key made ``signature`` over ``data``."""
        try:
            if isinstance(self._public, rsa.RSAPublicKey):
                self._public.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
                return True
            _, algorithm, size = _curve(self._public)
            if len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            self._public.verify(encode_dss_signature(r, s), data, ec.ECDSA(algorithm))
        except InvalidSignature:
            return False
        return True

    def jwk(self) -> dict[str, str]:
        """Return the public half as a JSON web key."""
        common = {"use": "sig", "kid": self.id, "alg": self.algorithm}
        if isinstance(self._public, rsa.RSAPublicKey):
            numbers = self._public.public_numbers()
            return {**common, "kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
        size = _curve(self._public)[2]
        point = self._public.public_numbers()
        x, y = (to_base64url(each.to_bytes(size, "big")) for each in (point.x, point.y))
        return {**common, "kty": "EC", "crv": _CURVE_NAMES[self._public.curve.name], "x": x, "y": y}


def _curve(public: ec.EllipticCurvePublicKey) -> tuple[str, hashes.HashAlgorithm, int]:
    try:
        return _CURVES[public.curve.name]
    except KeyError:
        raise ValueError(f"curve {public.curve.name} signs no tokens: use P-256, P-384, P-521 or RSA") from None


def _integer(number: int) -> str:
    return to_base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def read_key(pem: bytes) -> Key:
    """Return the key in a PEM file, private or public; raises ValueError for one that signs no tokens."""
    if b"PRIVATE KEY" in pem:
        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ValueError("an RSA or elliptic curve key is needed")
        return Key(private.public_key(), private)
    public = serialization.load_pem_public_key(pem)
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise ValueError("an RSA or elliptic curve key is needed")  # noqa: TRY004 - what the file holds is no type
    return Key(public)


class KeyRing:
    """The keys of a cluster: the first signs, all verify."""

    def __init__(self, keys: Sequence[Key]) -> None:
        if not keys or not keys[0].signs:
            raise ValueError("the first key must be a private one: it signs")
        self._keys = tuple(keys)
        self._by_id = {key.id: key for key in keys}

    @classmethod
    def load(cls, paths: Sequence[Path]) -> "KeyRing":
        """Return the keys of these PEM files; raises OSError, ValueError."""
        return cls([read_key(path.read_bytes()) for path in paths])

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Return the algorithms of the ring's keys, each once."""
        return tuple(dict.fromkeys(key.algorithm for key in self._keys))

    def jwks(self) -> dict[str, Any]:
        """Return the JSON web key set by which others verify our tokens."""
        return {"keys": [key.jwk() for key in self._keys]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a token that says ``claims``."""
        key = self._keys[0]
        parts = ({"alg": key.algorithm, "kid": key.id}, claims)
        signed = ".".join(to_base64url(msgspec.json.encode(part)) for part in parts)
        return f"{signed}.{to_base64url(key.sign(signed.encode()))}"

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that one of our keys signed; raises InvalidToken."""
        signed, _, signature = token.rpartition(".")
        header, dot, body = signed.partition(".")
        if not dot or "." in body:
            raise InvalidToken("not a token of three parts")
        head = _decoded(header)
        if (key := self._by_id.get(str(head.get("kid", "")))) is None:
            raise InvalidToken("signed by a key that is not ours")
        # The algorithm is the key's: a token that names another one tries to be checked by weaker rules.
        if head.get("alg") != key.algorithm:
            raise InvalidToken("signed with another algorithm than its key's")
        if not key.verifies(from_base64url(signature), signed.encode()):
            raise InvalidToken("the signature is wrong")
        return _decoded(body)


def _decoded(part: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(from_base64url(part))
    except (msgspec.DecodeError, RecursionError):
        raise InvalidToken("not JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("not a JSON object")
    return value


def read_claims(token: str) -> dict[str, Any]:
    """Return what a token claims, unverified: only to see whose it might be; raises InvalidToken."""
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("not a token of three parts")
    return _decoded(parts[1])
