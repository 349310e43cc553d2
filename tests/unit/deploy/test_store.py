"""The store's tools know a lab's store, and need a lab only where they ask one."""

import pytest

from deploy import store
from deploy.errors import DeployError


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["members"], True),
        (["status", "-o", "json"], True),
        (["snapshot", "save", "file"], True),
        (["raft", "--live"], True),
        (["raft", "--seed", "3"], False),
        (["snapshot", "status", "file"], False),
        (["snapshot", "restore", "file"], False),
        (["check", "dir"], False),
        (["status", "--endpoints=a:1"], False),
        (["status", "--help"], False),
        (["snapshot", "save", "-h"], False),
    ],
)
def test_who_needs_a_lab(arguments, needed, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIREME_HOME", str(tmp_path))
    assert store.needs_a_lab(arguments) is needed
    if needed:
        with pytest.raises(DeployError, match="no lab called 'nowhere'"):
            store.environment("nowhere", arguments)
    else:
        assert store.environment("nowhere", arguments) == {}


def test_on_a_host_the_hosts_own_python_runs_it():
    assert store.on_host(["check", "/var/lib/trireme/store"]) == [
        "/opt/trireme/venv/bin/python",
        "-P",
        "-m",
        "raft_store.tool",
        "check",
        "/var/lib/trireme/store",
    ]
