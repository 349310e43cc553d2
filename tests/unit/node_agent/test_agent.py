"""A whole agent without containers: hollow runtime, API in memory, everything between them real."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from msgspec.structs import replace

from api.errors import Invalid, Unavailable
from api.kinds.coordination import Lease
from api.kinds.core import ConfigMap, Event, Namespace, Node
from api.kinds.pods import Pod, ResourceRequirements
from api.kinds.runtime import RuntimeClass
from api.meta import ObjectMeta
from node_agent.config import NodeConfig
from node_agent.http import PUBLIC
from node_agent.program import Agent
from node_agent.runtime.base import Container, ContainerConfig, Image, PullFailed, SandboxConfig, State
from node_agent.server import NodeAgentService, serve
from tests.fakes.resources import MemoryResources
from trireme_pb.node import node_pb2, node_pb2_grpc

NODE = "hollow-1"


class Lab:
    def __init__(self, api: MemoryResources, agent: Agent) -> None:
        self.api = api
        self.agent = agent
        self.runtime: Any = agent._runtime

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(15):
            while not (value := condition()):
                await self.api._changed.wait()
            return value

    async def create(self, name: str, **spec: Any) -> None:
        document = {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "i"}], **spec},
        }
        await self.api.create(msgspec.convert(document, Pod))

    def pod(self, name: str) -> Pod:
        found = self.api.find(Pod, name, "default")
        assert found is not None
        return found

    def is_ready(self, name: str) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.pod(name).status.conditions)


@contextlib.asynccontextmanager
async def running(api: MemoryResources, directory: Path) -> AsyncIterator[Lab]:
    config = NodeConfig(
        name=NODE,
        address="127.0.0.1",
        masters=("127.0.0.1:1",),
        listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        data_dir=directory,
        runtime="hollow",
        heartbeat_s=0.05,
    )
    agent = Agent(config, api)
    task = asyncio.create_task(agent.run())
    lab = Lab(api, agent)
    await lab.until(lambda: api.find(Node, NODE) or task.done())
    node = api.find(Node, NODE)
    assert node is not None, task
    if not node.spec.pod_cidr:
        await api.update(replace(node, spec=replace(node.spec, pod_cidr="10.244.3.0/24")))
    try:
        yield lab
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    api = MemoryResources()
    await api.create(Namespace(metadata=ObjectMeta(name="default")))
    async with running(api, tmp_path) as lab:
        yield lab


async def test_the_node_becomes_ready_when_it_has_a_pod_cidr(lab: Lab) -> None:
    def ready() -> str:
        node = lab.api.find(Node, NODE)
        return next(c.status for c in node.status.conditions if c.type == "Ready")

    await lab.until(lambda: ready() == "True")
    node = lab.api.find(Node, NODE)
    assert node.metadata.labels["kubernetes.io/hostname"] == NODE
    assert int(node.status.capacity["cpu"]) >= 1
    assert node.status.node_info.container_runtime_version == "hollow://1.0.0"


async def test_heartbeats_renew_the_lease(lab: Lab) -> None:
    def renewed() -> str:
        lease = lab.api.find(Lease, NODE, "kube-node-lease")
        return lease.spec.renew_time if lease else ""

    first = await lab.until(renewed)
    await lab.until(lambda: renewed() > first)


async def test_a_node_that_was_deleted_registers_again(lab: Lab) -> None:
    await lab.until(lambda: lab.api.find(Lease, NODE, "kube-node-lease"))
    uid = lab.api.find(Node, NODE).metadata.uid
    await lab.api.delete(Node, NODE)
    lab.agent._registrar.refresh()
    node = await lab.until(lambda: (node := lab.api.find(Node, NODE)) and node.metadata.uid != uid and node)

    def owners() -> list[str]:
        return [owner.uid for owner in lab.api.find(Lease, NODE, "kube-node-lease").metadata.owner_references]

    await lab.until(lambda: owners() == [node.metadata.uid])


async def test_an_image_that_is_put_right_is_tried_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pull(name: str, credentials: object) -> Image:
        if name == "wrong":
            raise PullFailed("no such image")
        return Image(id=name)

    monkeypatch.setattr(lab.runtime, "pull", pull)
    await lab.create("web", containers=[{"name": "main", "image": "wrong", "imagePullPolicy": "Always"}])

    def waits() -> bool:
        state = next((each.state for each in lab.pod("web").status.container_statuses), None)
        return bool(state and state.waiting and state.waiting.reason == "ErrImagePull")

    await lab.until(waits)
    worker = lab.agent._manager.find("default", "web")
    (failure,) = worker._failures.values()
    worker._failures["main"] = replace(failure, retry_at=failure.retry_at + 1000)
    right = {"spec": {"containers": [{"name": "main", "image": "right", "imagePullPolicy": "Always"}]}}
    await lab.api.patch(Pod, "web", right, namespace="default")
    await lab.until(lambda: lab.is_ready("web"))


async def test_a_runtime_class_chooses_among_the_engines_runtimes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[str] = []
    create_sandbox, create_container = lab.runtime.create_sandbox, lab.runtime.create_container

    async def sandbox(config: SandboxConfig) -> str:
        handlers.append(config.handler)
        return await create_sandbox(config)

    async def container(sandbox_id: str, config: ContainerConfig) -> str:
        handlers.append(config.handler)
        return await create_container(sandbox_id, config)

    monkeypatch.setattr(lab.runtime, "create_sandbox", sandbox)
    monkeypatch.setattr(lab.runtime, "create_container", container)
    await lab.api.create(RuntimeClass(metadata=ObjectMeta(name="kata"), handler="kata-qemu"))
    await lab.create("web", runtimeClassName="kata")
    await lab.until(lambda: lab.is_ready("web"))
    assert handlers == ["kata-qemu", "kata-qemu"]
    await lab.create("lost", runtimeClassName="none")
    await lab.until(lambda: any('RuntimeClass "none" not found' in e.message for e in lab.api.all(Event)))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "SysctlForbidden"),
        ({"os": {"name": "windows"}}, "PodOSNotSupported"),
    ],
)
async def test_what_the_node_does_not_take_fails_at_once(lab: Lab, asked: dict[str, Any], reason: str) -> None:
    safe = [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]
    await lab.create("taken", securityContext={"sysctls": safe}, os={"name": "linux"})
    await lab.create("refused", **asked)
    await lab.until(lambda: lab.pod("refused").status.phase == "Failed")
    assert lab.pod("refused").status.reason == reason
    await lab.until(lambda: any(e.reason == reason for e in lab.api.all(Event)))
    await lab.until(lambda: lab.is_ready("taken"))


def with_port(cpu: str = "0") -> list[dict[str, Any]]:
    port = {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"}
    return [{"name": "main", "image": "i", "ports": [port], "resources": {"requests": {"cpu": cpu}}}]


async def test_a_port_of_the_node_is_for_one_pod_until_that_has_ended(lab: Lab) -> None:
    """Bound by hand: the scheduler would have kept them apart."""
    await lab.create("first", containers=with_port())
    await lab.until(lambda: lab.is_ready("first"))
    await lab.create("second", containers=with_port())
    await lab.until(lambda: lab.pod("second").status.phase == "Failed")
    status = lab.pod("second").status
    assert (status.reason, status.container_statuses) == ("NodePorts", ())
    assert status.message.startswith("Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports")
    await lab.until(lambda: any(e.reason == "NodePorts" for e in lab.api.all(Event)))
    await lab.api.delete(Pod, "first", namespace="default")
    await lab.until(lambda: lab.api.find(Pod, "first", "default") is None)
    await lab.create("third", containers=with_port())
    await lab.until(lambda: lab.is_ready("third"))
    assert lab.pod("second").status.phase == "Failed"


async def test_of_pods_that_come_together_only_as_many_are_let_in_as_there_is_room_for(lab: Lab) -> None:
    cores = int(lab.agent._manager._around.limits.allocatable["cpu"])
    names = [f"p{n}" for n in range(3)]
    for name in names:
        await lab.create(name, containers=[{**with_port(cpu=str(cores))[0], "ports": []}])
    await lab.until(lambda: [lab.pod(name).status.phase for name in names].count("Failed") == 2)
    await lab.until(lambda: sum(lab.is_ready(name) for name in names) == 1)
    assert {lab.pod(name).status.reason for name in names} == {"", "OutOfcpu"}


async def test_who_was_let_in_before_the_agent_began_again_keeps_its_port(tmp_path: Path) -> None:
    api = MemoryResources()
    await api.create(Namespace(metadata=ObjectMeta(name="default")))
    async with running(api, tmp_path) as lab:
        await lab.create("first", containers=with_port())
        await lab.until(lambda: lab.is_ready("first"))
    await lab.create("a-newcomer", containers=with_port())  # looked at first; a hollow runtime remembers nothing
    async with running(api, tmp_path) as lab:
        await lab.until(lambda: lab.pod("a-newcomer").status.phase == "Failed")
        assert lab.pod("a-newcomer").status.reason == "NodePorts"
        await lab.until(lambda: lab.is_ready("first"))


async def test_who_was_let_in_before_the_agent_began_again_is_not_judged_anew(tmp_path: Path) -> None:
    """The label went meanwhile: whoever runs stays, also when the engine has forgotten it."""
    api = MemoryResources()
    await api.create(Namespace(metadata=ObjectMeta(name="default")))
    async with running(api, tmp_path) as lab:
        await lab.until(lambda: lab.agent._registrar.registered.is_set() or None)
        await api.patch(Node, NODE, {"metadata": {"labels": {"disk": "ssd"}}})
        await lab.create("stays", nodeSelector={"disk": "ssd"})
        await lab.until(lambda: lab.is_ready("stays"))
    await api.patch(Node, NODE, {"metadata": {"labels": {"disk": None}}})
    async with running(api, tmp_path) as lab:
        await lab.until(lambda: lab.agent._registrar.registered.is_set() or None)
        await lab.create("comes", nodeSelector={"disk": "ssd"})
        await lab.until(lambda: lab.pod("comes").status.phase == "Failed")
        await lab.until(lambda: lab.is_ready("stays"))


async def test_a_label_that_was_written_a_moment_ago_counts(lab: Lab) -> None:
    await lab.until(lambda: lab.agent._registrar.registered.is_set() or None)
    await lab.api.patch(Node, NODE, {"metadata": {"labels": {"disk": "ssd"}}})
    await lab.create("here", nodeSelector={"disk": "ssd"})
    await lab.create("elsewhere", nodeSelector={"disk": "hdd"})
    await lab.until(lambda: lab.is_ready("here"))
    await lab.until(lambda: lab.pod("elsewhere").status.phase == "Failed")
    assert lab.pod("elsewhere").status.reason == "NodeAffinity"


async def test_pages_are_for_masters_and_anybody_may_read_the_figures(lab: Lab, tmp_path: Path) -> None:
    env = [{"name": "PASSWORD", "value": "hidden"}]
    await lab.create("web", containers=[{"name": "main", "image": "i", "env": env}])
    await lab.until(lambda: lab.is_ready("web"))
    pages, address = lab.agent._pages(), f"unix:{tmp_path}/node.sock"
    service = NodeAgentService(lab.agent._manager, lab.runtime, lab.agent._statistics, pages, secure=False)
    stop = await serve(service, address, None)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = node_pb2_grpc.NodeAgentStub(channel)
        parts = [part async for part in stub.Page(node_pb2.PageRequest(path="/pods"))]
        shown = msgspec.json.decode(b"".join(part.data for part in parts))
        assert (parts[0].content_type, shown["items"][0]["spec"]["containers"][0]["env"]) == ("application/json", env)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Page(node_pb2.PageRequest(path="/other")).read()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    await stop()
    assert set(pages) == {"/healthz", "/metrics", "/pods", "/runningpods", "/runningpods/", "/stats/summary"}
    assert {path for path in pages if path in PUBLIC} == {"/healthz", "/metrics"}


async def test_a_pod_comes_and_goes(lab: Lab) -> None:
    probe = {"httpGet": {"port": 80}}
    await lab.create("web", containers=[{"name": "main", "image": "i", "readinessProbe": probe}])
    await lab.until(lambda: lab.is_ready("web"))
    assert lab.pod("web").status.pod_ip == "10.244.3.2"
    await lab.until(lambda: {"Created", "Started"} <= {event.reason for event in lab.api.all(Event)})
    await lab.api.delete(Pod, "web", namespace="default")
    await lab.until(lambda: lab.api.find(Pod, "web", "default") is None)
    assert list(await lab.runtime.containers()) == list(await lab.runtime.sandboxes()) == []


async def test_a_name_that_returns_is_another_pod(lab: Lab) -> None:
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    first = lab.pod("web").metadata.uid
    await lab.api.delete(Pod, "web", namespace="default", grace_period_s=0)
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    assert lab.pod("web").metadata.uid != first
    async with asyncio.timeout(10):
        while {c.pod.uid for c in await lab.runtime.containers()} != {lab.pod("web").metadata.uid}:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def test_an_instance_that_ends_is_replaced_and_counted(lab: Lab) -> None:
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    (container,) = await lab.runtime.containers()
    lab.runtime.end(container.id, exit_code=3)
    await lab.until(lambda: lab.pod("web").status.container_statuses[0].restart_count == 1)
    status = await lab.until(lambda: (s := lab.pod("web").status.container_statuses[0]).state.running and s)
    assert status.last_state.terminated.exit_code == 3


async def resize(lab: Lab, cpu: str) -> None:
    found = lab.pod("web")
    (main,) = found.spec.containers
    limits = main.resources.limits if main.resources is not None else {}
    resources = ResourceRequirements(requests={"cpu": cpu}, limits=limits)
    spec = msgspec.structs.replace(found.spec, containers=(msgspec.structs.replace(main, resources=resources),))
    await lab.api.update(msgspec.structs.replace(found, spec=spec))


async def test_a_running_pod_is_resized_in_place(lab: Lab) -> None:
    await lab.create("web", containers=[{"name": "main", "image": "i", "resources": {"requests": {"cpu": "100m"}}}])
    await lab.until(lambda: lab.is_ready("web"))
    (before,) = await lab.runtime.containers()

    def told() -> dict[str, str]:
        (status,) = lab.pod("web").status.container_statuses
        return status.resources.requests if status.resources is not None else {}

    await resize(lab, "500m")
    await lab.until(lambda: told() == {"cpu": "500m"})
    (after,) = await lab.runtime.containers()
    assert (after.id, before.limits.cpu_shares, after.limits.cpu_shares) == (before.id, 102, 512)
    await resize(lab, "1000")
    await lab.until(lambda: any(c.type == "PodResizePending" for c in lab.pod("web").status.conditions))
    assert told() == {"cpu": "500m"}
    assert (await lab.runtime.containers())[0].limits.cpu_shares == 512


async def test_a_status_that_the_api_never_takes_keeps_no_pod_from_going(lab: Lab) -> None:
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    lab.api.refuse(Invalid("no"), verb="patch/status", name="web", times=1_000_000)
    await lab.api.delete(Pod, "web", namespace="default")
    await lab.until(lambda: lab.api.find(Pod, "web", "default") is None)


async def test_a_kernel_that_knows_no_memory_limits_makes_nothing_restart(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    containers = lab.runtime.containers

    async def shown(*of: str) -> list[Container]:
        return [replace(each, limits=replace(each.limits, memory_bytes=0)) for each in await containers(*of)]

    monkeypatch.setattr(lab.runtime, "containers", shown)
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    main = {"name": "main", "image": "i", "resources": {"limits": {"memory": "1Mi"}}, "resizePolicy": policy}
    await lab.create("web", containers=[main])
    await lab.until(lambda: lab.is_ready("web"))
    await resize(lab, "500m")
    await lab.until(lambda: any(each.reason == "ResizeCompleted" for each in lab.api.all(Event)))
    assert not any(each.reason == "Killing" for each in lab.api.all(Event))
    (only,) = lab.pod("web").status.container_statuses
    assert only.restart_count == 0


async def test_an_old_look_at_the_engine_starts_nothing_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is asked before a container exists and answers when it has been started."""
    looked, started = asyncio.Event(), asyncio.Event()
    runtime, creating = lab.runtime, False
    containers, create, start = runtime.containers, runtime.create_container, runtime.start_container

    async def answer_late(uid: str = "") -> Any:
        found = await containers(uid)
        if uid and creating and not looked.is_set():
            looked.set()
            await started.wait()
            ((_, worker),) = lab.agent._manager.pods()
            while worker._ops.busy:  # noqa: ASYNC110 - the operation ends before the answer arrives
                await asyncio.sleep(0)
        return found

    async def create_when_looked_at(sandbox_id: str, config: Any) -> str:
        nonlocal creating
        creating = True
        runtime._tell(config.pod.uid, "", "wake")
        await looked.wait()
        return await create(sandbox_id, config)

    async def start_and_tell(container_id: str) -> Any:
        container = await start(container_id)
        started.set()
        return container

    monkeypatch.setattr(runtime, "containers", answer_late)
    monkeypatch.setattr(runtime, "create_container", create_when_looked_at)
    monkeypatch.setattr(runtime, "start_container", start_and_tell)
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    ((_, worker),) = lab.agent._manager.pods()
    async with asyncio.timeout(10):
        while worker._ops.busy:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    assert [each.attempt for each in await containers()] == [0]


