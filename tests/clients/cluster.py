"""A whole cluster without containers, as processes: store, one master, hollow node agents. Real clients drive it."""

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.pki import Authority, Subject
from tests.contract.kv.stores import ROOT, free_ports, ours

READY_S = 30.0


class Failed(AssertionError):
    """A command that should have succeeded."""


class Cluster:
    """Where the cluster is and who its administrator is.

    files: the administrator's ``ca.crt``, ``admin.crt`` and ``admin.key``, and ``kubeconfig``.
    """

    def __init__(self, files: Path, url: str, master: subprocess.Popen[bytes]) -> None:
        self.files = files
        self.url = url
        self.master = master
        self.kubeconfig = files / "kubeconfig"

    def kubectl(
        self, *args: str, binary: str = "kubectl", check: bool = True, text: str | None = None, timeout_s: float = 60
    ) -> str:
        """Run kubectl; return what it printed: standard output alone if it has to succeed, else both."""
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


def until(what: str, condition: Callable[[], Any], *, timeout_s: float = READY_S) -> Any:
    """Return the first true value of ``condition``; what it raised last is part of the failure."""
    end, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (Failed, subprocess.TimeoutExpired) as exc:
            last = str(exc)
        time.sleep(0.1)
    raise Failed(f"not within {timeout_s:.0f} s: {what}\n{last}")


@contextlib.contextmanager
def running(folder: Path, *, nodes: int = 1) -> Iterator[Cluster]:
    """Bring a cluster up in ``folder``, and take it down."""
    with ours(folder, members=1, engine="memory") as store, contextlib.ExitStack() as stack:
        rest, rpc, *agents = free_ports(2 + 2 * nodes)
        _write_pki(folder, [f"node{number}" for number in range(nodes)])
        config = folder / "master.toml"
        config.write_text(_master_toml(folder, rest=rest, rpc=rpc, store=store.endpoints[0]))
        master = _start(stack, folder, "master", ["-m", "master", "--config", str(config)])
        for number in range(nodes):
            config = folder / f"node{number}.toml"
            config.write_text(_node_toml(folder, f"node{number}", rpc=rpc, ports=agents[2 * number : 2 * number + 2]))
            _start(stack, folder, f"node{number}", ["-m", "node_agent", "--config", str(config)])
        url = f"https://127.0.0.1:{rest}"
        _write_kubeconfig(folder, url)
        cluster = Cluster(folder, url, master)
        until("the API is ready", lambda: cluster.kubectl("get", "--raw", "/readyz") == "ok")
        until("every node is Ready", lambda: cluster.kubectl("get", "nodes").count(" Ready ") == nodes)
        until("the service account is there", lambda: cluster.kubectl("get", "namespace", "default"))
        yield cluster


def _start(stack: contextlib.ExitStack, folder: Path, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
    output = stack.enter_context((folder / f"{name}.log").open("wb"))
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
    for name, subject in subjects.items():
        pair = authority.issue(subject)
        (folder / f"{name}.crt").write_bytes(pair.certificate)
        (folder / f"{name}.key").write_bytes(pair.key)


def _tls(folder: Path, name: str, *, authority: str = "ca") -> str:
    return f'{authority} = "{folder}/ca.crt"\ncert = "{folder}/{name}.crt"\nkey = "{folder}/{name}.key"\n'


def _master_toml(folder: Path, *, rest: int, rpc: int, store: str) -> str:
    return (
        f'name = "m"\naddress = "127.0.0.1"\nrest_listen = "127.0.0.1:{rest}"\ngrpc_listen = "127.0.0.1:{rpc}"\n'
        f'api_address = "127.0.0.1:{rest}"\nstore_endpoints = ["{store}"]\n'
        f'[masters]\nm = "127.0.0.1:{rpc}"\n[tls]\n{_tls(folder, "server", authority="client_ca")}'
        f"[node_tls]\n{_tls(folder, 'client')}"
    )


def _node_toml(folder: Path, name: str, *, rpc: int, ports: Sequence[int]) -> str:
    return (
        f'name = "{name}"\naddress = "127.0.0.1"\nmasters = ["127.0.0.1:{rpc}"]\nlisten = "127.0.0.1:{ports[0]}"\n'
        f'http_listen = "127.0.0.1:{ports[1]}"\ndata_dir = "{folder}/{name}"\nruntime = "hollow"\n'
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
    unpacked = Path(os.environ.get("TRIREME_HOME", str(Path.home() / ".trireme"))) / "cache" / "kubectl-1.20"
    binary = unpacked / "usr" / "bin" / "kubectl"
    if not binary.exists():
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "kubernetes-client"], cwd=unpacked, check=True, capture_output=True)
        package = next(unpacked.glob("kubernetes-client_*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
        package.unlink()
    assert shutil.which(str(binary))
    return str(binary)
