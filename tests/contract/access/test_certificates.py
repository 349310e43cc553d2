"""Signing requests: by kubectl, by bootstrapping nodes; what is approved by itself and what nobody gets."""

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.contract.access.cluster import Cluster, Refused, private_pem
from tests.contract.access.test_identity import bootstrap_secret

CLIENT, KUBELET, SERVING = (
    f"kubernetes.io/{each}" for each in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving")
)


def request(folder: Path, name: str, common_name: str, *groups: str, names: tuple[str, ...] = ()) -> str:
    """Write a key and return a request for it as JSON carries it."""
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / f"{name}.key").write_bytes(private_pem(key))
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


def signing_request(name: str, encoded: str, signer: str, *usages: str, **spec) -> dict:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": encoded, "signerName": signer, "usages": ["digital signature", *usages], **spec},
    }


def certificate(cluster: Cluster, name: str) -> Path:
    """Wait for the certificate and return its path without suffix, beside its key."""
    encoded = cluster.until("it is signed", lambda: cluster.get("csr", name).get("status", {}).get("certificate"))
    (cluster.folder / f"{name}.crt").write_bytes(base64.b64decode(encoded))
    return cluster.folder / name


def condition(cluster: Cluster, name: str, kind: str) -> dict | None:
    conditions = cluster.get("csr", name).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), None)


def test_a_user_is_let_in_by_an_administrator(cluster):
    encoded = request(cluster.folder, "alice", "alice", "devs")
    cluster.apply(signing_request("alice", encoded, CLIENT, "client auth", expirationSeconds=3600))
    assert cluster.get("csr", "alice")["spec"]["username"] == "admin"
    assert "Pending" in cluster.kubectl("get", "csr", "alice")
    cluster.kubectl("certificate", "approve", "alice")
    stem = certificate(cluster, "alice")
    found = x509.load_pem_x509_certificate(stem.with_suffix(".crt").read_bytes())
    assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert (found.not_valid_after_utc - found.not_valid_before_utc).total_seconds() == 3600 + 300
    who = cluster.kubectl("auth", "whoami", certificate=stem)
    assert "alice" in who
    assert "[devs system:authenticated]" in who
    assert "Approved,Issued" in cluster.kubectl("get", "csr", "alice")


def test_denied(cluster):
    encoded = request(cluster.folder, "mallory", "mallory")
    cluster.apply(signing_request("mallory", encoded, CLIENT, "client auth"))
    cluster.kubectl("certificate", "deny", "mallory")
    assert condition(cluster, "mallory", "Denied")["reason"] == "KubectlDeny"
    with pytest.raises(Refused):
        cluster.kubectl("certificate", "approve", "mallory")
    assert "certificate" not in cluster.get("csr", "mallory")["status"]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (signing_request("x", "bm90IGEgcmVxdWVzdA==", CLIENT, "client auth"), "spec.request: Invalid value"),
        (signing_request("x", "", CLIENT, "client auth"), "spec.request"),
        (signing_request("x", "{ok}", "nodomain", "client auth"), "spec.signerName: Invalid value"),
        (
            signing_request("x", "{ok}", "kubernetes.io/legacy-unknown", "client auth"),
            "legacy signerName is not allowed",
        ),
        (signing_request("x", "{ok}", CLIENT, "world domination"), "spec.usages"),
        (signing_request("x", "{ok}", CLIENT, "client auth", expirationSeconds=599), "less than 600 seconds"),
        (signing_request("x", "{masters}", CLIENT, "client auth"), "system:masters group is not allowed"),
    ],
)
def test_requests_that_are_refused(cluster, document, why):
    texts = {"{ok}": ("x",), "{masters}": ("x", "system:masters")}
    wanted = document["spec"]["request"]
    if wanted in texts:
        document["spec"]["request"] = request(cluster.folder, "x", *texts[wanted])
    with pytest.raises(Refused, match=why):
        cluster.apply(document)


def test_a_node_joins_with_a_bootstrap_token(cluster):
    """Goal: a node that knows a token and nothing else gets its own certificate, and only its own."""
    cluster.apply(bootstrap_secret("joinme", "0123456789abcdef", **{"usage-bootstrap-signing": "true"}))
    token = "joinme.0123456789abcdef"
    info = cluster.until(
        "cluster-info is signed",
        lambda: (
            "jws-kubeconfig-joinme" in cluster.get("cm", "cluster-info", "-n", "kube-public")["data"]
            and cluster.get("cm", "cluster-info", "-n", "kube-public", token=token)["data"]
        ),
    )
    assert cluster.urls[0] in info["kubeconfig"]
    head, middle, _ = info["jws-kubeconfig-joinme"].split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["kid"] == "joinme"
    assert middle == ""
    encoded = request(cluster.folder, "node7", "system:node:node7", "system:nodes")
    cluster.apply(signing_request("node7", encoded, KUBELET, "key encipherment", "client auth"), token=token)
    stem = certificate(cluster, "node7")
    assert condition(cluster, "node7", "Approved")["reason"] == "AutoApproved"
    assert "system:node:node7" in cluster.kubectl("auth", "whoami", certificate=stem)
    # It renews its own certificate, and gets nobody else's.
    encoded = request(cluster.folder, "node7-again", "system:node:node7", "system:nodes")
    cluster.apply(signing_request("node7-again", encoded, KUBELET, "client auth"), certificate=stem)
    certificate(cluster, "node7-again")
    encoded = request(cluster.folder, "node8", "system:node:node8", "system:nodes")
    cluster.apply(signing_request("node8", encoded, KUBELET, "client auth"), certificate=stem)
    with pytest.raises(Refused):
        cluster.kubectl("get", "secrets", "-n", "kube-system", token=token)
    assert condition(cluster, "node8", "Approved") is None


def test_a_serving_certificate_needs_approval_and_names(cluster):
    encoded = request(cluster.folder, "serving", "system:node:node7", "system:nodes", names=("node7",))
    cluster.apply(signing_request("serving", encoded, SERVING, "server auth"))
    cluster.kubectl("certificate", "approve", "serving")
    found = x509.load_pem_x509_certificate(certificate(cluster, "serving").with_suffix(".crt").read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node7"]
    encoded = request(cluster.folder, "nameless", "system:node:node7", "system:nodes")
    cluster.apply(signing_request("nameless", encoded, SERVING, "server auth"))
    cluster.kubectl("certificate", "approve", "nameless")
    failed = cluster.until("it fails", lambda: condition(cluster, "nameless", "Failed"))
    assert failed["reason"] == "SignerValidationFailure"


def test_who_may_not_approve(cluster, namespace):
    token = cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    cluster.kubectl(
        "create",
        "clusterrole",
        namespace,
        "--verb=get,update",
        "--resource=certificatesigningrequests,certificatesigningrequests/approval",
    )
    cluster.kubectl(
        "create", "clusterrolebinding", namespace, f"--clusterrole={namespace}", f"--serviceaccount={namespace}:default"
    )
    cluster.apply(signing_request(namespace, request(cluster.folder, "bob", "bob"), CLIENT, "client auth"))
    with pytest.raises(
        Refused, match=r'user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"'
    ):
        cluster.kubectl("certificate", "approve", namespace, token=token)
    approver = "system:certificates.k8s.io:kube-apiserver-client-approver"
    cluster.kubectl(
        "create",
        "clusterrolebinding",
        f"{namespace}-a",
        f"--clusterrole={approver}",
        f"--serviceaccount={namespace}:default",
    )
    cluster.until("it may", lambda: cluster.kubectl("certificate", "approve", namespace, token=token))