async def test_a_pod_waits_for_the_object_that_it_names(lab: Lab) -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    await lab.create("web", containers=[{"name": "main", "image": "i", "env": env}])

    def reason() -> str:
        statuses = lab.pod("web").status.container_statuses
        return statuses[0].state.waiting.reason if statuses and statuses[0].state.waiting else ""

    await lab.until(lambda: reason() == "CreateContainerConfigError")
    await lab.api.create(ConfigMap(metadata=ObjectMeta(name="late", namespace="default"), data={"a": "1"}))
    await lab.until(lambda: lab.is_ready("web"))


async def test_a_status_that_others_overrule_is_written_again(lab: Lab) -> None:
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    conditions = [
        {"type": c.type, "status": "False" if c.type == "Ready" else c.status} for c in lab.pod("web").status.conditions
    ]
    await lab.api.patch(Pod, "web", {"status": {"conditions": conditions}}, namespace="default", subresource="status")
    assert not lab.is_ready("web")
    await lab.until(lambda: lab.is_ready("web"))


async def test_masters_that_are_away_change_nothing_for_pods(lab: Lab) -> None:
    await lab.create("web")
    await lab.until(lambda: lab.is_ready("web"))
    for verb in ("patch", "patch/status", "list", "watch"):
        lab.api.refuse(Unavailable("no master"), verb=verb, times=3)
    lab.api.break_watches(Unavailable("no master"))
    (container,) = await lab.runtime.containers()
    lab.runtime.end(container.id, exit_code=1)
    # The new instance does not wait for the API, its status reaches the API when that is back.
    async with asyncio.timeout(10):
        while not any(c.attempt == 1 and c.state is State.RUNNING for c in await lab.runtime.containers()):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)
    await lab.until(lambda: lab.pod("web").status.container_statuses[0].restart_count == 1)


async def test_a_job_succeeds_and_gives_its_sandbox_back(lab: Lab) -> None:
    await lab.create("job", restartPolicy="Never")
    await lab.until(lambda: lab.is_ready("job"))
    (container,) = await lab.runtime.containers()
    lab.runtime.end(container.id, exit_code=0)
    await lab.until(lambda: lab.pod("job").status.phase == "Succeeded")
    async with asyncio.timeout(10):
        while (await lab.runtime.sandboxes())[0].running:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def test_a_pod_past_its_deadline_fails(lab: Lab) -> None:
    await lab.create("slow", activeDeadlineSeconds=1)
    await lab.until(lambda: lab.pod("slow").status.phase == "Failed")
    assert lab.pod("slow").status.reason == "DeadlineExceeded"


async def test_pods_of_a_dead_lab_are_removed(tmp_path: Path) -> None:
    api = MemoryResources()
    (tmp_path / "pods" / "some-uid" / "etc").mkdir(parents=True)
    async with running(api, tmp_path):
        async with asyncio.timeout(10):
            while list((tmp_path / "pods").iterdir()):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
