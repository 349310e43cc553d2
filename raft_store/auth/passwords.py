"""Passwords as they are kept: salted scrypt, so that a stolen disk does not give them away.

Both functions take some 50 ms and 16 MiB on purpose: call them in a thread, never in the replicated machine.
"""

import hashlib
import hmac
import os

_SCHEME = b"scrypt"
_COST, _BLOCK, _LANES = 1 << 14, 8, 1  # 16 MiB, as RFC 7914 suggests for log-ins
_SALT_BYTES = 16


def hash_password(password: str) -> bytes:
    """Return what to keep of ``password``."""
    salt = os.urandom(_SALT_BYTES)
    return b"$".join((_SCHEME, b"%d,%d,%d" % (_COST, _BLOCK, _LANES), salt.hex().encode(), _derive(password, salt)))


def matches(password: str, kept: bytes) -> bool:
    """Return whether ``kept`` was made of ``password``. Raises ValueError if it was made by another scheme."""
    try:
        scheme, costs, salt, expected = kept.split(b"$")
        cost, block, lanes = (int(number) for number in costs.split(b","))
    except ValueError:
        scheme = b"unreadable"
    if scheme != _SCHEME:
        raise ValueError(f"a password is kept in a form this program does not know: {scheme!r}")
    found = _derive(password, bytes.fromhex(salt.decode()), cost=cost, block=block, lanes=lanes)
    return hmac.compare_digest(found, expected)


def _derive(password: str, salt: bytes, *, cost: int = _COST, block: int = _BLOCK, lanes: int = _LANES) -> bytes:
    memory_bytes = 2 * 128 * cost * block  # OpenSSL's own limit would be just below what it needs
    derived = hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=memory_bytes, dklen=32)
    return derived.hex().encode()
