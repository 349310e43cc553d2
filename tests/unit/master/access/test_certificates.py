"""Signing requests: what is read of them, and which no signer gets to see."""

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.errors import Forbidden, Invalid
from master.access.certificates import KUBE_APISERVER_CLIENT, KUBELET_CLIENT, kubelet_client_faults, read_request
from master.access.user import AUTHENTICATED, User
from master.admission.certificates import CertificateRequests
from node_agent.server import identity_of
from tests.unit.master.admission.objects import attributes, made

ALICE = User("alice", (AUTHENTICATED,))
NODES = "system:nodes"


def subject(*common_names, group=""):
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, each) for each in common_names]
    if group:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def request(name):
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(KEY, hashes.SHA256())
    return base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()


KEY = ec.generate_private_key(ec.SECP256R1())


def test_what_a_request_says():
    wanted = read_request(request(subject("system:node:n1", group=NODES)))
    assert (wanted.common_name, wanted.organizations) == ("system:node:n1", (NODES,))
    assert kubelet_client_faults(wanted, ("client auth",)) == ""


@pytest.mark.parametrize(
    ("name", "signer", "error", "why"),
    [
        (subject("system:master:x", "system:node:n1", group=NODES), KUBELET_CLIENT, Invalid, "more than one common"),
        (subject("alice", group="system:masters"), KUBE_APISERVER_CLIENT, Forbidden, "system:masters group"),
        (subject("system:master:x"), KUBE_APISERVER_CLIENT, Forbidden, "a master's name"),
        (subject("master1"), KUBE_APISERVER_CLIENT, Forbidden, "a master's name"),
    ],
)
async def test_nobody_becomes_a_master_by_asking(name, signer, error, why):
    spec = {"request": request(name), "signerName": signer, "usages": ["client auth"]}
    found = made("certificates.k8s.io/v1", "CertificateSigningRequest", metadata={"name": "r"}, spec=spec)
    with pytest.raises(error) as raised:
        await CertificateRequests({"master1"}).judge(attributes(found, user=ALICE))
    told = [raised.value.message, *(each.message for each in raised.value.causes)]
    assert any(why in each for each in told), told


def test_masters_and_agents_read_the_same_name():
    name = subject("system:master:x", "system:node:n1")
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    year = (dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2040, 1, 1, tzinfo=dt.UTC))
    builder = builder.serial_number(1).not_valid_before(year[0]).not_valid_after(year[1])
    pem = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert identity_of(pem)[0] == "system:node:n1"
