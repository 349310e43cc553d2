"""What the README tells to run in a fresh checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_make_sim_makes_the_environment_that_it_runs_in(tmp_path: Path) -> None:
    """`make sim` lets the launcher make the virtual environment; a fresh checkout has none."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    launcher = tmp_path / "trireme"
    launcher.write_text("#!/bin/sh\nmkdir -p .venv/bin\ncp python-stub .venv/bin/python\n")
    stub = tmp_path / "python-stub"
    stub.write_text('#!/bin/sh\necho "$*" >>calls\n')
    for program in (launcher, stub):
        program.chmod(0o755)

    done = subprocess.run(["make", "sim", "SEED=7"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().split() == "-m raft_store.simulation --seed 7 --world all".split()


def test_grpc_example_leaves_no_stubs_behind(tmp_path: Path) -> None:
    code = "import grpc_client; pb, rpc = grpc_client.make_stubs(); print(pb.Target.DESCRIPTOR.name, rpc.ResourcesStub)"
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "examples")}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Target ")
    assert list(tmp_path.iterdir()) == []
