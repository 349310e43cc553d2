"""Certificates for signing requests: what each signer gives to whom, and the signing itself. Pure but for the key.

Source: kubernetes.io, "Certificates and Certificate Signing Requests", Kubernetes signers.
"""

import base64
import binascii
import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from master.access.user import NODE_PREFIX, SYSTEM_NODES

KUBE_APISERVER_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"

LONGEST_S = 365 * 24 * 3600
# Clocks differ: a certificate is valid from a little before it is made.
BACKDATED = dt.timedelta(minutes=5)

_KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_EXTENDED_USAGES = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}
USAGES = frozenset(
    (*_KEY_USAGES, *_EXTENDED_USAGES, "s/mime", "ipsec end system", "ipsec tunnel", "ipsec user", "microsoft sgc",
     "netscape sgc")
)  # fmt: skip


class Wanted(NamedTuple):
    """What a PEM request asks for."""

    request: x509.CertificateSigningRequest
    common_name: str
    organizations: tuple[str, ...]
    names: tuple[str, ...] = ()  # DNS
    addresses: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # e-mail addresses and URIs


def read_request(encoded: str) -> Wanted:
    """Return what a request (PEM, in base64 as JSON carries it) asks for; raises ValueError."""
    try:
        pem = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None
    if b"BEGIN CERTIFICATE REQUEST" not in pem and b"BEGIN NEW CERTIFICATE REQUEST" not in pem:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    request = x509.load_pem_x509_csr(pem)
    try:
        valid = request.is_signature_valid
    except (InvalidSignature, ValueError) as error:
        raise ValueError(str(error)) from None
    if not valid:
        raise ValueError("the request is not signed by the key that it names")
    subject = request.subject
    organizations = tuple(str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    commons = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(commons) > 1:
        # The whole subject is signed, and who reads another of them than we judged would take its bearer for another.
        raise ValueError("the subject has more than one common name")
    return Wanted(request, commons[-1] if commons else "", organizations, *_alternatives(request))


def _alternatives(request: x509.CertificateSigningRequest) -> tuple[tuple[str, ...], ...]:
    try:
        found = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), ()
    names = tuple(found.get_values_for_type(x509.DNSName))
    addresses = tuple(str(each) for each in found.get_values_for_type(x509.IPAddress))
    others = (
        *found.get_values_for_type(x509.RFC822Name),
        *found.get_values_for_type(x509.UniformResourceIdentifier),
    )
    return names, addresses, others


def request_faults(encoded: str, usages: Collection[str], signer: str, lifetime_s: int | None) -> Mapping[str, str]:
    """Return field -> what is wrong with a new signing request."""
    faults = {}
    try:
        read_request(encoded)
    except ValueError as error:
        faults["spec.request"] = f"Invalid value: {error}"
    if not usages:
        faults["spec.usages"] = "Required value: usages must be specified"
    elif unknown := sorted(set(usages) - USAGES):
        faults["spec.usages"] = f'Unsupported value: "{unknown[0]}"'
    domain, slash, path = signer.partition("/")
    if not signer:
        faults["spec.signerName"] = "Required value"
    elif not slash or not path or "." not in domain:
        faults["spec.signerName"] = f'Invalid value: "{signer}": must be a domain and a path: example.com/my-signer'
    elif signer == LEGACY_UNKNOWN:
        faults["spec.signerName"] = (
            f'Invalid value: "{signer}": the legacy signerName is not allowed via this API version'
        )
    if lifetime_s is not None and lifetime_s < 600:
        faults["spec.expirationSeconds"] = (
            f"Invalid value: {lifetime_s}: may not specify a duration less than 600 seconds (10 minutes)"
        )
    return faults


# What signers insist upon: each returns why it does not sign, empty if it does.


def _node_faults(wanted: Wanted) -> str:
    if wanted.organizations != (SYSTEM_NODES,):
        return f"subject organization is not {SYSTEM_NODES}"
    if not wanted.common_name.startswith(NODE_PREFIX) or wanted.common_name == NODE_PREFIX:
        return f"subject common name does not begin with {NODE_PREFIX}"
    return ""


def kubelet_client_faults(wanted: Wanted, usages: Collection[str]) -> str:
    """Return why a request is not one for the client certificate of a node agent."""
    if why := _node_faults(wanted):
        return why
    if wanted.names or wanted.addresses or wanted.others:
        return "DNS, IP, email and URI subjectAltNames are not allowed"
    return _usage_faults(usages, required="client auth", allowed=("digital signature", "key encipherment"))


def _kubelet_serving_faults(wanted: Wanted, usages: Collection[str]) -> str:
    if why := _node_faults(wanted):
        return why
    if not wanted.names and not wanted.addresses:
        return "DNS or IP subjectAltName is required"
    if wanted.others:
        return "email and URI subjectAltNames are not allowed"
    return _usage_faults(usages, required="server auth", allowed=("digital signature", "key encipherment"))


def _client_faults(wanted: Wanted, usages: Collection[str]) -> str:
    del wanted
    return _usage_faults(usages, required="client auth", allowed=("digital signature", "key encipherment"))


def _usage_faults(usages: Collection[str], *, required: str, allowed: Sequence[str]) -> str:
    if required not in usages:
        return f'usages must include "{required}"'
    extra = sorted(set(usages) - {required, *allowed})
    return f"usages do not allow {extra[0]!r}" if extra else ""


Faults = Callable[[Wanted, Collection[str]], str]
SIGNERS: Mapping[str, Faults] = {
    KUBE_APISERVER_CLIENT: _client_faults,
    KUBELET_CLIENT: kubelet_client_faults,
    KUBELET_SERVING: _kubelet_serving_faults,
    LEGACY_UNKNOWN: lambda *_: "",
}


class Signer:
    """The cluster's authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @classmethod
    def load(cls, certificate: Path, key: Path) -> "Signer":
        """Return the authority in these PEM files; raises OSError, ValueError."""
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError(f"{key}: an RSA or elliptic curve key is needed")  # noqa: TRY004 - a file has no type
        return cls(x509.load_pem_x509_certificate(certificate.read_bytes()), private)

    def sign(self, wanted: Wanted, usages: Collection[str], *, lifetime_s: int | None, now: dt.datetime) -> bytes:
        """Return the certificate in PEM, valid for ``lifetime_s`` but no longer than the authority itself."""
        until = now + dt.timedelta(seconds=min(lifetime_s or LONGEST_S, LONGEST_S))
        builder = (
            x509.CertificateBuilder()
            .subject_name(wanted.request.subject)
            .issuer_name(self._certificate.subject)
            .public_key(wanted.request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(until, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(usages), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if extended := [oid for name, oid in _EXTENDED_USAGES.items() if name in usages]:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        if wanted.names or wanted.addresses or wanted.others:
            found = wanted.request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            builder = builder.add_extension(found.value, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _key_usage(usages: Collection[str]) -> x509.KeyUsage:
    chosen: dict[str, Any] = dict.fromkeys(_KEY_USAGES.values(), False)
    chosen |= {_KEY_USAGES[name]: True for name in usages if name in _KEY_USAGES}
    # Nobody becomes an authority by asking.
    chosen |= {"key_cert_sign": False, "crl_sign": False}
    if not chosen["key_agreement"]:
        chosen |= {"encipher_only": False, "decipher_only": False}
    return x509.KeyUsage(**chosen)
