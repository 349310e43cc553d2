"""Compressed bodies, inflated piece by piece: a small one may stand for gigabytes, and its reader may have enough."""

import zlib

from .heads import Malformed

PIECE_BYTES = 256 * 1024
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Inflater:
    """Inflates one body."""

    def __init__(self, window_bits: int) -> None:
        self._inflate = zlib.decompressobj(window_bits)
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        """Take in a piece of the body, when nothing is left of the one before."""
        self._waiting = data

    def take(self) -> bytes:
        """Return what comes next, at most PIECE_BYTES; empty until more is fed; raises Malformed."""
        if self._inflate.eof:
            return b""  # what stands behind the end means nothing
        try:
            piece = self._inflate.decompress(self._waiting, PIECE_BYTES)
        except zlib.error as error:
            raise Malformed(400, f"the body is not compressed as it says: {error}") from None
        self._waiting = self._inflate.unconsumed_tail
        return piece

    def finish(self) -> None:
        """Raise Malformed if the body ended too early."""
        if not self._inflate.eof:
            raise Malformed(400, "the compressed body is cut off")


def pick_inflater(coding: str) -> Inflater | None:
    """Return what reads a body with this Content-Encoding; None: it is read as it is."""
    bits = _WINDOW_BITS.get(coding.strip().lower())
    return None if bits is None else Inflater(bits)
