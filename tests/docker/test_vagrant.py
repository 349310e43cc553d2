"""The Vagrantfile: valid for every provider; on request a real ``vagrant up``."""

import json
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_vagrant_up_makes_a_lab_that_kubectl_works_on_and_destroy_leaves_nothing(environment: dict[str, str]) -> None:
    """The docker provider: three masters and two nodes, a Deployment, a killed leader, halt and up, destroy."""
    environment |= {"VAGRANT_DEFAULT_PROVIDER": "docker", "TRIREME_SUBNET": "192.168.61.0/24"}
    before = _engine_objects()

    def command(*argv: str, timeout_s: float = 60) -> str:
        done = subprocess.run(
            argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def trireme(*arguments: str) -> str:
        return command("./trireme", *arguments, "--name", "vms")

    try:
        command("vagrant", "up", timeout_s=600)
        environment["KUBECONFIG"] = trireme("kubeconfig").strip()
        command("kubectl", "wait", "nodes", "--all", "--for=condition=Ready", "--timeout=60s", timeout_s=70)
        command("kubectl", "apply", "-f", "examples/web.yaml")
        command("kubectl", "rollout", "status", "deployment/web", "--timeout=60s", timeout_s=70)
        masters = json.loads(trireme("status", "-o", "json"))["masters"]
        leader = next(each["name"] for each in masters if each["role"] == "leader")
        trireme("kill", leader)
        command("kubectl", "create", "configmap", "after-the-kill")
        trireme("start", leader)
        command("vagrant", "halt", timeout_s=200)
        command("vagrant", "up", timeout_s=300)
        command("kubectl", "get", "configmap", "after-the-kill")
        command("kubectl", "rollout", "status", "deployment/web", "--timeout=90s", timeout_s=100)
    finally:
        command("vagrant", "destroy", "-f", timeout_s=200)
    assert _engine_objects() == before
    assert not Path(environment["TRIREME_HOME"], "labs", "vms").exists()


def _engine_objects() -> dict[str, str]:
    listings = {"containers": ["ps", "-aq"], "networks": ["network", "ls", "-q"], "volumes": ["volume", "ls", "-q"]}
    return {
        what: subprocess.run(["docker", *argv], capture_output=True, text=True, check=True).stdout
        for what, argv in listings.items()
    }
