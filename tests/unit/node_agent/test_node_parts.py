"""Configuration, static manifests, the Node's status, cgroup figures, identities, image names."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.kinds.core import Secret
from api.meta import ObjectMeta
from node_agent.config import BadConfig, load_config
from node_agent.connectivity import join_backends
from node_agent.pods.images import find_credentials, pull_failure, pull_policy
from node_agent.pods.static import read_manifest, read_manifests
from node_agent.registration import Facts, Health, Registrar, System, differs, plan_allocatable, render_status
from node_agent.runtime.base import (
    Container,
    ContainerConfig,
    Credentials,
    Image,
    PodRef,
    RuntimeVersion,
    SandboxConfig,
    State,
)
from node_agent.runtime.docker_config import read_container, render_container, render_sandbox, unix_time
from node_agent.server import is_admitted
from node_agent.statistics import Cgroups, Pressure, Size, Statistics, Usage, cores_used
from tests.fakes.resources import MemoryResources

GIB = 1 << 30
GOOD = 'name = "n"\naddress = "10.0.0.1"\nmasters = ["10.0.0.2:6444"]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "oops = 1\n", "oops"),
        ('name = "n"\n', "address"),
        (GOOD + 'runtime = "podman"\n', "runtime"),
        (GOOD.replace('"10.0.0.2:6444"', ""), "masters"),
        (GOOD + 'listen = "nowhere"\n', "listen"),
        (GOOD + "heartbeat_s = 0.0\n", "heartbeat_s"),
        (GOOD + '[tls]\nca = "/no/ca"\ncert = "/no/c"\nkey = "/no/k"\n', "/no/ca"),
        ("name = ", "Invalid"),
    ],
)
def test_a_bad_file_is_named_with_its_field(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=complaint) as refused:
        load_config(path)
    assert str(path) in str(refused.value)


def test_a_good_file_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(GOOD)
    assert load_config(tmp_path / "node.toml").heartbeat_s == 1.0
    with pytest.raises(BadConfig, match="cannot be read"):
        load_config(tmp_path / "none.toml")


MANIFEST = b"kind: Pod\nmetadata: {name: fixed}\nspec: {containers: [{name: c, image: i}]}\n"


def test_a_static_pod_is_its_file(tmp_path: Path) -> None:
    pod = read_manifest(MANIFEST, "node1")
    assert (pod.metadata.name, pod.metadata.namespace, pod.spec.node_name) == ("fixed-node1", "default", "node1")
    assert read_manifest(MANIFEST, "node1").metadata.uid == pod.metadata.uid
    assert read_manifest(MANIFEST + b"\n", "node1").metadata.uid != pod.metadata.uid
    assert read_manifest(MANIFEST, "node2").metadata.uid != pod.metadata.uid
    for name, text in (
        ("a.yaml", MANIFEST),
        ("b.yaml", b"{"),
        ("c.json", b"[]"),
        ("d.txt", MANIFEST),
        (".e.yaml", MANIFEST),
    ):
        (tmp_path / name).write_bytes(text)
    assert [each.metadata.name for each in read_manifests(tmp_path, "n")] == ["fixed-n"]
    assert read_manifests(tmp_path / "none", "n") == []


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_LIKE = "{matchExpressions: [{key: disk, operator: Like}]}"


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (f"affinity: {{nodeAffinity: {{{_REQUIRED}: {{nodeSelectorTerms: [{_LIKE}]}}}}}}", r"operator: .*Like"),
        ("overhead: {cpu: '-1'}", r"spec\.overhead"),
        ("hostNetwork: true, restartPolicy: Never", ""),
    ],
)
def test_a_static_pod_that_the_masters_would_refuse_is_left_out(spec: str, complaint: str) -> None:
    text = MANIFEST.replace(b"i}]", b"i, ports: [{containerPort: 80}]}], " + spec.encode())
    if not complaint:
        assert read_manifest(text, "n").metadata.name == "fixed-n"
        return
    with pytest.raises(ValueError, match=complaint):
        read_manifest(text, "n")


def facts(*, memory: int = GIB, disk: int = 50 * GIB, pids: int = 10, problem: str = "") -> Facts:
    return Facts(
        name="node1",
        address="10.0.0.1",
        port=10250,
        max_pods=110,
        system=System(
            machine_id="m", system_uuid="s", boot_id="b", kernel="6.1", os_image="Debian", architecture="amd64"
        ),
        size=Size(cpus=2, memory_bytes=4 * GIB, disk_bytes=100 * GIB),
        runtime=RuntimeVersion("docker", "20.10.24", "/"),
        images=[Image(id=str(n), names=(f"i{n}",), size_bytes=n) for n in range(60)],
        health=Health(pressure=Pressure(memory, disk, 100 * GIB, pids, 1000), problem=problem),
    )


async def test_what_changes_while_a_status_is_written_is_written_next(monkeypatch: pytest.MonkeyPatch) -> None:
    api, problem = MemoryResources(), "no network yet"
    written: asyncio.Queue[str] = asyncio.Queue()

    async def look() -> Facts:
        return facts(problem=problem)

    async def patch(*args: Any, **more: Any) -> Any:
        nonlocal problem
        node = await MemoryResources.patch(api, *args, **more)
        if problem:
            problem = ""
            registrar.refresh()
        written.put_nowait(next(each.status for each in node.status.conditions if each.type == "Ready"))
        return node

    monkeypatch.setattr(api, "patch", patch)
    registrar = Registrar(
        api, lambda: asyncio.ensure_future(look()), name="node1", labels={}, heartbeat_s=1.0, clock=api.clock
    )
    keeping = asyncio.create_task(registrar._keep_status())
    async with asyncio.timeout(5):  # the next look of its own would come after ten
        while await written.get() != "True":
            pass
    keeping.cancel()


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (facts(), ""),
        (facts(memory=10 << 20), "MemoryPressure"),
        (facts(disk=GIB), "DiskPressure"),
        (facts(pids=950), "PIDPressure"),
    ],
)
def test_pressure(given: Facts, kind: str) -> None:
    status = render_status(given, (), 1e9)
    assert {c.type for c in status.conditions if c.status == "True"} == {"Ready"} | ({kind} if kind else set())
    assert len(status.images) == 50
    assert status.images[0].names == ("i59",)
    assert status.allocatable["memory"] == f"{(4 * GIB - (100 << 20)) // 1024}Ki"


def test_readiness_keeps_its_time_and_says_why() -> None:
    first = render_status(facts(), (), 1e9)
    again = render_status(facts(), first.conditions, 1e9 + 60)
    assert not differs(first, again)
    assert again.conditions[3].last_transition_time == first.conditions[3].last_transition_time
    down = render_status(facts(problem="container runtime is down"), again.conditions, 1e9 + 70)
    assert differs(again, down)
    ready = down.conditions[3]
    assert (ready.status, ready.message) == ("False", "container runtime is down")
    assert ready.last_transition_time != first.conditions[3].last_transition_time


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def container(pid: int) -> Container:
    return Container(
        id="c1", pod=PodRef("d", "p", "u"), name="c", attempt=0, sandbox_id="s", state=State.RUNNING, image="i", pid=pid
    )


def test_figures_of_cgroup_version_1_inside_a_container(tmp_path: Path) -> None:
    sys, proc = tmp_path / "sys", tmp_path / "proc"
    mounts = "".join(
        f"30 25 0:2{n} /docker/host1 {sys}/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(("cpuacct", "memory"))
    )
    tree(
        proc,
        {
            "self/mountinfo": mounts,
            "7/cgroup": "4:memory:/docker/host1/docker/c1\n2:cpuacct:/docker/host1/docker/c1\n0::/x\n",
        },
    )
    tree(
        sys,
        {
            "cpuacct/cpuacct.usage": "9000000000",
            "memory/memory.usage_in_bytes": "1000",
            "memory/memory.stat": "total_inactive_file 200\n",
            "cpuacct/docker/c1/cpuacct.usage": "2500000000",
            "memory/docker/c1/memory.usage_in_bytes": "500",
            "memory/docker/c1/memory.stat": "cache 1\ntotal_inactive_file 100\ntotal_rss 50\ntotal_pgfault 9\ntotal_pgmajfault 2\n",
            "memory/memory.limit_in_bytes": str(2 * GIB),
        },
    )
    cgroups = Cgroups(sys, proc)
    assert cgroups.node() == Usage(9.0, 800, 1000)
    assert cgroups.container(7) == Usage(2.5, 400, 500, 50, 9, 2)
    assert cgroups.container(8) is None
    assert (cgroups.memory_limit_bytes(), cgroups.cpu_limit()) == (2 * GIB, None)


def test_figures_of_cgroup_version_2(tmp_path: Path) -> None:
    sys, proc = tmp_path / "sys", tmp_path / "proc"
    tree(proc, {"self/mountinfo": f"30 25 0:26 / {sys} rw - cgroup2 cgroup2 rw\n", "7/cgroup": "0::/docker/c1\n"})
    tree(
        sys,
        {
            "cgroup.controllers": "cpu memory",
            "cpu.max": "150000 100000",
            "memory.max": "max",
            "docker/c1/cpu.stat": "usage_usec 3500000\nuser_usec 1\n",
            "docker/c1/memory.current": "900",
            "docker/c1/memory.stat": "inactive_file 300\nanon 200\npgfault 9\npgmajfault 2\n",
        },
    )
    cgroups = Cgroups(sys, proc)
    assert cgroups.node() is None  # the real root does not say; psutil does
    assert cgroups.container(7) == Usage(3.5, 600, 900, 200, 9, 2)
    assert (cgroups.memory_limit_bytes(), cgroups.cpu_limit()) == (None, 1.5)
    statistics = Statistics(tmp_path, cgroups)
    assert statistics.window is None
    statistics.sample([container(7)])
    statistics.sample([container(7), container(0)])
    before, after = statistics.window
    assert after.containers == {"c1": Usage(3.5, 600, 900, 200, 9, 2)} == before.containers
    assert after.node.working_set_bytes > 0


def test_rates() -> None:
    assert cores_used(Usage(1, 0), Usage(3, 0), 4) == 0.5
    assert cores_used(None, Usage(3, 0), 4) == 0
    assert cores_used(Usage(3, 0), Usage(1, 0), 4) == 0  # restarted in between


@pytest.mark.parametrize(
    ("groups", "admitted"),
    [(("system:masters",), True), (("others", "system:masters"), True), (("system:nodes",), False), ((), False)],
)
def test_who_is_answered(groups: tuple[str, ...], *, admitted: bool) -> None:
    """A name alone, even a master's, opens nothing."""
    assert is_admitted(frozenset(groups)) == admitted


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a", "Always"),
        ("r:5000/a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
    ],
)
def test_pull_policies(image: str, policy: str) -> None:
    assert pull_policy("", image) == policy
    assert pull_policy("Never", image) == "Never"


