"""The lab's public key infrastructure: one authority, a certificate for each host's job and for the administrator.

Identities are X.509 subjects: common name = user, organisation = group, as Kubernetes reads them. Elliptic curve
P-256 throughout: a handshake costs a tenth of RSA's, and health checks make several a second.
"""

import base64
import datetime as dt
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.lab import CLUSTER_DOMAIN, KUBERNETES_SERVICE, Host, Lab
from deploy.state import host_folder, lab_folder, write

VALID_DAYS = 3650
# Hosts resume after a pause or with a clock that lags: certificates are valid from a day ago.
BACKDATED = dt.timedelta(days=1)

ADMIN_USER, ADMIN_GROUP = "admin", "system:masters"
NODES_GROUP = "system:nodes"
MONITORING_GROUP = "system:monitoring"  # may read /readyz and /healthz
SECRETS_KEY = "secrets.key"  # seals secrets in the store
HEALTH = "health"  # with which the balancer asks masters for their health


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate names and where it is valid."""

    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    server: bool = False
    client: bool = True


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Signs certificates; made once per lab and loaded from its files afterwards."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, lab: str) -> "Authority":
        """Return a new authority for the lab of that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"trireme {lab}")])
        certificate = (
            _builder(name, name, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "Authority":
        """Return the authority kept in these files."""
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        assert isinstance(private, ec.EllipticCurvePrivateKey), f"{key} holds another kind of key"
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    @property
    def pair(self) -> KeyPair:
        """Return the authority's own files."""
        return KeyPair(self._certificate.public_bytes(serialization.Encoding.PEM), _private_pem(self._key))

    def issue(self, subject: Subject) -> KeyPair:
        """Return a new key with its certificate, signed by this authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject.user)]
        if subject.group:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.group))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * subject.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * subject.client
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(x509.Name(attributes), self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(issuer_key, critical=False)
        )
        alternatives = _alternatives(subject.names, subject.addresses)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return KeyPair(signed.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def subjects(lab: Lab, host: Host) -> dict[str, Subject]:
    """Return the certificates that ``host`` needs: file name without suffix -> subject."""
    names, addresses = (host.name, "localhost"), (host.address, "127.0.0.1")
    match host.role:
        case "master":
            user = f"system:master:{host.name}"
            service = "kubernetes.default.svc"
            api_names = ("entry", "kubernetes", "kubernetes.default", service, f"{service}.{CLUSTER_DOMAIN}")
            api = Subject(
                user,
                names=names + api_names,
                addresses=(*addresses, lab.api_address, KUBERNETES_SERVICE),
                server=True,
                client=False,
            )
            peer = Subject(host.name, names=names, addresses=addresses, server=True)
            files = {"server": api, "peer": peer, "client": Subject(user, ADMIN_GROUP)}
            # Without an entry host the balancer runs beside each master.
            return files | ({HEALTH: _health(host)} if lab.virtual_address else {})
        case "node":
            user = f"system:node:{host.name}"
            return {"node": Subject(user, NODES_GROUP, names=names, addresses=addresses, server=True)}
        case "entry":
            return {HEALTH: _health(host)}


def _health(host: Host) -> Subject:
    return Subject(f"system:entry:{host.name}", MONITORING_GROUP)


def ensure(lab: Lab) -> None:
    """Write every key and certificate of ``lab`` that is not there yet; those that are stay as they are."""
    pki = lab_folder(lab.name) / "pki"
    authority = _ensure_authority(lab.name, pki)
    _ensure_pair(authority, Subject(ADMIN_USER, ADMIN_GROUP), pki / "admin")
    _ensure_signing_key(pki)
    if not (pki / SECRETS_KEY).exists():
        write(pki / SECRETS_KEY, base64.b64encode(secrets.token_bytes(32)) + b"\n", mode=0o600)
    for host in lab.hosts:
        folder = host_folder(lab.name, host.name) / "pki"
        write(folder / "ca.crt", authority.pair.certificate)
        for stem, subject in subjects(lab, host).items():
            _ensure_pair(authority, subject, folder / stem)
            if stem == HEALTH:
                joined = b"".join((folder / f"{stem}{suffix}").read_bytes() for suffix in (".crt", ".key"))
                write(folder / f"{stem}.pem", joined, mode=0o600)
        if host.role == "master":
            # The authority's key signs the certificates that new nodes and users ask for.
            for name in ("sa.key", "sa.pub", "ca.key", SECRETS_KEY):
                write(folder / name, (pki / name).read_bytes(), mode=0o600)


def _ensure_authority(lab: str, pki: Path) -> Authority:
    certificate, key = pki / "ca.crt", pki / "ca.key"
    if certificate.exists() and key.exists():
        return Authority.load(certificate, key)
    authority = Authority.create(lab)
    write(key, authority.pair.key, mode=0o600)
    write(certificate, authority.pair.certificate)
    return authority


def _ensure_pair(authority: Authority, subject: Subject, stem: Path) -> None:
    certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
    if certificate.exists() and key.exists():
        return
    pair = authority.issue(subject)
    write(key, pair.key, mode=0o600)
    write(certificate, pair.certificate)


def _ensure_signing_key(pki: Path) -> None:
    """Service-account tokens are signed with this key by every master, and checked with its public half."""
    if (pki / "sa.pub").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write(pki / "sa.key", _private_pem(key), mode=0o600)
    write(pki / "sa.pub", public)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: Sequence[str], addresses: Sequence[str]) -> list[x509.GeneralName]:
    # A repeated address makes some TLS libraries refuse the certificate.
    unique = dict.fromkeys(addresses)
    return [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(address)) for address in unique)]


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
