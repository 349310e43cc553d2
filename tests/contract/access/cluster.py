"""Masters as the processes that users run, upon one store, with keys of their own and the clients that people use."""

import contextlib
import datetime as dt
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.contract.kv.stores import ROOT, ours
from tests.ports import free_ports

READY_S = 90.0


class Authority:
    """Signs certificates for one test cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path = self._write("ca", self._key, builder.sign(self._key, hashes.SHA256()))

    def issue(self, name: str, user: str, *groups: str) -> Path:
        """Write ``name``.crt and ``name``.key for a user; return the path without its suffix."""
        key = ec.generate_private_key(ec.SECP256R1())
        organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        local = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(local), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        return self._write(name, key, builder.sign(self._key, hashes.SHA256()))

    def _builder(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=2))
        )

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
        stem = self.folder / name
        stem.with_suffix(".key").write_bytes(private_pem(key))
        stem.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return stem


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


class Refused(Exception):
    """kubectl said no."""


class Cluster:
    """Running masters: index -> URL."""

    def __init__(self, folder: Path, authority: Authority, urls: Sequence[str], store: str) -> None:
        self.folder = folder
        self.authority = authority
        self.urls = urls
        self.store = store  # "address:port"
        self.grpc: list[str] = []
        self.admin = authority.issue("admin", "admin", "system:masters")

    def kubeconfig(self, *, master: int = 0, token: str = "", certificate: Path | None = None) -> Path:
        """Write a kubeconfig of somebody; the administrator's if nothing is given."""
        stem = certificate or self.admin
        user: dict[str, Any] = {"token": token} if token else {
            "client-certificate": str(stem.with_suffix(".crt")), "client-key": str(stem.with_suffix(".key")),
        }  # fmt: skip
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [
                {
                    "name": "it",
                    "cluster": {
                        "server": self.urls[master],
                        "certificate-authority": str(self.authority.path.with_suffix(".crt")),
                    },
                }
            ],
            "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }
        path = self.folder / f"kubeconfig-{master}-{stem.name if not token else abs(hash(token))}"
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(
        self, *args: str, text: str | None = None, token: str = "", certificate: Path | None = None, both: bool = False
    ) -> str:
        """Return what kubectl prints; raises Refused with its complaint."""
        config = self.kubeconfig(token=token, certificate=certificate)
        environment = {**os.environ, "KUBECONFIG": str(config), "HOME": str(self.folder)}
        done = subprocess.run(
            ["kubectl", *args], input=text, capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        if done.returncode != 0:
            raise Refused(done.stderr + done.stdout)
        return done.stdout + (done.stderr if both else "")

    def apply(self, *documents: dict[str, Any], **more: Any) -> str:
        """Create objects."""
        return self.kubectl("create", "-f", "-", text=yaml.safe_dump_all(documents), **more)

    def get(self, *args: str, **more: Any) -> Any:
        """Return an object."""
        return json.loads(self.kubectl("get", *args, "-o", "json", **more))

    def until(self, what: str, condition: Callable[[], Any], *, timeout_s: float = 20) -> Any:
        """Return the first true answer."""
        deadline, last = time.monotonic() + timeout_s, ""
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except Refused as refused:
                last = str(refused)
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{last}")


@contextlib.contextmanager
def running(folder: Path, *, masters: int = 1, engine: str = "memory", access: str = "") -> Iterator[Cluster]:
    """Run a store and ``masters`` upon it; ``access``: more lines of the configuration's table of that name."""
    authority = Authority(folder)
    server = authority.issue("server", "system:master:test", "system:masters")
    signing = folder / "sa.key"
    signing.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1())))
    ports = free_ports(masters * 2)
    with ours(folder, members=1, engine=engine) as store, contextlib.ExitStack() as stack:
        urls = [f"https://127.0.0.1:{port}" for port in ports[:masters]]
        cluster = Cluster(folder, authority, urls, store.endpoints[0])
        for index in range(masters):
            text = f"""
name = "master{index}"
address = "127.0.0.1"
api_address = "127.0.0.1:{ports[index]}"
rest_listen = "127.0.0.1:{ports[index]}"
grpc_listen = "127.0.0.1:{ports[masters + index]}"
store_endpoints = ["{store.endpoints[0]}"]
[tls]
client_ca = "{folder}/ca.crt"
cert = "{server}.crt"
key = "{server}.key"
[access]
signing_keys = ["{signing}"]
authority_cert = "{folder}/ca.crt"
authority_key = "{folder}/ca.key"
{access}
"""
            config = folder / f"master{index}.toml"
            config.write_text(text)
            cluster.grpc.append(f"127.0.0.1:{ports[masters + index]}")
            output = stack.enter_context((folder / f"master{index}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "master", "--config", str(config), "--log-level", "debug"],
                cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            stack.callback(_stop, process)
        for index in range(masters):
            _wait_ready(cluster, index)
        yield cluster


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(cluster: Cluster, index: int) -> None:
    """Wait until the master serves, has made what every cluster has, and its default service account is there."""
    context = ssl.create_default_context(cafile=str(cluster.authority.path.with_suffix(".crt")))
    context.load_cert_chain(cluster.admin.with_suffix(".crt"), cluster.admin.with_suffix(".key"))
    wanted = (
        "/readyz",
        "/api/v1/namespaces/default/serviceaccounts/default",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:basic-user",
        "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system/rolebindings/system:controller:token-cleaner",
    )
    deadline = time.monotonic() + READY_S
    for path in wanted:
        while True:
            try:
                with urllib.request.urlopen(cluster.urls[index] + path, context=context, timeout=5):
                    break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > deadline:
                    log = (cluster.folder / f"master{index}.log").read_text()
                    raise AssertionError(f"{path} never came\n{log[-4000:]}") from None
                time.sleep(0.05)