def test_credentials_are_found_by_registry() -> None:
    auth = base64.b64encode(b"me:word").decode()
    auths = {
        "auths": {"r.example:5000": {"auth": auth}, "https://index.docker.io/v1/": {"username": "hub", "password": "p"}}
    }
    secret = Secret(
        metadata=ObjectMeta(name="s"), data={".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()}
    )
    broken = Secret(metadata=ObjectMeta(name="b"), data={".dockerconfigjson": "!!"})
    assert find_credentials("r.example:5000/a:1", [broken, secret]) == Credentials("me", "word")
    assert find_credentials("library/a", [secret]) == Credentials("hub", "p")
    assert find_credentials("other.example/a", [secret]) is None


def test_pulls_back_off_to_five_minutes() -> None:
    failure, delays = None, []
    for _ in range(7):
        failure = pull_failure("i", "no", before=failure, now=0)
        delays.append(failure.delay_s)
    assert delays == [10, 20, 40, 80, 160, 300, 300]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:01.123456789Z", 1.123456),
        ("1970-01-01T01:00:02+01:00", 2),
        ("1970-01-01T01:00:02.25+01:00", 2.25),
    ],
)
def test_the_engines_times(text: str, seconds: float) -> None:
    assert unix_time(text) == pytest.approx(seconds)


