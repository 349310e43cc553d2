"""A whole member on a disk that fills up: it ends with a status and a reason, and lost nothing once there is room."""

import os
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from tests.ports import free_ports
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

ROOT = Path(__file__).parents[3]


def mount(*options, at):
    done = subprocess.run(["mount", *options, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    at = tmp_path / "small"
    at.mkdir()
    mount("-t", "tmpfs", "-o", "size=20m", "tmpfs", at=at)
    yield at
    subprocess.run(["umount", str(at)], check=True)


class Life:
    def __init__(self, folder, disk):
        self.port, peer = free_ports(2)
        self._file = folder / "store.toml"
        self._file.write_text(
            f'name = "a"\ndata_dir = "{disk}/data"\nclient_url = "http://127.0.0.1:{self.port}"\n'
            f'client_listen = "127.0.0.1:{self.port}"\npeer_listen = "127.0.0.1:{peer}"\n'
            f'[members]\na = "http://127.0.0.1:{peer}"\n'
        )

    def start(self):
        argv = [sys.executable, "-m", "raft_store", "--config", str(self._file)]
        return subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def put_until_refused(self):
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            kv = rpc_pb2_grpc.KVStub(channel)
            for number in range(1000):
                try:
                    request = pb.PutRequest(key=b"%06d" % number, value=bytes(100_000))
                    kv.Put(request, timeout=30, wait_for_ready=number == 0)
                except grpc.RpcError:
                    return number
        raise AssertionError("the disk is not small")

    def count(self):
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            request = pb.RangeRequest(key=b"\0", range_end=b"\0", count_only=True)
            return rpc_pb2_grpc.KVStub(channel).Range(request, timeout=60, wait_for_ready=True).count


def ended(process):
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_full_disk_ends_the_member_cleanly_and_loses_nothing(tmp_path, small_disk):
    life = Life(tmp_path, small_disk)
    reason = re.compile(rf"reason=cannot \w+ {small_disk}.*No space left on device; make room")
    process = life.start()
    acknowledged = life.put_until_refused()
    status, said = ended(process)
    assert (status, bool(reason.search(said))) == (1, True), said
    assert "Traceback" not in said
    # Without room it says so again; with room it goes on.
    status, said = ended(life.start())
    assert (status, bool(reason.search(said))) == (1, True), said
    mount("-o", "remount,size=200m", at=small_disk)
    process = life.start()
    try:
        assert acknowledged <= life.count() <= acknowledged + 1  # the last one was in flight
    finally:
        process.terminate()
        assert ended(process)[0] == 0
