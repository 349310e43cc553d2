"""The certificate files of one listener or dialler."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger(__name__)

MAX_TOLD = 100  # refused subjects that are logged; whoever shows ever new ones fills no disk


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files for mutual TLS: whom we trust, and who we are.

    ``groups`` and ``names`` say whose certificates are served at a listener: those that name one of the organizations,
    or one of the common names. Both empty: whom the authority knows is served.
    """

    ca: Path
    cert: Path
    key: Path
    groups: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def restricted(self) -> bool:
        """Whether not everyone whom the authority knows is served."""
        return bool(self.groups or self.names)


def admission(tls: TlsFiles | None, *, listener: str) -> Callable[[Mapping[str, Any]], bool] | None:
    """Return what says of a certificate, as ``ssl`` describes it, whether its bearer is served; None: everyone is.

    listener: the field of the configuration that restricts it, for whoever reads why somebody was refused.
    """
    if tls is None or not tls.restricted:
        return None
    wanted = frozenset(
        [("organizationName", group) for group in tls.groups] + [("commonName", name) for name in tls.names]
    )
    told: set[str] = set()

    def admits(certificate: Mapping[str, Any]) -> bool:
        shown = [part for name in certificate.get("subject", ()) for part in name]
        if not wanted.isdisjoint(shown):
            return True
        subject = " ".join(f"{key}={value!r}" for key, value in shown)
        if subject not in told and len(told) < MAX_TOLD:
            told.add(subject)
            log.warning("refused a certificate that [%s] names neither by groups nor names: %s", listener, subject)
        return False

    return admits
