"""Certificates: whom they name, where they are valid, and that TLS stacks accept them."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy import pki, state
from deploy.lab import Lab


@pytest.fixture
def files(lab: Lab) -> Path:
    pki.ensure(lab)
    return state.lab_folder(lab.name)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def identity(path: Path) -> tuple[str, list[str]]:
    subject = certificate(path).subject
    name = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return str(name), [str(group.value) for group in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def alternatives(path: Path) -> set[str]:
    extension = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = extension.get_values_for_type(x509.IPAddress)
    return {*extension.get_values_for_type(x509.DNSName), *map(str, addresses)}


def usages(path: Path) -> set[x509.ObjectIdentifier]:
    return set(certificate(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


@pytest.mark.parametrize(
    ("file", "user", "groups"),
    [
        ("pki/admin.crt", "admin", ["system:masters"]),
        ("hosts/master2/pki/client.crt", "system:master:master2", ["system:masters"]),
        ("hosts/node1/pki/node.crt", "system:node:node1", ["system:nodes"]),
        ("hosts/entry/pki/health.crt", "system:entry:entry", ["system:monitoring"]),
    ],
)
def test_each_file_bears_its_identity(files: Path, file: str, user: str, groups: list[str]) -> None:
    assert identity(files / file) == (user, groups)


def test_a_master_answers_to_every_name_that_clients_use(files: Path, lab: Lab) -> None:
    assert alternatives(files / "hosts/master1/pki/server.crt") == {
        "master1",
        "localhost",
        "entry",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        lab.host("master1").address,
        lab.api_address,
        "127.0.0.1",
        "10.96.0.1",
    }


def test_servers_that_also_dial_may_do_both(files: Path) -> None:
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert usages(files / "hosts/node1/pki/node.crt") == both
    assert usages(files / "hosts/master1/pki/peer.crt") == both
    assert usages(files / "pki/admin.crt") == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert usages(files / "hosts/master1/pki/server.crt") == {ExtendedKeyUsageOID.SERVER_AUTH}


def test_only_their_owner_reads_private_keys(files: Path) -> None:
    secret = [path for path in files.rglob("*") if path.suffix in (".key", ".pem")]
    assert len(secret) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}


def test_masters_share_one_key_for_tokens_and_nodes_have_none(files: Path) -> None:
    keys = {(files / f"hosts/master{i}/pki/sa.key").read_bytes() for i in (1, 2, 3)}
    assert len(keys) == 1
    assert not list((files / "hosts/node1").rglob("sa.*"))
    # Masters sign the certificates that others ask for; a node that is lost must not be able to.
    assert {path.parts[-3] for path in (files / "hosts").rglob("ca.key")} == {"master1", "master2", "master3"}


def test_repeating_changes_nothing(files: Path, lab: Lab) -> None:
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    pki.ensure(lab)
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_a_balancer_beside_the_masters_gets_its_certificate_there(lab: Lab) -> None:
    hosts = tuple(host for host in lab.hosts if host.role != "entry")
    pki.ensure(msgspec.structs.replace(lab, hosts=hosts, virtual_address="10.89.7.10"))
    assert identity(state.host_folder("lab", "master1") / "pki/health.crt") == (
        "system:entry:master1",
        ["system:monitoring"],
    )


def test_a_handshake_with_both_certificates_succeeds_and_with_a_strangers_fails(files: Path, lab: Lab) -> None:
    master = files / "hosts/master1/pki"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(master / "ca.crt"))
    server.load_cert_chain(master / "server.crt", master / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    admin = files / "pki"
    assert handshake(server, ca=admin / "ca.crt", stem=admin / "admin", name=lab.api_address) == "admin"

    pki.ensure(msgspec.structs.replace(lab, name="stranger"))
    stranger = state.lab_folder("stranger") / "pki"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(server, ca=admin / "ca.crt", stem=stranger / "admin", name=lab.api_address)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ca=stranger / "ca.crt", stem=admin / "admin", name=lab.api_address)


def handshake(server: ssl.SSLContext, *, ca: Path, stem: Path, name: str) -> str:
    """Return the common name that the server sees; raises what the client meets."""
    client = ssl.create_default_context(cafile=str(ca))
    client.load_cert_chain(stem.with_suffix(".crt"), stem.with_suffix(".key"))
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as secured:
                subject = secured.getpeercert()["subject"]
                seen.append(dict(pair[0] for pair in subject)["commonName"])
                secured.sendall(b"!")
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secured:
            # TLS 1.3 tells of a refused client certificate at the first read.
            secured.recv(1)
    finally:
        ours.close()
        thread.join(timeout=5)
    return seen[0] if seen else ""
