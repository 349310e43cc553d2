"""One lab for all end-to-end tests, brought up as a newcomer would and taken down at the end."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.checks import debian_kubectl

ROOT = Path(__file__).resolve().parents[2]


class Failed(AssertionError):
    """A command that should have succeeded."""


def run(*argv: str, timeout_s: float = 120, check: bool = True, text: str | None = None, **env: str) -> str:
    """Run a command and return its standard output; raises Failed with all that it printed."""
    done = subprocess.run(
        argv, cwd=ROOT, env=os.environ | env, input=text, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(argv)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


def until(what: str, condition: Callable[[], Any], *, timeout_s: float = 60) -> Any:
    """Return the first true value of ``condition``; what it raised last is part of the failure."""
    end, last = time.monotonic() + timeout_s, ""
    while time.monotonic() < end:
        try:
            if value := condition():
                return value
        except (Failed, subprocess.TimeoutExpired) as exc:
            last = str(exc)
        time.sleep(0.2)
    raise Failed(f"not within {timeout_s:.0f} s: {what}\n{last}")


class LabUnderTest:
    """A lab and the unmodified clients that drive it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kubectl_binary = "kubectl"

    def trireme(self, *args: str, timeout_s: float = 120, check: bool = True) -> str:
        """Run ``./trireme`` on this lab."""
        words = 2 if args[0] == "experiment" else 1
        return run("./trireme", *args[:words], "--name", self.name, *args[words:], timeout_s=timeout_s, check=check)

    @cached_property
    def env(self) -> dict[str, str]:
        """What ``./trireme env`` exports; the same for as long as the lab lives."""
        lines = run("bash", "-c", f'eval "$(./trireme env --name {self.name})" && env').splitlines()
        pairs = (line.partition("=") for line in lines)
        return {key: value for key, _, value in pairs if key == "KUBECONFIG" or key.startswith("ETCDCTL_")}

    def kubectl(self, *args: str, timeout_s: float = 60, check: bool = True, text: str | None = None) -> str:
        """Run kubectl against this lab."""
        kubeconfig = {"KUBECONFIG": self.env["KUBECONFIG"]}
        return run(self.kubectl_binary, *args, timeout_s=timeout_s, check=check, text=text, **kubeconfig)

    def get(self, *args: str) -> Any:
        """Return ``kubectl get ... -o json`` decoded."""
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def status(self) -> Any:
        """Return ``./trireme status -o json`` decoded."""
        return json.loads(self.trireme("status", "-o", "json"))

    def leader(self) -> str:
        """Return the name of the leading master; waits for an election under way."""

        def find() -> str:
            named = [each["name"] for each in self.status()["masters"] if each.get("role") == "leader"]
            return named[0] if len(named) == 1 else ""

        return str(until("exactly one master leads", find, timeout_s=20))

    def ready_pods(self, selector: str) -> list[Any]:
        """Return the pods that are Ready and not on their way out."""
        return [
            pod
            for pod in self.get("pods", "-l", selector)["items"]
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", [])
            )
        ]


@pytest.fixture(scope="session")
def lab() -> Iterator[LabUnderTest]:
    """Three masters and two nodes; TRIREME_E2E_LAB names one that is up already and stays so."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests need root: they bring up a lab")
    if existing := os.environ.get("TRIREME_E2E_LAB"):
        yield LabUnderTest(existing)
        return
    under_test = LabUnderTest("e2e")
    under_test.trireme("down", check=False)
    under_test.trireme("up", "--yes", timeout_s=900)
    yield under_test
    under_test.trireme("down")


@pytest.fixture(scope="session")
def old_kubectl() -> str:
    """Debian's kubectl 1.20, which speaks SPDY and validates on the client."""
    return os.environ.get("TRIREME_DEBIAN_KUBECTL") or str(debian_kubectl(Console(stderr=True)))
