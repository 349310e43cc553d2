"""The Vagrantfile: valid for every provider; on request a real ``vagrant up``."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Vagrant with a home of the test's own, and a VirtualBox that can only say its version."""
    stub = tmp_path / "bin" / "VBoxManage"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\n[ "$1" = --version ] && echo 7.0.20r163906\nexit 0\n')
    stub.chmod(0o755)
    return os.environ | {
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "TRIREME_HOME": str(tmp_path / "home"),
        "TRIREME_NAME": "vms",
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dotfile"),
    }


def vagrant(environment: dict[str, str], *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    assert shutil.which("vagrant"), "vagrant is not installed: ./trireme test --yes installs it"
    return subprocess.run(
        ["vagrant", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt", "docker"])
def test_it_is_valid_for_every_provider(environment: dict[str, str], provider: str) -> None:
    done = vagrant(environment | {"VAGRANT_DEFAULT_PROVIDER": provider}, "validate")
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_come_from_the_environment(environment: dict[str, str]) -> None:
    sizes = {"VAGRANT_DEFAULT_PROVIDER": "docker", "TRIREME_MASTERS": "1", "TRIREME_NODES": "3"}
    listed = vagrant(environment | sizes, "status", "--machine-readable").stdout
    hosts = {line.split(",")[1] for line in listed.splitlines() if ",state," in line}
    assert hosts == {"master1", "node1", "node2", "node3"}


def test_a_size_that_cannot_be_stops_it(environment: dict[str, str]) -> None:
    done = vagrant(environment | {"VAGRANT_DEFAULT_PROVIDER": "docker", "TRIREME_MASTERS": "9"}, "validate")
    assert done.returncode != 0
    assert "1 to 7 masters" in done.stdout + done.stderr
