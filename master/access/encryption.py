"""Encryption at rest: what lies in the store under some prefixes can be read with a key only.

A value begins with ``k8s:enc:aesgcm:v1:<key>:``, then come nonce and ciphertext; it is bound to its own place, so that
one secret's value put under another's name does not open. Values without the beginning are plain: they were written
before there was a key, and are read as they are. The first key writes, all read. To rotate give every master the new
key behind the old one, then put it first everywhere: the leading master writes everything anew with it, and the old
key may go. Source: kubernetes.io, "Encrypting Confidential Data at Rest".
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MARK = b"k8s:enc:aesgcm:v1:"
_NONCE_BYTES = 12
_KEY_BYTES = (16, 24, 32)


class Unreadable(ValueError):
    """A value that none of our keys opens."""


class Cipher:
    """Seals and opens values of places that begin with one of ``prefixes`` (without the registry's own)."""

    def __init__(self, keys: Sequence[bytes], prefixes: Sequence[str] = ("secrets/",)) -> None:
        if not keys:
            raise ValueError("at least one key is needed")
        # A key's name tells nothing of it: the beginning of a hash.
        self._keys = {hashlib.sha256(key).hexdigest()[:8].encode(): AESGCM(key) for key in keys}
        self._writes = next(iter(self._keys))
        self.prefixes = tuple(prefixes)

    @classmethod
    def load(cls, paths: Sequence[Path]) -> "Cipher":
        """Return the cipher of the keys in these files, each in base64; raises OSError, ValueError."""
        return cls([_read(path) for path in paths])

    def covers(self, place: str) -> bool:
        """Return whether values of a place (its key without the registry's prefix) are sealed."""
        return place.startswith(self.prefixes)

    def seal(self, place: str, data: bytes) -> bytes:
        """Return ``data`` as the store may have it."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._writes].encrypt(nonce, data, place.encode())
        return b"%b%b:%b%b" % (MARK, self._writes, nonce, sealed)

    def open(self, place: str, data: bytes) -> bytes:
        """Return what was sealed; plain values as they are. Raises Unreadable."""
        if not data.startswith(MARK):
            return data
        name, _, rest = data[len(MARK) :].partition(b":")
        key = self._keys.get(name)
        if key is None:
            raise Unreadable(f"sealed with a key that this master does not have: {name.decode(errors='replace')}")
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], place.encode())
        except (InvalidTag, ValueError):
            raise Unreadable("altered, or sealed for another place") from None

    def is_current(self, data: bytes) -> bool:
        """Return whether ``data``, as the store has it, was sealed with the key that writes."""
        return data.startswith(MARK + self._writes + b":")


def _read(path: Path) -> bytes:
    try:
        key = base64.b64decode(path.read_text().strip(), validate=True)
    except binascii.Error as error:
        raise ValueError(f"{path}: not base64: {error}") from None
    if len(key) not in _KEY_BYTES:
        raise ValueError(f"{path}: a key has 16, 24 or 32 bytes, this one {len(key)}")
    return key
