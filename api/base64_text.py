"""Bytes as JSON carries them: base64, read as the real server reads it, and always written in one way.

A text may have line breaks, as YAML leaves them in it, and odd bits behind its last byte; what is stored and shown has
neither, so that equal bytes are equal texts. Source: RFC 4648, 4; the faults are those of Go's decoder.
"""

import base64
import binascii
import re

_LINE_BREAKS = str.maketrans("", "", "\r\n")
_LETTERS = re.compile(r"[A-Za-z0-9+/]*")


class IllegalBase64(ValueError):
    """A text that stands for no bytes."""

    def __init__(self, at: int) -> None:
        super().__init__(f"illegal base64 data at input byte {at}")


def decode(text: str) -> bytes:
    """Return the bytes that ``text`` stands for; raises IllegalBase64."""
    plain = text.translate(_LINE_BREAKS)
    try:
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        raise IllegalBase64(_fault(text, plain)) from None


def canonical(text: str) -> str:
    """Return the one text for the bytes that ``text`` stands for; raises IllegalBase64."""
    return base64.b64encode(decode(text)).decode()


def _fault(text: str, plain: str) -> int:
    """Return where in ``text``, in bytes, it ceases to be base64; ``plain`` is the text without line breaks."""
    match = _LETTERS.match(plain)
    good = match.end() if match is not None else 0
    rest, over = plain[good:], good % 4
    if not rest:  # padding is missing: what is not whole begins here
        return _place(text, good - over)
    if rest[0] != "=" or over < 2:
        return _place(text, good)
    padding = 4 - over
    if rest[:padding] == "=" * padding:  # something comes behind the end
        return _place(text, good + padding)
    # Go tells of the byte before the one that should have been the second sign of padding.
    return len(text.encode()) if rest == "=" else _place(text, good + 1) - 1


def _place(text: str, count: int) -> int:
    """Return the offset in bytes of the character with ``count`` others, that are no line breaks, before it."""
    for at, letter in enumerate(text):
        if letter in "\r\n":
            continue
        if not count:
            return len(text[:at].encode())
        count -= 1
    return len(text.encode())
