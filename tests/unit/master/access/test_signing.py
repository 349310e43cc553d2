"""Tokens: what one key signs the ring verifies, and nothing else passes."""

import base64
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from master.access.signing import InvalidToken, KeyRing, read_key, to_base64url

KEYS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
}
PEM, PUBLIC = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo


def private(key):
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def public(key):
    return key.public_key().public_bytes(PEM, PUBLIC)


@pytest.mark.parametrize("algorithm", KEYS)
def test_what_is_signed_is_read(algorithm):
    key = KEYS[algorithm]()
    ring = KeyRing([read_key(private(key))])
    token = ring.sign({"sub": "me", "n": 1})
    head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    assert head == {"alg": algorithm, "kid": ring.jwks()["keys"][0]["kid"]}
    assert ring.verify(token) == {"sub": "me", "n": 1}
    assert ring.algorithms == (algorithm,)


def test_a_key_set_verifies_elsewhere():
    """The published key is the key: rebuilt from its JSON form it checks the signature."""
    ring = KeyRing([read_key(private(KEYS["ES256"]()))])
    (jwk,) = ring.jwks()["keys"]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(jwk[part] + "="), "big") for part in ("x", "y"))
    rebuilt = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    other = read_key(rebuilt.public_bytes(PEM, PUBLIC))
    signed, _, signature = ring.sign({"a": 1}).rpartition(".")
    assert other.id == jwk["kid"]
    assert other.verifies(base64.urlsafe_b64decode(signature + "=="), signed.encode())


def test_rotation():
    """The new key signs, tokens of the old one still count, and no longer when it has gone."""
    old, new = (read_key(private(KEYS["ES256"]())) for _ in range(2))
    token = KeyRing([old]).sign({"a": 1})
    both = KeyRing([new, old])
    assert both.verify(token) == {"a": 1}
    assert KeyRing([new]).verify(both.sign({"b": 2})) == {"b": 2}
    with pytest.raises(InvalidToken):
        KeyRing([new]).verify(token)


def test_a_public_half_verifies_and_does_not_sign():
    key = KEYS["RS256"]()
    half = read_key(public(key))
    assert not half.signs
    with pytest.raises(ValueError, match="first key must be a private one"):
        KeyRing([half])
    signer = read_key(private(KEYS["ES256"]()))
    assert KeyRing([signer, half]).verify(KeyRing([read_key(private(key))]).sign({"a": 1})) == {"a": 1}


def forged(token, header=None, claims=None):
    head, body, signature = token.split(".")
    if header is not None:
        head = to_base64url(json.dumps(header).encode())
    if claims is not None:
        body = to_base64url(json.dumps(claims).encode())
    return f"{head}.{body}.{signature}"


def test_forgeries():
    key = KEYS["RS256"]()
    ring = KeyRing([read_key(private(key))])
    token = ring.sign({"sub": "me"})
    kid = ring.jwks()["keys"][0]["kid"]
    # Signed with the public key as if it were a shared secret: the oldest trick against tokens.
    head = to_base64url(json.dumps({"alg": "HS256", "kid": kid}).encode())
    body = to_base64url(json.dumps({"sub": "root"}).encode())
    mac = hmac.new(public(key), f"{head}.{body}".encode(), hashlib.sha256).digest()
    for bad in (
        forged(token, claims={"sub": "root"}),
        forged(token, header={"alg": "none", "kid": kid}),
        forged(token, header={"alg": "RS256"}),
        f"{head}.{body}.{to_base64url(mac)}",
        token[:-2],
        token + "A",
        f"{token}.x",
        "",
        "..",
        "a.b.c",
        token.replace(".", "!", 1),
        f"{to_base64url(b'[' * 6000)}.{body}.x",
    ):
        with pytest.raises(InvalidToken):
            ring.verify(bad)


def test_keys_that_sign_no_tokens():
    for key in (ec.generate_private_key(ec.SECP256K1()), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(ValueError, match=r"RSA|curve"):
            read_key(private(key))
