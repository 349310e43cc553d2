"""A runtime that runs nothing: every container "runs" at once, for experiments with a thousand nodes.

It keeps the protocol's promises about state, so everything above it is real. Containers end only when they are
stopped; commands succeed without output; images are whatever anybody asks for.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

import msgspec

from node_agent.runtime.base import (
    Container,
    ContainerConfig,
    Credentials,
    Image,
    Limits,
    LogOptions,
    NoSuchContainer,
    NotRunning,
    Output,
    RuntimeEvent,
    RuntimeVersion,
    Sandbox,
    SandboxConfig,
    State,
)

_EVENTS = 10_000
_KILLED = 137
_NOTHING: tuple[Output, ...] = ()


class HollowSession:
    """A command that succeeded without a word."""

    def __init__(self, ended: Callable[[], bool] = lambda: True) -> None:
        self._ended = ended

    async def output(self) -> AsyncIterator[Output]:
        """Yield nothing."""
        for part in _NOTHING:
            yield part

    async def write(self, data: bytes) -> None:
        """Swallow input."""

    async def close_stdin(self) -> None:
        """Nothing is open."""

    async def resize(self, *, width: int, height: int) -> None:
        """There is no terminal."""

    async def exit_code(self) -> int:
        """Return success."""
        return 0

    async def close(self) -> None:
        """Nothing is open."""


class HollowRuntime:
    """Sandboxes and containers as entries of a dictionary. root_dir: the file system whose size the node shows."""

    def __init__(self, *, root_dir: str = "/", now: Callable[[], float] = time.time) -> None:
        self._root_dir = root_dir
        self._now = now
        self._ids = itertools.count(1)
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._subscribers: set[asyncio.Queue[RuntimeEvent]] = set()

    async def version(self) -> RuntimeVersion:
        """Return a version of its own."""
        return RuntimeVersion("hollow", "1.0.0", self._root_dir)

    async def sandboxes(self, pod_uid: str = "") -> Sequence[Sandbox]:
        """Return sandboxes, newest first."""
        found = [each for each in self._sandboxes.values() if pod_uid in {"", each.pod.uid}]
        return sorted(found, key=lambda each: (each.attempt, each.created_at), reverse=True)

    async def containers(self, pod_uid: str = "") -> Sequence[Container]:
        """Return containers, newest first."""
        found = [each for each in self._containers.values() if pod_uid in {"", each.pod.uid}]
        return sorted(found, key=lambda each: (each.attempt, each.created_at), reverse=True)

    async def create_sandbox(self, config: SandboxConfig) -> str:
        """Note a sandbox."""
        sandbox_id = f"{next(self._ids):064x}"
        self._sandboxes[sandbox_id] = Sandbox(
            id=sandbox_id,
            pod=config.pod,
            attempt=config.attempt,
            running=False,
            created_at=self._now(),
            labels=config.labels,
        )
        return sandbox_id

    async def start_sandbox(self, sandbox_id: str) -> Sandbox:
        """Say that it runs."""
        sandbox = self._sandboxes[sandbox_id] = msgspec.structs.replace(self._sandbox(sandbox_id), running=True)
        self._tell(sandbox.pod.uid, sandbox_id, "start")
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Say that it ended."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.running:
            self._sandboxes[sandbox_id] = msgspec.structs.replace(sandbox, running=False)
            self._tell(sandbox.pod.uid, sandbox_id, "die")

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Forget it."""
        sandbox = self._sandboxes.pop(sandbox_id, None)
        if sandbox is not None:
            self._tell(sandbox.pod.uid, sandbox_id, "destroy")

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Note a container."""
        self._sandbox(sandbox_id)
        container_id = f"{next(self._ids):064x}"
        self._containers[container_id] = Container(
            id=container_id,
            pod=config.pod,
            name=config.name,
            attempt=config.attempt,
            sandbox_id=sandbox_id,
            state=State.CREATED,
            image=config.image,
            image_id=f"hollow:{config.image}",
            tty=config.tty,
            created_at=self._now(),
            labels=config.labels,
            limits=config.limits,
        )
        return container_id

    async def start_container(self, container_id: str) -> Container:
        """Say that it runs."""
        container = msgspec.structs.replace(self._container(container_id), state=State.RUNNING, started_at=self._now())
        self._containers[container_id] = container
        self._tell(container.pod.uid, container_id, "start")
        return container

    async def update_container(self, container_id: str, limits: Limits) -> None:
        """Note other limits."""
        container = self._container(container_id)
        kept = msgspec.structs.replace(limits, oom_score_adj=container.limits.oom_score_adj)
        self._containers[container_id] = msgspec.structs.replace(container, limits=kept)

    async def stop_container(self, container_id: str, *, grace_s: float) -> None:  # noqa: ARG002 - ends at once
        """Say that it was killed."""
        self.end(container_id, exit_code=_KILLED)

    def end(self, container_id: str, *, exit_code: int) -> None:
        """Let a container end by itself, as experiments and tests need it."""
        container = self._containers.get(container_id)
        if container is not None and container.state is State.RUNNING:
            self._containers[container_id] = msgspec.structs.replace(
                container, state=State.EXITED, exit_code=exit_code, finished_at=self._now()
            )
            self._tell(container.pod.uid, container_id, "die")

    async def remove_container(self, container_id: str) -> None:
        """Forget it."""
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._tell(container.pod.uid, container_id, "destroy")

    async def image(self, name: str) -> Image | None:
        """Every image is here."""
        return Image(id=f"hollow:{name}", names=(name,))

    async def images(self) -> Sequence[Image]:
        """None takes any room."""
        return ()

    async def pull(self, name: str, credentials: Credentials | None) -> Image:  # noqa: ARG002 - no registry is asked
        """Every image is here."""
        return Image(id=f"hollow:{name}", names=(name,))

    async def remove_image(self, image_id: str) -> None:
        """Nothing is stored."""

    async def logs(self, container_id: str, options: LogOptions) -> AsyncGenerator[Output, None]:  # noqa: ARG002
        """Yield nothing: nothing runs that could speak."""
        self._container(container_id)
        for part in _NOTHING:
            yield part

    async def exec(
        self,
        container_id: str,
        command: Sequence[str],  # noqa: ARG002
        *,
        tty: bool = False,  # noqa: ARG002
        stdin: bool = False,  # noqa: ARG002
    ) -> HollowSession:
        """Succeed at once."""
        if self._container(container_id).state is not State.RUNNING:
            raise NotRunning(f"container {container_id[:12]} is not running")
        return HollowSession()

    async def attach(self, container_id: str, *, stdin: bool = False) -> HollowSession:  # noqa: ARG002
        """Connect to silence."""
        return await self.exec(container_id, ())

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield what happens from now on."""
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue(_EVENTS)
        self._subscribers.add(queue)
        try:
            yield RuntimeEvent("", "", "subscribed")
            while True:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)

    async def close(self) -> None:
        """Nothing is open."""

    def _tell(self, uid: str, container_id: str, action: str) -> None:
        for queue in self._subscribers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(RuntimeEvent(uid, container_id, action))

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise NoSuchContainer(f"no such sandbox: {sandbox_id}") from None

    def _container(self, container_id: str) -> Container:
        try:
            return self._containers[container_id]
        except KeyError:
            raise NoSuchContainer(f"no such container: {container_id}") from None
