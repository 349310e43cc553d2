"""What ``down`` leaves behind, measured against what was there before ``up``: nothing."""

import pytest

from tests.e2e.conftest import LabUnderTest, run, until

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(300)]


def _traces() -> dict[str, str]:
    """Return everything on this machine that a lab could leave."""
    return {
        "containers": run("docker", "ps", "-aq"),
        "networks": run("docker", "network", "ls", "-q"),
        "volumes": run("docker", "volume", "ls", "-q"),
        "rules": run("iptables-save", "-t", "filter", check=False).count("br-"),
        "bridges": run("bash", "-c", "ls /sys/class/net | grep -c ^br- || true"),
        "mounts": run("bash", "-c", "grep -c trireme /proc/mounts || true"),
        "processes": run("bash", "-c", "pgrep -fc 'python.* -m (raft_store|master|node_agent) ' || true"),
    }


def test_down_leaves_nothing_and_may_be_repeated():
    before = _traces()
    small = LabUnderTest("e2e-litter")
    small.trireme("up", "--yes", "--masters", "1", "--nodes", "1", timeout_s=300)
    small.trireme("up", "--yes", "--masters", "1", "--nodes", "1", timeout_s=300)
    assert _traces() != before
    small.trireme("down")
    small.trireme("down", check=False)
    until("every trace is gone", lambda: _traces() == before, timeout_s=15)
    assert "there is no lab called 'e2e-litter'" in small.trireme("status", check=False)