def test_no_backends_at_all() -> None:
    assert join_backends((), ()) == {}


def test_what_others_say_that_a_node_has_may_be_asked_for() -> None:
    own = render_status(facts(), (), 1e9)
    assert plan_allocatable(own) == {}, "what is reserved stays reserved"
    more = msgspec.structs.replace(own, capacity={**own.capacity, "example.com/gpu": "4"})
    assert plan_allocatable(more) == {"example.com/gpu": "4"}
    less = msgspec.structs.replace(own, allocatable={**own.allocatable, "example.com/gpu": "4"})
    assert plan_allocatable(less) == {"example.com/gpu": None}


@pytest.mark.parametrize(("handler", "runtime"), [("", None), ("docker", None), ("runsc", "runsc")])
def test_which_of_the_engines_runtimes_is_asked_for(handler: str, runtime: str | None) -> None:
    ref = PodRef("default", "web", "uid")
    sandbox = render_sandbox(SandboxConfig(pod=ref, attempt=0, handler=handler), image="i", agent="a")
    config = ContainerConfig(pod=ref, name="c", attempt=0, image="i", handler=handler)
    container = render_container("s", config, agent="a")
    assert [each["HostConfig"].get("Runtime") for each in (sandbox, container)] == [runtime, runtime]


NEVER, LATELY = "0001-01-01T00:00:00Z", "2027-01-15T08:00:00.5Z"


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"Status": "created"}, State.CREATED),
        ({"Status": "created", "Error": "no such file", "ExitCode": 127}, State.EXITED),
        ({"Status": "running", "Running": True, "StartedAt": LATELY}, State.RUNNING),
        ({"Status": "exited", "StartedAt": LATELY}, State.EXITED),
        ({"Status": "removing"}, State.CREATED),
        ({"Status": "dead"}, State.CREATED),
        ({"Status": "removing", "StartedAt": LATELY, "ExitCode": 137}, State.EXITED),
    ],
)
def test_where_a_container_stands(told: dict[str, Any], state: State) -> None:
    config = ContainerConfig(pod=PodRef("default", "web", "uid"), name="c", attempt=0, image="i")
    labels = render_container("s", config, agent="a")["Labels"]
    document = {
        "Id": "c",
        "Image": "sha256:i",
        "Created": LATELY,
        "Config": {"Image": "i", "Labels": labels},
        "State": {"StartedAt": NEVER, "FinishedAt": NEVER, "ExitCode": 0, **told},
    }
    assert read_container(document).state is state
