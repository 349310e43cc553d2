"""A whole node agent on the machine's Docker engine: real containers, real network in a namespace of its own.

The agent runs in a network namespace made for the test, so bridge, addresses and rules never touch the machine's.
Its containers bear a label of their own; whatever a test leaves is removed.
"""

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import msgspec
import pytest
from msgspec.structs import replace

from api.kinds.core import Event, Node
from api.kinds.core import Namespace as NamespaceKind
from api.kinds.pods import Pod
from api.meta import ObjectMeta
from node_agent.config import NodeConfig
from node_agent.program import Agent
from node_agent.runtime import docker_config
from tests.docker.namespaces import Namespace
from tests.fakes.resources import MemoryResources

IMAGE = "trireme/tools:1"
NODE = "node-under-test"
ROOT = Path(__file__).resolve().parents[2]


def ensure_image(directory: Path) -> bool:
    """Load the lab's small image if the engine has none; whether that was needed."""
    engine = docker.APIClient(version="auto")
    try:
        if engine.images(IMAGE):
            return False
        archive = directory / "tools.tar"
        script = ROOT / "deploy" / "provision" / "tools_image.py"
        subprocess.run([sys.executable, str(script), "/bin/busybox", str(archive)], check=True)
        for _ in engine.load_image(archive.read_bytes()):
            pass
        return True
    finally:
        engine.close()


def remove_image() -> None:
    engine = docker.APIClient(version="auto")
    with contextlib.suppress(docker.errors.APIError):
        engine.remove_image(IMAGE)
    engine.close()


def remove_containers(instance: str) -> int:
    """Remove what an agent left behind; how many containers that was."""
    engine = docker.APIClient(version="auto")
    found = engine.containers(all=True, filters={"label": f"{docker_config.AGENT}={instance}"})
    for each in found:
        with contextlib.suppress(docker.errors.NotFound):
            engine.remove_container(each["Id"], force=True, v=True)
    engine.close()
    return len(found)


class Lab:
    """One node, an API in memory, and what tests ask of both."""

    def __init__(self, directory: Path) -> None:
        self.instance = f"node-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.directory = directory
        self.namespace = Namespace(f"pods{uuid.uuid4().hex[:6]}")
        self.api: MemoryResources
        self.config = NodeConfig(
            name=NODE,
            address="127.0.0.1",
            masters=("127.0.0.1:1",),
            listen="127.0.0.1:10250",
            http_listen="127.0.0.1:10255",
            data_dir=directory / "node",
            instance=self.instance,
            pod_cidr="10.244.0.0/16",
            static_pods=directory / "manifests",
            heartbeat_s=0.5,
        )

    def close(self) -> None:
        self.namespace.close()
        remove_containers(self.instance)
        for mount in [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]:
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", mount], check=False)

    def run(self, scenario: Callable[["Lab"], Awaitable[None]], timeout_s: float = 60) -> None:
        """Run a scenario inside the node's network namespace."""

        async def main() -> None:
            self.api = MemoryResources()
            await self.api.create(NamespaceKind(metadata=ObjectMeta(name="default")))
            async with asyncio.timeout(timeout_s):
                await scenario(self)

        self.namespace.run(main)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[Agent]:
        """Run an agent, give its node a pod CIDR; leaving stops the agent and no container."""
        agent = Agent(self.config, self.api)
        task = asyncio.create_task(agent.run())
        try:
            await self.until(lambda: self.api.find(Node, NODE) is not None or task.done())
            if task.done():
                task.result()
            node = self.api.find(Node, NODE)
            assert node is not None
            if not node.spec.pod_cidr:
                await self.api.update(replace(node, spec=replace(node.spec, pod_cidr="10.244.7.0/24")))
            yield agent
        finally:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (failure := task.exception()) is not None:
                raise failure

    async def until(self, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Return the condition's value once it is true; it is asked after each change in the API."""
        try:
            async with asyncio.timeout(timeout_s):
                while not (value := condition()):
                    await self.api._changed.wait()
                return value
        except TimeoutError:
            pods = [msgspec.json.encode(pod.status).decode() for pod in self.api.all(Pod)]
            raise AssertionError("\n".join(["waited in vain", *pods, *self.events()])) from None

    def events(self) -> list[str]:
        return [f"{e.type} {e.reason} x{e.count} {e.message}" for e in self.api.all(Event)]

    def reasons(self) -> set[str]:
        return {event.reason for event in self.api.all(Event)}

    async def create(self, name: str, spec: dict[str, Any], **metadata: Any) -> Pod:
        """Create a pod that is bound to the node already."""
        document = {
            "metadata": {"name": name, "namespace": "default", **metadata},
            "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 1, **spec},
        }
        return await self.api.create(msgspec.convert(document, Pod))

    def pod(self, name: str) -> Pod:
        found = self.api.find(Pod, name, "default")
        assert found is not None, name
        return found

    def is_ready(self, name: str) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.pod(name).status.conditions)

    async def ready(self, name: str) -> Pod:
        await self.until(lambda: self.is_ready(name))
        return self.pod(name)

    async def phase(self, name: str, phase: str) -> Pod:
        await self.until(lambda: self.pod(name).status.phase == phase)
        return self.pod(name)

    async def delete(self, name: str, grace_s: int | None = None) -> None:
        """Delete a pod and wait until it is gone from the API."""
        await self.api.delete(Pod, name, namespace="default", grace_period_s=grace_s)
        await self.until(lambda: self.api.find(Pod, name, "default") is None)

    def containers(self) -> list[str]:
        """Return the names of this agent's containers in the engine, running or not."""
        engine = docker.APIClient(version="auto")
        found = engine.containers(all=True, filters={"label": f"{docker_config.AGENT}={self.instance}"})
        engine.close()
        return sorted(each["Labels"][docker_config.CONTAINER] for each in found)


def shell(script: str, **more: Any) -> dict[str, Any]:
    """Return a container that runs a script."""
    return {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", script], **more}


async def eventually(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    """Return once something outside the API holds; nobody tells of it, so it is asked again and again."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


SLEEP = "trap 'exit 0' TERM; sleep 1000 & wait"


@pytest.fixture(scope="session")
def tools_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small image; removed again if it was not there before."""
    made = ensure_image(tmp_path_factory.mktemp("image"))
    yield
    if made:
        remove_image()


@pytest.fixture
def lab(tools_image: None, tmp_path: Path) -> Iterator[Lab]:
    logging.getLogger("node_agent").setLevel(logging.INFO)
    lab = Lab(tmp_path)
    yield lab
    lab.close()
