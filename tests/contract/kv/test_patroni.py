"""A real application that lives on etcd: Patroni keeps one PostgreSQL writable, with its leader key in our store."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.contract.kv.stores import Store, ours
from tests.ports import free_ports
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

OWNER = "postgres"  # who may run PostgreSQL; root may not
CONFIG = """\
scope: demo
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
etcd3:
  hosts: [{hosts}]
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 5
    postgresql: {{use_pg_rewind: true}}
  initdb: [{{encoding: UTF8}}, data-checksums]
  pg_hba: ["host replication all 127.0.0.1/32 trust", "host all all 127.0.0.1/32 trust"]
postgresql:
  listen: "127.0.0.1:{port}"
  connect_address: "127.0.0.1:{port}"
  data_dir: {folder}/data
  bin_dir: {binaries}
  pgpass: {folder}/pgpass
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: replicator}}
  parameters: {{unix_socket_directories: "{folder}"}}
"""


class Node:
    """One PostgreSQL and the Patroni that minds it."""

    def __init__(self, name: str, folder: Path, store: Store, binaries: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.binaries = binaries
        self.rest, self.port = free_ports(2)
        self.folder.mkdir()
        shutil.chown(self.folder, OWNER, OWNER)
        config = self.folder / "patroni.yml"
        hosts = ", ".join(f'"{address}"' for address in store.http)
        config.write_text(
            CONFIG.format(name=name, rest=self.rest, port=self.port, hosts=hosts, folder=self.folder, binaries=binaries)
        )
        account = pwd.getpwnam(OWNER)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["patroni", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=[],
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                start_new_session=True,
            )

    def state(self) -> str:
        """Return the role that Patroni tells, "" while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/patroni", timeout=2) as response:
                told = json.loads(response.read())
        except urllib.error.HTTPError as exc:
            told = json.loads(exc.read() or b"{}")
        except (OSError, ValueError):
            return ""
        return told.get("role", "") if told.get("state") == "running" else ""

    def sql(self, statement: str) -> str:
        done = subprocess.run(
            [str(self.binaries / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-tAc", statement],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr}"

    def kill(self) -> None:
        """End Patroni and PostgreSQL at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        postmaster = self.folder / "data" / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            os.kill(int(postmaster.read_text().splitlines()[0]), signal.SIGQUIT)
        self.process.wait()


def until(holds: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Wait; return for how long."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, what
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with ours(tmp_path, members=3, engine="native") as running:
        yield running


@pytest.fixture
def nodes(store: Store) -> Iterator[list[Node]]:
    assert shutil.which("patroni"), "this test needs Debian's packages patroni and postgresql"
    (binaries,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    running: list[Node] = []
    # Not pytest's own folder: every session that starts closes that one to all but its owner.
    with tempfile.TemporaryDirectory(prefix="trireme-patroni-") as folder:
        shutil.chown(folder, OWNER, OWNER)
        try:
            running += [Node(f"pg{i}", Path(folder), store, binaries) for i in range(2)]
            yield running
        finally:
            for node in running:
                node.kill()


def leader_of(store: Store) -> str:
    for endpoint, process in store.processes.items():
        if process.poll() is None:
            with grpc.insecure_channel(endpoint) as channel:
                status = rpc_pb2_grpc.MaintenanceStub(channel).Status(pb.StatusRequest(), timeout=2)
            if status.leader == status.header.member_id:
                return endpoint
    raise AssertionError("nobody leads")


def primary(nodes: list[Node]) -> Node | None:
    leading = [node for node in nodes if node.state() in ("master", "primary")]
    assert len(leading) < 2, "two PostgreSQL servers take writes"
    return leading[0] if leading else None


def test_postgresql_outlives_the_leader_of_its_store(store: Store, nodes: list[Node]) -> None:
    until(lambda: primary(nodes) is not None, "a PostgreSQL is elected", 60)
    until(lambda: "replica" in [node.state() for node in nodes], "the other one follows", 60)
    first = primary(nodes)
    assert first is not None
    assert first.sql("create table kept (n int)") == "CREATE TABLE"

    store.processes[leader_of(store)].kill()
    written = 0
    ends = time.monotonic() + 25  # longer than the key of the leader lives without being renewed
    while time.monotonic() < ends:
        assert first.sql(f"insert into kept values ({written})") == "INSERT 0 1"
        written += 1
        time.sleep(0.2)
        assert primary(nodes) in (first, None)
    assert primary(nodes) is first  # it held its key through the change of the store's leader

    other = next(node for node in nodes if node is not first)
    until(lambda: other.sql("select count(*) from kept") == str(written), "the replica has it all", 20)
    first.kill()
    until(lambda: primary([other]) is other, "the other one takes over on two members of three", 60)
    until(lambda: other.sql("insert into kept values (-1)") == "INSERT 0 1", "it takes writes", 20)
    assert other.sql("select count(*) from kept where n >= 0") == str(written)
