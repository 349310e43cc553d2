"""What the README tells to run in a fresh checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_make_sim_needs_no_test_tools_installed_before(tmp_path: Path) -> None:
    """`make sim` goes through the launcher, which installs pytest; a fresh checkout's environment has none."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    launcher = tmp_path / "trireme"
    launcher.write_text('#!/bin/sh\necho "seeds=$TRIREME_SEEDS $*" >>calls\n')
    launcher.chmod(0o755)

    done = subprocess.run(["make", "sim", "SEED=7"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "seeds=7 test tests/simulation"


def test_grpc_example_leaves_no_stubs_behind(tmp_path: Path) -> None:
    code = "import grpc_client; pb, rpc = grpc_client.make_stubs(); print(pb.Target.DESCRIPTOR.name, rpc.ResourcesStub)"
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT / "examples")}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Target ")
    assert list(tmp_path.iterdir()) == []
