"""A lab's backup is one file with the store's state and the keys; a new lab begins with both."""

import tarfile

import pytest

from deploy import backups, pki, state
from deploy.choices import Choices
from deploy.configs import render_store
from deploy.errors import UsageError
from deploy.hosts.base import Result
from deploy.lab import Lab, plan_hosts
from raft_store.machine import Machine
from raft_store.mvcc.lease import LeaseClock
from tests.unit.raft_store.tool.test_offline import saved

SUBNET = "10.89.7.0/24"


def lab(name, **options):
    hosts = plan_hosts(SUBNET, masters=2, nodes=1)
    return Lab(name=name, driver="containers", engine="native", subnet=SUBNET, hosts=hosts, **options)


class Driver:
    """Masters that keep some backups."""

    def __init__(self, kept):
        self.kept = kept

    def states(self):
        return dict.fromkeys(self.kept, "running") | {"entry": "running", "node1": "running", "master2": "stopped"}

    def execute(self, host, argv):
        assert argv[:2] == ["find", "/var/lib/trireme/backups"]
        return Result(0, self.kept[host.name])

    def terminal_argv(self, host, argv, *, tty, stdin):
        return ["cat", argv[1].replace("/var/lib/trireme/backups", self.folder)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIREME_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_backup_carries_state_and_keys_into_a_new_lab(home, monkeypatch):
    old, new = lab("old"), lab("new", from_snapshot=True)
    pki.ensure(old)
    monkeypatch.setattr(
        backups,
        "environment",
        lambda name, argv: (saved(Machine(LeaseClock(lambda: 0.0)), home / "s"), {"ETCDCTL_ENDPOINTS": "x"})[1],
    )
    monkeypatch.setattr(backups, "_run_tool", lambda argv, variables: (home / "s").rename(argv[-1]))
    made = backups.make(old, home / "b.tar")
    monkeypatch.undo()
    monkeypatch.setenv("TRIREME_HOME", str(home / "home"))
    assert made.stat().st_mode & 0o777 == 0o600
    with tarfile.open(made) as archive:
        names = archive.getnames()
    assert names[0] == "store.snapshot"
    assert {"pki/ca.key", "pki/ca.crt", "pki/sa.key", "pki/sa.pub"} <= set(names)
    assert not any("admin" in name for name in names)
    backups.unpack(made, new)
    pki.ensure(new)
    for key in ("ca.crt", "ca.key", "sa.key", "sa.pub"):
        assert (state.lab_folder("new") / "pki" / key).read_bytes() == (
            state.lab_folder("old") / "pki" / key
        ).read_bytes()
    for master in new.masters:
        assert (state.host_folder("new", master.name) / "initial.snapshot").is_file()
        assert 'initial_snapshot = "/etc/trireme/initial.snapshot"' in render_store(new, master)
    assert "initial_snapshot" not in render_store(old, old.masters[0])
    assert not list(home.glob("*.part"))


def test_a_bare_snapshot_does_and_anything_else_does_not(home):
    snapshot = saved(Machine(LeaseClock(lambda: 0.0)), home / "s")
    backups.unpack(snapshot, lab("new"))
    assert (state.host_folder("new", "master1") / "initial.snapshot").read_bytes() == snapshot.read_bytes()
    (home / "text").write_text("no snapshot")
    with pytest.raises(UsageError, match="no backup that a lab can begin with"):
        backups.unpack(home / "text", lab("other"))
    with pytest.raises(UsageError, match="there is no file"):
        backups.unpack(home / "nothing", lab("other"))


def test_the_masters_backups_are_listed_and_fetched(home):
    name = "20261126T154500Z-r000000000001.snapshot"
    snapshot = saved(Machine(LeaseClock(lambda: 0.0)), home / name)
    driver = Driver({"master1": f"{name} {snapshot.stat().st_size}\nhalf.part 7\n"})
    driver.folder = str(home)
    old = lab("old")
    pki.ensure(old)
    (kept,) = backups.listed(old, driver)
    assert (kept.host, kept.name, kept.size_bytes) == ("master1", name, snapshot.stat().st_size)
    fetched = backups.fetch(old, driver, "", home / "f.tar")
    with tarfile.open(fetched) as archive:
        assert archive.extractfile("store.snapshot").read() == snapshot.read_bytes()
    with pytest.raises(UsageError, match="no running master"):
        backups.fetch(old, driver, "another", None)


def test_only_a_new_lab_begins_with_a_snapshot(home):
    choices = Choices(name="old", from_snapshot=home / "s")
    assert choices.new_lab(SUBNET).from_snapshot
    with pytest.raises(UsageError, match="has data already"):
        choices.change(lab("old", complete=True))
    with pytest.raises(UsageError, match="native engine"):
        Choices(name="old", from_snapshot=home / "s", engine="raftos").new_lab(SUBNET)
