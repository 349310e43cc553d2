"""Labs of container hosts, brought up, broken and taken down by the command line itself.

Nothing here waits for masters or nodes to be ready: these are the hosts' own promises. Every test ends with a look at
everything that a lab may leave behind.
"""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
TRIREME = [sys.executable, "-P", "-m", "deploy"]
LABEL = "trireme.lab"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env()) as client:
        yield client


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trireme-home")


class Lab:
    """One lab of the test's own, and the command line to drive it with."""

    def __init__(self, name: str, home: Path, engine: docker.DockerClient) -> None:
        self.name, self.home, self.engine = name, home, engine
        self.env = os.environ | {"TRIREME_HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def __call__(self, command: str, *arguments: str, status: int = 0) -> str:
        name = [] if command == "list" else ["--name", self.name]
        done = subprocess.run(
            [*TRIREME, command, *name, *arguments],
            env=self.env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def containers(self) -> dict[str, str]:
        """Return name -> identifier of the lab's containers, whatever their state."""
        found = self.engine.api.containers(all=True, filters={"label": f"{LABEL}={self.name}"})
        return {container["Labels"]["trireme.host"]: container["Id"] for container in found}

    def states(self) -> dict[str, str]:
        report = json.loads(self("status", "--output", "json"))
        return {row["name"]: row["host"] for row in report["masters"] + report["nodes"]} | {"entry": report["entry"]}

    def address(self, host: str) -> str:
        record = json.loads((self.home / "labs" / self.name / "lab.json").read_text())
        return next(entry["address"] for entry in record["hosts"] if entry["name"] == host)

    def leftovers(self) -> list[str]:
        mine = {"label": f"{LABEL}={self.name}"}
        left = [f"container {host}" for host in self.containers()]
        left += [f"volume {volume.name}" for volume in self.engine.volumes.list(filters=mine)]
        left += [f"network {network.name}" for network in self.engine.networks.list(filters=mine)]
        folder = self.home / "labs" / self.name
        return left + ([str(folder)] if folder.exists() else [])


def rules_of_this_machine() -> list[str]:
    """Return the machine's iptables rules without counters and times."""
    text = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return sorted(line.split(" [")[0] for line in text.splitlines() if not line.startswith("#"))


@pytest.fixture(scope="module")
def labs(engine: docker.DockerClient, home: Path) -> Iterator[Callable[[str], Lab]]:
    made: list[Lab] = []

    def make(suffix: str) -> Lab:
        made.append(Lab(f"hosts{suffix}-{os.getpid()}", home, engine))
        return made[-1]

    yield make
    for lab in made:
        if lab.leftovers():
            lab("down")


@pytest.fixture(scope="module")
def lab(labs: Callable[[str], Lab]) -> Lab:
    made = labs("")
    made("up", "--masters", "3", "--nodes", "2", "--no-wait")
    return made


def eventually(check: Callable[[], bool], *, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while not (held := check()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def reaches(lab: Lab, host: str, target: str, port: int) -> bool:
    """Return whether ``host`` gets any answer from ``target``: a refused connection is one, silence is none."""
    script = f"timeout 1 bash -c '</dev/tcp/{lab.address(target)}/{port}'; test $? -ne 124"
    command = [*TRIREME, "ssh", "--name", lab.name, host, script]
    return subprocess.run(command, env=lab.env, cwd="/", capture_output=True, check=False).returncode == 0


def test_every_host_runs_and_knows_the_others_by_name(lab: Lab) -> None:
    assert set(lab.states()) == {"entry", "master1", "master2", "master3", "node1", "node2"}
    assert set(lab.states().values()) == {"running"}
    for host in ("entry", "master1", "node2"):
        assert lab("ssh", host, "getent", "hosts", "master2").split()[0] == lab.address("master2")
        assert lab("ssh", host, "hostname").strip() == host


def test_masters_run_no_engine_and_nodes_one_of_their_own(lab: Lab) -> None:
    assert "dockerd" not in lab("ssh", "master1", "ps", "-eo", "comm")
    loaded = lambda: "trireme/tools:1" in lab("ssh", "node1", "docker images --format {{.Repository}}:{{.Tag}}")  # noqa: E731
    assert eventually(loaded)
    engines = {lab("ssh", node, "docker info --format {{.ID}}").strip() for node in ("node1", "node2")}
    assert len(engines | {lab.engine.info()["ID"]}) == 3


def test_a_nodes_engine_limits_what_it_runs(lab: Lab) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true"
    run = f"docker run --rm --network none --memory 64m trireme/tools:1 sh -c '{script}'"
    assert str(64 << 20) in lab("ssh", "node1", run)


def test_the_labs_image_serves_a_page_naming_its_host_and_stops_when_told(lab: Lab) -> None:
    lab("ssh", "node1", "docker run -d --name page --hostname pod-7 --network host trireme/tools:1 web --port 8099")
    lab("ssh", "node1", "docker run -d --name sandbox --network none trireme/tools:1 pause")
    page = f"curl -s http://{lab.address('node1')}:8099"
    assert eventually(lambda: "pod-7" in lab("ssh", "master1", f"{page}/ || true"))
    assert lab("ssh", "master1", f"{page}/healthz").strip() == "ok"
    began = time.monotonic()
    lab("ssh", "node1", "docker stop page sandbox && docker rm page sandbox")
    assert time.monotonic() - began < 8  # the grace period of either would be 10 s


def test_the_balancers_configuration_is_one(lab: Lab) -> None:
    lab("ssh", "entry", "haproxy", "-c", "-f", "/etc/trireme/haproxy.cfg")


def test_configuration_is_read_only_on_the_hosts(lab: Lab) -> None:
    lab("ssh", "master1", "touch", "/etc/trireme/master.toml", status=1)
    assert lab("ssh", "node1", "ls /etc/trireme/pki | grep -c -e ca.key -e sa.key || true").strip() == "0"


def test_exit_status_and_output_are_passed_on(lab: Lab) -> None:
    assert lab("ssh", "node1", "echo hello && exit 7", status=7).strip() == "hello"
    assert lab("ssh", "node1", "printf", "%s|", "two words", "$HOME").strip() == "two words|$HOME|"


def test_repeating_up_changes_nothing(lab: Lab) -> None:
    before = lab.containers()
    lab("up", "--no-wait")
    assert lab.containers() == before


def test_up_finishes_what_is_missing(lab: Lab) -> None:
    before = lab.containers()
    lab.engine.api.remove_container(before["node2"], force=True)
    assert lab.states()["node2"] == "absent"
    lab("start", "node2", status=1)
    lab("up", "--no-wait")
    after = lab.containers()
    assert after.pop("node2") != before.pop("node2")
    assert after == before


@pytest.mark.parametrize("host", ["master2", "node1"])
def test_killed_and_started_again_a_host_keeps_its_data(lab: Lab, host: str) -> None:
    lab("ssh", host, "echo kept > /var/lib/trireme/mark")
    lab("kill", host)
    assert lab.states()[host] == "stopped"
    lab("kill", host, status=1)
    assert "is stopped" in lab("ssh", host, "true", status=1)
    lab("start", host)
    assert lab.states()[host] == "running"
    assert lab("ssh", host, "cat /var/lib/trireme/mark").strip() == "kept"


def test_an_engine_answers_again_after_its_host_was_killed(lab: Lab) -> None:
    assert eventually(lambda: "trireme/tools" in lab("ssh", "node1", "docker images || true"))
    lab("kill", "node1")
    lab("start", "node1")
    assert eventually(lambda: "trireme/tools" in lab("ssh", "node1", "docker images 2>&1 || true"))


def test_paused_hosts_answer_nothing_until_resumed(lab: Lab) -> None:
    lab("pause", "master3")
    assert lab.states()["master3"] == "paused"
    assert "trireme resume master3" in lab("ssh", "master3", "true", status=1)
    lab("resume", "master3")
    assert lab.states()["master3"] == "running"


def test_a_killed_program_is_started_again(lab: Lab) -> None:
    pid = "pgrep -f 'haproxy -db'"
    before = lab("ssh", "entry", pid).split()
    lab("kill", "entry", "--program", "haproxy")
    assert eventually(lambda: lab("ssh", "entry", f"{pid} || true").split() not in ([], before))


def test_a_partition_cuts_both_ways_and_healing_leaves_no_rule(lab: Lab) -> None:
    assert reaches(lab, "master1", "master2", 22)
    lab("partition", "master1 | master2,master3")
    assert not reaches(lab, "master1", "master2", 22)
    assert not reaches(lab, "master3", "master1", 22)
    assert reaches(lab, "master2", "master3", 22)
    assert reaches(lab, "node1", "master1", 22)
    assert "Partitioned: master1, master2, master3" in lab("status")

    lab("partition", "node1")  # replaces the first one
    assert reaches(lab, "master1", "master2", 22)
    assert not reaches(lab, "node2", "node1", 22)

    lab("heal")
    assert reaches(lab, "node2", "node1", 22)
    for host in lab.containers():
        assert "TRIREME-FAULTS" not in lab("ssh", host, "iptables-save")


def test_an_image_of_this_machine_reaches_every_node(lab: Lab, engine: docker.DockerClient) -> None:
    repository = f"hosts-test-{os.getpid()}"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("mark"), io.BytesIO())
    # Two names for one image: each is loaded only under the name that was asked for.
    for tag in ("latest", "other"):
        engine.api.import_image_from_data(layer.getvalue(), repository=repository, tag=tag)
    try:
        assert "no image" in lab("load", "hosts-test-nothing:1", status=2)
        lab("load", repository)
    finally:
        for tag in ("latest", "other"):
            engine.images.remove(f"{repository}:{tag}")
    for node in ("node1", "node2"):
        assert lab("ssh", node, f"docker images --format '{{{{.Tag}}}}' {repository}").split() == ["latest"]
        lab("ssh", node, f"docker rmi {repository}")


def test_stopped_and_started_it_is_the_same_lab(lab: Lab) -> None:
    before = lab.containers()
    lab("stop")
    assert set(lab.states().values()) == {"stopped"}
    lab("start")
    assert set(lab.states().values()) == {"running"}
    assert lab.containers() == before


def test_a_second_lab_gets_a_network_of_its_own_and_down_leaves_the_first_alone(
    lab: Lab, labs: Callable[[str], Lab]
) -> None:
    before, rules = lab.containers(), rules_of_this_machine()
    second = labs("b")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    second("up", "--masters", "1", "--nodes", "0", "--no-wait", "--api-port", str(port))
    assert second.address("master1") != lab.address("master1")
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    assert second.name in second("list")
    second("up", "--nodes", "1", "--no-wait")
    assert set(second.containers()) == {"entry", "master1", "node1"}
    second("down")
    assert second.leftovers() == []
    assert rules_of_this_machine() == rules
    assert lab.containers() == before
    assert "no lab called" in second("down", status=2)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "TERM"])
def test_an_interrupted_up_leaves_nothing(labs: Callable[[str], Lab], end: signal.Signals) -> None:
    third = labs("c")
    # Its masters wait for a store that is nowhere, so that it never gets ready.
    arguments = ["--masters", "1", "--nodes", "1", "--store-endpoints", "192.0.2.250:2379"]
    # What a shell starts in the background ignores Ctrl-C, and if that is these tests, so does all that they start.
    command = ["env", "--default-signal=INT", *TRIREME, "up", "--name", third.name, *arguments]
    with subprocess.Popen(command, env=third.env, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        assert eventually(lambda: len(third.containers()) == 3, within_s=120)
        process.send_signal(end)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert third.leftovers() == []


def test_down_removes_a_lab_of_which_only_the_engine_knows(lab: Lab, labs: Callable[[str], Lab]) -> None:
    fourth = labs("d")
    fourth("up", "--masters", "1", "--nodes", "0", "--no-wait")
    subprocess.run(["rm", "-r", str(fourth.home / "labs" / fourth.name)], check=True)
    assert f"down --name {fourth.name}" in lab("list")
    fourth("down")
    assert fourth.leftovers() == []


def test_at_the_end_nothing_is_left(lab: Lab) -> None:
    lab("down")
    assert lab.leftovers() == []
