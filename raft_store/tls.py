"""The certificate files of one listener or dialler."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files for mutual TLS: whom we trust, and who we are."""

    ca: Path
    cert: Path
    key: Path
    # Organizations of which a client's certificate must name one. Empty: whom the authority knows is served.
    groups: tuple[str, ...] = ()


def admission(tls: TlsFiles | None) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return what says of a certificate, as ``ssl`` describes it, whether its bearer is served; None: everyone is."""
    if tls is None or not tls.groups:
        return None
    groups = frozenset(tls.groups)

    def admits(certificate: Mapping[str, Any]) -> bool:
        parts = (part for name in certificate.get("subject", ()) for part in name)
        return any(key == "organizationName" and value in groups for key, value in parts)

    return admits
