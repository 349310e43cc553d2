"""Stores to hold against the contract, each as the processes that users run."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc

from tests.ports import free_ports
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

ROOT = Path(__file__).resolve().parents[3]
READY_S = 20.0


class Store:
    """The endpoints of a running store, and its processes by endpoint."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.http: list[str] = []  # where each member takes HTTP, in the order of the endpoints
        self.commands: dict[str, tuple[Sequence[str], Path]] = {}  # how each is started, and where it logs

    @property
    def endpoints(self) -> list[str]:
        return list(self.processes)

    @property
    def is_etcd(self) -> bool:
        return self.name == "etcd"


@contextlib.contextmanager
def ours(folder: Path, *, members: int, engine: str, front: str = "fast", raft: str = "") -> Iterator[Store]:
    """raft: lines of TOML for the table of that name."""
    ports = free_ports(members * 3)
    names = [f"m{i}" for i in range(members)]
    peers = "\n".join(f'{name} = "http://127.0.0.1:{ports[i * 3]}"' for i, name in enumerate(names))
    with _processes(Store(f"{engine}-{members}")) as store:
        for i, name in enumerate(names):
            client = f"127.0.0.1:{ports[i * 3 + 1]}"
            apart = f"127.0.0.1:{ports[i * 3 + 2]}"
            store.http.append(client if front == "fast" else apart)
            config = folder / f"{name}.toml"
            config.write_text(
                f'name = "{name}"\ncluster = "contract"\ndata_dir = "{folder / name}"\n'
                f'engine = "{engine}"\nfront = "{front}"\nhttp_listen = "{apart}"\n'
                f'client_listen = "{client}"\npeer_listen = "127.0.0.1:{ports[i * 3]}"\n'
                f'client_url = "http://{client}"\n[members]\n{peers}\n[raft]\n{raft}\n'
            )
            command = [sys.executable, "-m", "raft_store", "--config", str(config)]
            _start(store, client, command, folder / f"{name}.log")
        _wait_ready(store)
        yield store


@contextlib.contextmanager
def real_etcd(folder: Path, *, members: int = 1, more: Sequence[str] = ()) -> Iterator[Store]:
    program = shutil.which("etcd")
    assert program is not None, "the marker 'etcd' promises Debian's etcd-server"
    ports = free_ports(members * 2)
    peers = [f"http://127.0.0.1:{port}" for port in ports[:members]]
    with _processes(Store("etcd")) as store:
        for i, port in enumerate(ports[members:]):
            client = f"127.0.0.1:{port}"
            store.http.append(client)
            command = [program, "--name", f"m{i}", "--data-dir", str(folder / f"m{i}"), "--logger", "zap"]
            command += ["--listen-client-urls", f"http://{client}"]
            command += ["--advertise-client-urls", f"http://{client}"]
            command += ["--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i]]
            command += ["--initial-cluster", ",".join(f"m{n}={peer}" for n, peer in enumerate(peers)), *more]
            _start(store, client, command, folder / f"m{i}.log")
        _wait_ready(store)
        yield store


def start_again(store: Store, client: str) -> None:
    """Start a member that has ended, and wait until it answers."""
    command, log = store.commands[client]
    _start(store, client, command, log)
    _wait_ready(store)


def _start(store: Store, client: str, command: Sequence[str], log: Path) -> None:
    store.commands[client] = command, log
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
    with log.open("ab") as output:
        store.processes[client] = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # as services have: Linux shares its CPUs among sessions first
        )


@contextlib.contextmanager
def _processes(store: Store) -> Iterator[Store]:
    try:
        yield store
    finally:
        for process in store.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in store.processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(store: Store) -> None:
    deadline = time.monotonic() + READY_S
    for endpoint in store.endpoints:
        with grpc.insecure_channel(endpoint) as channel:
            stub = rpc_pb2_grpc.KVStub(channel)
            while True:
                try:
                    stub.Range(pb.RangeRequest(key=b"ready"), timeout=1.0)
                    break
                except grpc.RpcError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
