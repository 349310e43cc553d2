"""One suite for every container runtime: what pods rely on, whatever runs them."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from node_agent.runtime.base import (
    Container,
    ContainerConfig,
    ContainerRuntime,
    Limits,
    LogOptions,
    NoSuchContainer,
    NotRunning,
    PodRef,
    SandboxConfig,
    State,
)
from node_agent.runtime.docker_runtime import DockerRuntime
from node_agent.runtime.hollow import HollowRuntime
from tests.docker.agents import IMAGE, ensure_image, remove_containers, remove_image

SLEEP = ("/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    made = ensure_image(tmp_path_factory.mktemp("image"))
    yield
    if made:
        remove_image()


@pytest.fixture(params=["hollow", pytest.param("docker", marks=pytest.mark.docker)])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[ContainerRuntime]:
    if request.param == "hollow":
        yield HollowRuntime()
        return
    request.getfixturevalue("image")
    agent = f"node-contract-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    docker = DockerRuntime(agent=agent)
    yield docker
    await docker.close()
    remove_containers(agent)


@pytest.fixture
def pod() -> PodRef:
    return PodRef("default", "web", str(uuid.uuid4()))


async def sandbox_of(runtime: ContainerRuntime, pod: PodRef, attempt: int = 0) -> str:
    sandbox_id = await runtime.create_sandbox(SandboxConfig(pod=pod, attempt=attempt, labels={"mine": "1"}))
    assert (await runtime.start_sandbox(sandbox_id)).running
    return sandbox_id


async def start(runtime: ContainerRuntime, sandbox_id: str, pod: PodRef, attempt: int = 0) -> Container:
    config = ContainerConfig(
        pod=pod, name="main", attempt=attempt, image=IMAGE, command=SLEEP, labels={"kept": str(attempt)}
    )
    container_id = await runtime.create_container(sandbox_id, config)
    (created,) = [c for c in await runtime.containers(pod.uid) if c.id == container_id]
    assert (created.state, created.started_at) == (State.CREATED, 0.0)
    return await runtime.start_container(container_id)


async def test_a_sandbox_from_start_to_end(runtime: ContainerRuntime, pod: PodRef) -> None:
    sandbox_id = await sandbox_of(runtime, pod)
    (found,) = await runtime.sandboxes(pod.uid)
    assert (found.id, found.pod, found.attempt, found.running, found.labels["mine"]) == (sandbox_id, pod, 0, True, "1")
    await runtime.stop_sandbox(sandbox_id)
    await runtime.stop_sandbox(sandbox_id)
    (found,) = await runtime.sandboxes(pod.uid)
    assert (found.running, found.pid) == (False, 0)
    await runtime.remove_sandbox(sandbox_id)
    await runtime.remove_sandbox(sandbox_id)
    assert list(await runtime.sandboxes(pod.uid)) == []


async def test_a_container_is_what_was_asked_for(runtime: ContainerRuntime, pod: PodRef) -> None:
    sandbox_id = await sandbox_of(runtime, pod)
    started = await start(runtime, sandbox_id, pod, attempt=3)
    (found,) = await runtime.containers(pod.uid)
    assert found == started
    assert (found.pod, found.name, found.attempt, found.sandbox_id) == (pod, "main", 3, sandbox_id)
    assert (found.state, found.image, found.labels["kept"]) == (State.RUNNING, IMAGE, "3")
    assert found.created_at <= found.started_at
    assert [each.id for each in await runtime.sandboxes(pod.uid)] == [sandbox_id]  # containers are no sandboxes


async def test_limits_change_while_it_runs(runtime: ContainerRuntime, pod: PodRef) -> None:
    container = await start(runtime, await sandbox_of(runtime, pod), pod)
    before = container.limits
    wanted = Limits(cpu_shares=512, cpu_quota_us=50_000, memory_bytes=64 << 20, oom_score_adj=before.oom_score_adj)
    await runtime.update_container(container.id, wanted)
    (found,) = await runtime.containers(pod.uid)
    assert (found.state, found.limits) == (State.RUNNING, wanted)
    assert found.started_at == container.started_at


async def test_newest_first_and_by_pod(runtime: ContainerRuntime, pod: PodRef) -> None:
    sandbox_id = await sandbox_of(runtime, pod)
    first = await start(runtime, sandbox_id, pod)
    await runtime.stop_container(first.id, grace_s=0)
    second = await start(runtime, sandbox_id, pod, attempt=1)
    assert [c.id for c in await runtime.containers(pod.uid)] == [second.id, first.id]
    assert list(await runtime.containers("another-uid")) == []
    assert {c.id for c in await runtime.containers()} == {first.id, second.id}


async def test_stopping_keeps_the_record_and_removing_does_not(runtime: ContainerRuntime, pod: PodRef) -> None:
    sandbox_id = await sandbox_of(runtime, pod)
    container = await start(runtime, sandbox_id, pod)
    await runtime.stop_container(container.id, grace_s=0)
    (ended,) = await runtime.containers(pod.uid)
    assert (ended.state, ended.pid) == (State.EXITED, 0)
    assert ended.finished_at >= ended.started_at > 0
    await runtime.stop_container(container.id, grace_s=0)
    await runtime.remove_container(container.id)
    await runtime.remove_container(container.id)
    assert list(await runtime.containers(pod.uid)) == []


async def test_removing_ends_what_runs(runtime: ContainerRuntime, pod: PodRef) -> None:
    sandbox_id = await sandbox_of(runtime, pod)
    container = await start(runtime, sandbox_id, pod)
    await runtime.remove_container(container.id)
    assert list(await runtime.containers(pod.uid)) == []


async def test_what_is_gone_is_said_to_be_gone(runtime: ContainerRuntime, pod: PodRef) -> None:
    await runtime.stop_container("f" * 64, grace_s=0)
    with pytest.raises(NoSuchContainer):
        await runtime.start_container("f" * 64)
    with pytest.raises(NoSuchContainer):
        _ = [part async for part in runtime.logs("f" * 64, LogOptions())]
    with pytest.raises(NoSuchContainer):
        await runtime.exec("f" * 64, ["/bin/true"])
    sandbox_id = await sandbox_of(runtime, pod)
    container = await start(runtime, sandbox_id, pod)
    await runtime.stop_container(container.id, grace_s=0)
    with pytest.raises(NotRunning):
        await runtime.exec(container.id, ["/bin/true"])
    with pytest.raises(NotRunning):
        await runtime.attach(container.id)


async def test_a_command_ends_with_its_code(runtime: ContainerRuntime, pod: PodRef) -> None:
    container = await start(runtime, await sandbox_of(runtime, pod), pod)
    session = await runtime.exec(container.id, ["/bin/true"])
    assert [part async for part in session.output()] == []
    assert await session.exit_code() == 0
    await session.close()


async def test_events_tell_of_starts_and_ends(runtime: ContainerRuntime, pod: PodRef) -> None:
    events = runtime.events()
    assert (await anext(events)).pod_uid == ""
    sandbox_id = await sandbox_of(runtime, pod)
    container = await start(runtime, sandbox_id, pod)
    await runtime.stop_container(container.id, grace_s=0)
    seen = []
    async with asyncio.timeout(10):
        while (container.id, "die") not in seen:
            event = await anext(events)
            assert event.pod_uid == pod.uid
            seen.append((event.container_id, event.action))
    assert seen == [(sandbox_id, "start"), (container.id, "start"), (container.id, "die")]
    await events.aclose()


async def test_an_image_is_found_by_name(runtime: ContainerRuntime) -> None:
    image = await runtime.image(IMAGE)
    assert image is not None
    assert IMAGE in image.names
