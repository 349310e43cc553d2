"""The store through Debian's etcdctl: the same words from ours and from the real one."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.kv.stores import Store

pytestmark = pytest.mark.etcd

Ctl = Callable[..., str]


def environment(store: Store) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ETCD")}
    return kept | {"ETCDCTL_API": "3", "ETCDCTL_ENDPOINTS": ",".join(store.endpoints)}


@pytest.fixture
def ctl(store: Store) -> Ctl:
    assert shutil.which("etcdctl"), "the marker 'etcd' promises Debian's etcd-client"

    def run(*arguments: str, stdin: str = "", fails: bool = False, endpoint: str = "") -> str:
        done = subprocess.run(
            ["etcdctl", "--command-timeout=10s", *arguments],
            env=environment(store) | ({"ETCDCTL_ENDPOINTS": endpoint} if endpoint else {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture
def key(prefix: bytes) -> str:
    return prefix.decode()


def test_put_get_del(ctl: Ctl, key: str) -> None:
    assert ctl("put", key + "a", "1") == "OK\n"
    assert ctl("put", "--prev-kv", key + "a", "2") == f"OK\n{key}a\n1\n"
    ctl("put", key + "b", "3")
    assert ctl("get", key, "--prefix") == f"{key}a\n2\n{key}b\n3\n"
    assert ctl("get", key, "--prefix", "--order=DESCEND", "--keys-only") == f"{key}b\n\n{key}a\n\n"
    assert ctl("get", key + "b", "--from-key", "--limit=1", "--print-value-only") == "3\n"
    (kv,) = json.loads(ctl("get", key + "a", "-w", "json"))["kvs"]
    assert kv["version"] == 2
    assert ctl("get", key + "a", f"--rev={kv['create_revision']}", "--print-value-only") == "1\n"
    assert ctl("del", key, "--prefix", "--prev-kv") == f"2\n{key}a\n2\n{key}b\n3\n"


def test_txn(ctl: Ctl, key: str) -> None:
    ctl("put", key, "1")
    script = f'value("{key}") = "1"\n\nput {key} 2\nget {key}\n\nget {key}\n\n'
    assert ctl("txn", stdin=script) == f"SUCCESS\n\nOK\n\n{key}\n2\n"
    assert ctl("txn", stdin=script) == f"FAILURE\n\n{key}\n2\n"


def test_watch_history(ctl: Ctl, store: Store, key: str) -> None:
    revision = json.loads(ctl("put", key, "1", "-w", "json"))["header"]["revision"]
    ctl("put", key, "2")
    ctl("del", key)
    with subprocess.Popen(
        ["etcdctl", "watch", key, f"--rev={revision}", "--prev-kv"],
        env=environment(store),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        seen = [watching.stdout.readline() for _ in range(13)]
        watching.send_signal(signal.SIGTERM)
    assert "".join(seen) == f"PUT\n{key}\n1\nPUT\n{key}\n1\n{key}\n2\nDELETE\n{key}\n2\n{key}\n\n"


def test_leases(ctl: Ctl, key: str) -> None:
    granted = ctl("lease", "grant", "60")
    match = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(60s\)\n", granted)
    assert match is not None, granted
    lease = match[1]
    ctl("put", key, "1", f"--lease={lease}")
    alive = rf"lease {lease} granted with TTL\(60s\), remaining\((5\d|60)s\), attached keys\(\[{key}\]\)\n"
    assert re.fullmatch(alive, ctl("lease", "timetolive", lease, "--keys"))
    assert ctl("lease", "keep-alive", "--once", lease) == f"lease {lease} keepalived with TTL(60)\n"
    assert lease in ctl("lease", "list").split()
    assert ctl("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert ctl("get", key) == ""
    assert ctl("lease", "timetolive", lease) == f"lease {lease} already expired\n"
    assert "requested lease not found" in ctl("lease", "revoke", lease, fails=True)


def test_lock_runs_a_command(ctl: Ctl, key: str) -> None:
    assert ctl("lock", key, "echo", "mine") == "mine\n"
    assert ctl("get", key, "--prefix") == ""


@pytest.fixture
def holder(store: Store, key: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        ["etcdctl", "elect", key, "first"], env=environment(store), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the key it won by
        assert process.stdout.readline() == "first\n"
        yield process
        if process.poll() is None:
            process.kill()


def test_elections_pass_on(ctl: Ctl, store: Store, key: str, holder: "subprocess.Popen[str]") -> None:
    with subprocess.Popen(
        ["etcdctl", "elect", key, "second"], env=environment(store), stdout=subprocess.PIPE, text=True
    ) as waiting:
        deadline = time.monotonic() + 10
        while ctl("get", key, "--prefix", "--keys-only").count(key) < 2:
            assert time.monotonic() < deadline
        holder.send_signal(signal.SIGINT)  # resigns
        assert waiting.stdout is not None
        waiting.stdout.readline()
        assert waiting.stdout.readline() == "second\n"
        waiting.send_signal(signal.SIGINT)


def test_compaction(ctl: Ctl, key: str) -> None:
    ctl("put", key, "1")
    revision = json.loads(ctl("put", key, "2", "-w", "json"))["header"]["revision"]
    assert ctl("compaction", str(revision)) == f"compacted revision {revision}\n"
    assert "required revision has been compacted" in ctl("get", key, f"--rev={revision - 1}", fails=True)


def test_cluster_and_maintenance(ctl: Ctl, store: Store, tmp_path: Path) -> None:
    members = [line.split(", ") for line in ctl("member", "list").splitlines()]
    assert sorted(member[4] for member in members) == sorted(f"http://{e}" for e in store.endpoints)
    assert all(member[1] == "started" for member in members)
    assert ctl("endpoint", "status").count(", ") >= 6 * len(store.endpoints)
    hashes = {line.split(", ")[1] for line in ctl("endpoint", "hashkv").splitlines()}
    assert len(hashes) == 1
    assert ctl("alarm", "list") == ""
    assert ctl("defrag").count("Finished defragmenting") == len(store.endpoints)
    saved = tmp_path / "saved"
    ctl("snapshot", "save", str(saved), endpoint=store.endpoints[0])
    assert saved.stat().st_size % 512 == 32
    assert ctl("user", "list") == ""
    # The client knows by the text that authentication is off, and goes on without.
    assert ctl("--user", "a:b", "get", "no such key") == ""


def test_health(ctl: Ctl, store: Store) -> None:
    # etcdctl 3.4 tells of healthy endpoints on its standard error.
    done = subprocess.run(
        ["etcdctl", "endpoint", "health"],
        env=environment(store),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout + done.stderr).count("is healthy") == len(store.endpoints)


def test_move_leader(ctl: Ctl, store: Store) -> None:
    if len(store.endpoints) == 1:
        member = ctl("member", "list").split(", ")[0]
        assert "no leader endpoint" not in ctl("move-leader", member)
        return
    rows = [line.split(", ") for line in ctl("endpoint", "status").splitlines()]
    leader = next(row[1] for row in rows if row[4] == "true")
    target = next(row[1] for row in rows if row[1] != leader)
    assert ctl("move-leader", target) == f"Leadership transferred from {leader} to {target}\n"


def test_make_mirror_copies(ctl: Ctl, store: Store, key: str) -> None:
    """From one prefix to another of the same store: snapshot by pages, then by watch."""
    ctl("put", key + "from/a", "1")
    target = key + "to/"
    with subprocess.Popen(
        [
            "etcdctl",
            "make-mirror",
            f"--prefix={key}from/",
            f"--dest-prefix={target}",
            store.endpoints[0],
        ],
        env=environment(store),
        stdout=subprocess.DEVNULL,
    ) as mirroring:
        try:
            deadline = time.monotonic() + 15
            while ctl("get", target, "--prefix", "--print-value-only") != "1\n":
                assert time.monotonic() < deadline
            ctl("put", key + "from/b", "2")
            while ctl("get", target, "--prefix", "--print-value-only") != "1\n2\n":
                assert time.monotonic() < deadline
        finally:
            mirroring.kill()
