"""Who asks and whether they may, wired to what one master knows and to the keys it is given."""

import ssl
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from api.kinds.table import Table
from master.access.audit import DEFAULT_POLICY, AuditFile, AuditLog, load_policy
from master.access.authentication import Authenticator, TokenVerifier
from master.access.authorization import Authorizer
from master.access.bootstrap_tokens import BootstrapTokens
from master.access.encryption import Cipher
from master.access.gate import Gate
from master.access.oidc import documents
from master.access.policies import CachedPolicies
from master.access.signing import KeyRing
from master.access.tokens import ServiceAccountTokens
from master.cache import WatchCache
from master.lookup import Lookup, Reads

if TYPE_CHECKING:
    from master.access.certificates import Signer

DEFAULT_ISSUER = "https://kubernetes.default.svc.cluster.local"


class AccessConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[access]`` of a master's configuration; every path is that of a PEM file unless it says otherwise."""

    # The first signs service-account tokens, all verify them. Empty: there are no service-account tokens.
    signing_keys: tuple[str, ...] = ()
    issuer: str = DEFAULT_ISSUER
    audiences: tuple[str, ...] = ()  # of this API; empty: the issuer
    # The authority that signs certificates for signing requests. Empty: approved requests stay unsigned.
    authority_cert: str = ""
    authority_key: str = ""
    # Files of 16, 24 or 32 bytes in base64: the first seals secrets in the store, all open them. Empty: plain.
    encryption_keys: tuple[str, ...] = ()
    audit_log: str = ""  # a file of JSON lines, rotated by size; empty: no audit log
    audit_policy: str = ""  # an audit.k8s.io/v1 Policy in YAML; empty: who did what, without contents


def load_cipher(config: AccessConfig) -> Cipher | None:
    """Return what seals secrets in the store; raises OSError, ValueError."""
    return Cipher.load([Path(each) for each in config.encryption_keys]) if config.encryption_keys else None


def open_audit(config: AccessConfig) -> AuditLog | None:
    """Return the audit log; raises OSError, ValueError for a policy that cannot be read."""
    if not config.audit_log:
        return None
    policy = load_policy(Path(config.audit_policy)) if config.audit_policy else DEFAULT_POLICY
    return AuditLog(AuditFile(Path(config.audit_log)), policy)


class Access:
    """Authentication and authorization of one master; raises OSError, ValueError for keys that cannot be used."""

    def __init__(self, config: AccessConfig, table: Table, cache: WatchCache, reads: Reads) -> None:
        self.lookup = Lookup(table, reads)
        self.authorizer = Authorizer(CachedPolicies(table, cache))
        self.audit = open_audit(config)
        self.tokens: ServiceAccountTokens | None = None
        audiences = config.audiences or (config.issuer,)
        verifiers: list[TokenVerifier] = [BootstrapTokens(self.lookup)]
        if config.signing_keys:
            keys = KeyRing.load([Path(each) for each in config.signing_keys])
            self.tokens = ServiceAccountTokens(keys, self.lookup, issuer=config.issuer, audiences=audiences)
            verifiers.insert(0, self.tokens)
        self._authority: tuple[str, str] | None = None
        if config.authority_cert and config.authority_key:
            self._authority = config.authority_cert, config.authority_key
            # What is wrong with them is said now, and not by the master that comes to lead.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._authority)
        self.gate = Gate(Authenticator(verifiers, audiences=audiences), self.authorizer, audit=self.audit)

    @cached_property
    def signer(self) -> "Signer | None":
        """Return what signs certificates, which only the leader does; None: there is no authority."""
        from master.access.certificates import Signer  # noqa: PLC0415 - others start without reading X.509

        return None if self._authority is None else Signer.load(*map(Path, self._authority))

    def documents(self, address: str) -> dict[str, tuple[str, Any]]:
        """Return path -> (content type, document) of what others need to verify our tokens; address: "ip:port"."""
        return {} if self.tokens is None else documents(self.tokens.issuer, self.tokens.keys, address)
