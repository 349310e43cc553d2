"""A whole cluster without containers, as processes: store, one master, hollow node agents. Real clients drive it."""

import base64
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from deploy.checks import debian_kubectl
from deploy.pki import Authority, Subject
from tests.contract.kv.stores import ROOT, ours
from tests.ports import free_ports

READY_S = 30.0


class Failed(AssertionError):
    """A command that should have succeeded."""


class Cluster:
    """Where the cluster is and who its administrator is.

    files: the administrator's ``ca.crt``, ``admin.crt`` and ``admin.key``, and ``kubeconfig``.
    """

    def __init__(self, files: Path, urls: Sequence[str], start_master: Callable[[], subprocess.Popen[bytes]]) -> None:
        """start_master: starts the first one, again and again."""
        self.files = files
        self.urls = tuple(urls)  # one for each master
        self.url = urls[0]
        self.kubeconfig = files / "kubeconfig"
        self._start_master = start_master
        self.master = start_master()

    def is_ready(self) -> bool:
        """Return whether the API answers that it is ready."""
        context = ssl.create_default_context(cafile=str(self.files / "ca.crt"))
        context.load_cert_chain(self.files / "admin.crt", self.files / "admin.key")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", context=context, timeout=2) as answer:
                return bool(answer.read() == b"ok")
        except OSError:
            return False

    def restart_master(self) -> float:
        """Stop the master and start it again; return how many seconds passed until it was ready."""
        _stop(self.master)
        began = time.monotonic()
        self.master = self._start_master()
        until("the API is ready", self.is_ready, pause_s=0.01)
        return time.monotonic() - began

    def kubectl(
        self,
        *args: str,
        binary: str = "kubectl",
        check: bool = True,
        text: str | None = None,
        timeout_s: float = 60,
        master: int = 0,
    ) -> str:
        """Run kubectl on one master; return what it printed: standard output alone if it has to succeed, else both."""
        if master:
            args = (*args, "--server", self.urls[master])
        environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.files)}
        done = subprocess.run(
            [binary, *args],
            env=environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise Failed(f"kubectl {' '.join(args)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout if check else done.stdout + done.stderr


def until(what: str, condition: Callable[[], Any], *, timeout_s: float = READY_S, pause_s: float = 0.1) -> Any:
    """Return the first true value of ``condition``; what it raised last is part of the failure."""
    end, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (Failed, subprocess.TimeoutExpired) as exc:
            last = str(exc)
        time.sleep(pause_s)
    raise Failed(f"not within {timeout_s:.0f} s: {what}\n{last}")


@contextlib.contextmanager
def running(folder: Path, *, nodes: int = 1, masters: int = 1, engine: str = "memory") -> Iterator[Cluster]:
    """Bring a cluster up in ``folder``, and take it down."""
    with ours(folder, members=1, engine=engine) as store, contextlib.ExitStack() as stack:
        ports = free_ports(2 * masters + nodes)
        rests, rpcs, agents = ports[:masters], ports[masters : 2 * masters], ports[2 * masters :]
        _write_pki(folder, [f"node{number}" for number in range(nodes)])
        urls = [f"https://127.0.0.1:{port}" for port in rests]
        _write_kubeconfig(folder, urls[0])

        def start_master(number: int = 0) -> subprocess.Popen[bytes]:
            name = "master" if number == 0 else f"master{number}"
            config = folder / f"{name}.toml"
            config.write_text(_master_toml(folder, number, rests=rests, rpcs=rpcs, store=store.endpoints[0]))
            return _start(stack, folder, name, ["-m", "master", "--config", str(config)])

        cluster = Cluster(folder, urls, start_master)
        for number in range(1, masters):
            start_master(number)
        for number in range(nodes):
            config = folder / f"node{number}.toml"
            config.write_text(_node_toml(folder, f"node{number}", rpc=rpcs[0], port=agents[number]))
            _start(stack, folder, f"node{number}", ["-m", "node_agent", "--config", str(config)])
        until("the API is ready", cluster.is_ready)
        for number in range(1, masters):
            until("every API is ready", lambda at=number: cluster.kubectl("get", "--raw", "/readyz", master=at) == "ok")
        until("every node is Ready", lambda: cluster.kubectl("get", "nodes").count(" Ready ") == nodes)
        until("the service account is there", lambda: cluster.kubectl("get", "namespace", "default"))
        yield cluster


def _start(stack: contextlib.ExitStack, folder: Path, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    output = stack.enter_context((folder / f"{name}.log").open("ab"))
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _write_pki(folder: Path, nodes: Sequence[str]) -> None:
    authority = Authority.create("clients")
    addresses = ("127.0.0.1",)
    subjects = {
        "admin": Subject("admin", "system:masters"),
        "server": Subject("system:master:m", names=("localhost",), addresses=addresses, server=True, client=False),
        "client": Subject("system:master:m", "system:masters"),
        **{
            name: Subject(f"system:node:{name}", "system:nodes", names=(name,), addresses=addresses, server=True)
            for name in nodes
        },
    }
    (folder / "ca.crt").write_bytes(authority.pair.certificate)
    (folder / "ca.key").write_bytes(authority.pair.key)
    # Tokens may be signed with any key; one of its own would tell these tests nothing more.
    (folder / "sa.key").write_bytes(authority.pair.key)
    for name, subject in subjects.items():
        pair = authority.issue(subject)
        (folder / f"{name}.crt").write_bytes(pair.certificate)
        (folder / f"{name}.key").write_bytes(pair.key)


def _tls(folder: Path, name: str, *, authority: str = "ca") -> str:
    return f'{authority} = "{folder}/ca.crt"\ncert = "{folder}/{name}.crt"\nkey = "{folder}/{name}.key"\n'


def _master_toml(folder: Path, number: int, *, rests: Sequence[int], rpcs: Sequence[int], store: str) -> str:
    rest, rpc = rests[number], rpcs[number]
    masters = "".join(f'm{n} = "127.0.0.1:{port}"\n' for n, port in enumerate(rpcs))
    return (
        f'name = "m{number}"\naddress = "127.0.0.1"\nrest_listen = "127.0.0.1:{rest}"\n'
        f'grpc_listen = "127.0.0.1:{rpc}"\napi_address = "127.0.0.1:{rest}"\nstore_endpoints = ["{store}"]\n'
        f"[masters]\n{masters}[tls]\n{_tls(folder, 'server', authority='client_ca')}"
        f"[node_tls]\n{_tls(folder, 'client')}"
        f'[access]\nsigning_keys = ["{folder}/sa.key"]\nissuer = "https://kubernetes.default.svc.cluster.local"\n'
        f'authority_cert = "{folder}/ca.crt"\nauthority_key = "{folder}/ca.key"\n'
    )


def _node_toml(folder: Path, name: str, *, rpc: int, port: int) -> str:
    return (
        f'name = "{name}"\naddress = "127.0.0.1"\nmasters = ["127.0.0.1:{rpc}"]\nlisten = "127.0.0.1:{port}"\n'
        f'data_dir = "{folder}/{name}"\nruntime = "hollow"\n'
        f"[tls]\n{_tls(folder, name)}"
    )


def _write_kubeconfig(folder: Path, url: str) -> None:
    def embedded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    document: Mapping[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": embedded("ca.crt")}}],
        "users": [
            {
                "name": "admin",
                "user": {
                    "client-certificate-data": embedded("admin.crt"),
                    "client-key-data": embedded("admin.key"),
                },
            }
        ],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(document))


def version_of(binary: str) -> str:
    """Return a kubectl's minor version: ``1.32``."""
    text = subprocess.run([binary, "version", "--client"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v(\d+\.\d+)", text)
    assert found is not None, text
    return found[1]


def old_kubectl() -> str:
    """Return Debian's kubectl 1.20, which speaks SPDY and validates on the client."""
    return os.environ.get("TRIREME_DEBIAN_KUBECTL") or str(debian_kubectl(Console(stderr=True)))
