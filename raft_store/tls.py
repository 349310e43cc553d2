"""The certificate files of one listener or dialler."""

from pathlib import Path

import msgspec


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files for mutual TLS: whom we trust, and who we are."""

    ca: Path
    cert: Path
    key: Path
