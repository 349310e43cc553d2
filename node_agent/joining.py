"""How a node that only knows a bootstrap token gets certificates of its own.

Two requests, as kubelets make them. The first, with the token, is for a client certificate and is approved by itself;
the second, with that certificate, is for the one that the agent shows to masters who dial in, and an administrator
approves it (``kubectl certificate approve``), because it says which addresses the node may speak for. Keys never leave
the node. They are written before anything is asked, and a request is named after its key: an agent that is started
again goes on where it was. Source: kubernetes.io, "TLS bootstrapping".
"""

import asyncio
import base64
import hashlib
import ipaddress
import logging
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node_agent.config import Bootstrap, NodeConfig, Tls
from node_agent.errors import NodeError

log = logging.getLogger(__name__)

CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
POLL_S = 1.0
TIMEOUT_S = 10.0
_PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


class JoinRefused(NodeError):
    """The cluster does not want this node; the message says what it answered."""


def render_request(key: ec.EllipticCurvePrivateKey, node: str, *, address: str = "") -> bytes:
    """Return the PEM request of a node's agent; address: where it serves, for a serving certificate."""
    parts = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
        x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    if address:
        names = [x509.DNSName(node), x509.IPAddress(ipaddress.ip_address(address))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request_name(prefix: str, key: ec.EllipticCurvePrivateKey) -> str:
    """Return the name of the request for a key, the same whenever it is asked."""
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"{prefix}-{hashlib.sha256(public).hexdigest()[:32]}"


def render_document(name: str, pem: bytes, signer: str, usages: Sequence[str]) -> dict[str, Any]:
    """Return the signing request that is posted."""
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": list(usages)}
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": spec,
    }


def read_answer(document: Any) -> bytes | None:
    """Return the certificate in PEM, None while there is none; raises JoinRefused."""
    status = document.get("status") or {}
    for condition in status.get("conditions", ()):
        if condition["type"] in ("Denied", "Failed"):
            why = condition.get("message") or condition.get("reason", "")
            raise JoinRefused(f"request {document['metadata']['name']}: {condition['type']}: {why}")
    encoded = status.get("certificate", "")
    return base64.b64decode(encoded) if encoded else None


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, which is made if it is not there."""
    if path.exists():
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise JoinRefused(f"{path} holds another kind of key: remove it to join with a new one")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_privately(path, pem)
    return key


def write_privately(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


async def join(config: NodeConfig) -> None:
    """Get the certificates that are missing; returns at once if none is. Waits as long as it takes.

    Raises JoinRefused if a request is denied, or the token is not one of the cluster's.
    """
    bootstrap, tls = config.bootstrap, config.tls
    if bootstrap is None or tls is None:
        return
    if not tls.cert.exists():
        key = await asyncio.to_thread(ensure_key, tls.key)
        document = render_document(
            request_name("node-csr", key),
            render_request(key, config.name),
            CLIENT,
            ("digital signature", "client auth"),
        )
        trust = ssl.create_default_context(cafile=str(tls.ca))
        certificate = await _obtain(bootstrap, document, trust, token=bootstrap.token)
        await asyncio.to_thread(write_privately, tls.cert, certificate)
    serving_cert, serving_key = tls.serving
    if not serving_cert.exists():
        key = await asyncio.to_thread(ensure_key, serving_key)
        pem = render_request(key, config.name, address=config.address)
        document = render_document(
            request_name("node-serving", key), pem, SERVING, ("digital signature", "server auth")
        )
        certificate = await _obtain(bootstrap, document, _with_identity(tls), token="")
        await asyncio.to_thread(write_privately, serving_cert, certificate)


def _with_identity(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(tls.cert, tls.key)
    return context


async def _obtain(bootstrap: Bootstrap, document: dict[str, Any], trust: ssl.SSLContext, *, token: str) -> bytes:
    """Ask, and look again and again until there is a certificate."""
    name, told = document["metadata"]["name"], False
    url = f"https://{bootstrap.api}{_PATH}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=limits) as session:
        while True:
            try:
                found = await _look(session, url, document, trust)
            except (aiohttp.ClientError, TimeoutError) as exc:
                log.warning("cluster does not answer, asking again api=%s error=%s", bootstrap.api, exc)
            else:
                if (certificate := read_answer(found)) is not None:
                    log.info("certificate received request=%s", name)
                    return certificate
                if not told:
                    log.info("waiting for approval: kubectl certificate approve %s", name)
                    told = True
            await asyncio.sleep(POLL_S)


async def _look(session: aiohttp.ClientSession, url: str, document: dict[str, Any], trust: ssl.SSLContext) -> Any:
    """Return the request as the cluster has it; make it if it is not there."""
    async with session.get(f"{url}/{document['metadata']['name']}", ssl=trust) as answer:
        if answer.status == 200:
            return await answer.json()
        if answer.status != 404:
            await _check(answer)
    async with session.post(url, json=document, ssl=trust) as answer:
        if answer.status not in (201, 409):
            await _check(answer)
        return await answer.json() if answer.status == 201 else {}


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Raise for an answer that is no success: JoinRefused if asking again makes no sense."""
    text = (await answer.text())[:500]
    if answer.status in (401, 403, 422):
        raise JoinRefused(f"the cluster refuses with {answer.status}: {text}")
    raise aiohttp.ClientError(f"status {answer.status}: {text}")
