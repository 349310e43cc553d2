"""Docker as the container runtime, engines 20.10 to 28.

Short calls go through the Docker SDK in a bounded pool of threads; whatever lasts (events, logs, exec, pull, a stop
with its grace period) through ``EngineSocket``. Containers that have ended are inspected once and remembered: nothing
changes about them any more.
"""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException

from node_agent.runtime import docker_config
from node_agent.runtime.base import (
    Container,
    ContainerConfig,
    Credentials,
    Image,
    ImageMissing,
    Limits,
    LogOptions,
    NoSuchContainer,
    NotRunning,
    Output,
    PullFailed,
    RuntimeEvent,
    RuntimeFailed,
    RuntimeVersion,
    Sandbox,
    SandboxConfig,
    State,
)
from node_agent.runtime.engine_socket import Answer, EngineSocket, demultiplex, failure, raw

log = logging.getLogger(__name__)

T = TypeVar("T")
SOCKET = "/var/run/docker.sock"
SANDBOX_IMAGE = "trireme/tools:1"
_THREADS = 8
_CALL_S = 60
_EXIT_CODE_TRIES = 50
_EXIT_CODE_PAUSE_S = 0.02


class DockerSession:
    """An exec or attach over a taken-over connection of the engine.

    ends_input: whether the end of the client's input is the process's, too. A process that others may attach to later
    keeps its input open; the engine, told of the end, would cut the output off.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        tty: bool,
        ends_input: bool,
        resize: Callable[[int, int], Any],
        exit_code: Callable[[], Any],
    ) -> None:
        self._answer = answer
        self._tty = tty
        self._ends_input = ends_input and not tty
        self._resize = resize
        self._exit_code = exit_code

    def output(self) -> AsyncIterator[Output]:
        """Yield output until the process ends."""
        return raw(self._answer) if self._tty else demultiplex(self._answer)

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the process does not read."""
        try:
            self._answer.writer.write(data)
            await self._answer.writer.drain()
        except OSError as exc:
            raise NotRunning(f"standard input is closed: {exc}") from exc

    async def close_stdin(self) -> None:
        """Half-close the connection; with a terminal the engine would cut the output off, too."""
        if not self._ends_input:
            return
        try:
            self._answer.writer.write_eof()
        except OSError as exc:
            log.debug("standard input was closed already error=%s", exc)

    async def resize(self, *, width: int, height: int) -> None:
        """Give the terminal a new size."""
        if self._tty:
            await self._resize(width, height)

    async def exit_code(self) -> int:
        """Return the exit code; call it when output has ended."""
        return int(await self._exit_code())

    async def close(self) -> None:
        """Close the connection."""
        await self._answer.close()


class DockerRuntime:
    """The engine behind ``socket``, and in it only what bears this agent's label.

    agent: tells this agent's containers from those of another one on the same engine.
    """

    def __init__(self, *, agent: str, socket: str = SOCKET, sandbox_image: str = SANDBOX_IMAGE) -> None:
        self._agent = agent
        self._socket_path = socket
        self._sandbox_image = sandbox_image
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        self._client: docker.APIClient | None = None
        self._engine: EngineSocket | None = None
        self._connecting = asyncio.Lock()
        self._ended: dict[str, Container] = {}

    async def _connected(self) -> tuple[docker.APIClient, EngineSocket]:
        async with self._connecting:
            if self._client is None or self._engine is None:
                self._client = await self._in_thread(
                    partial(
                        docker.APIClient,
                        base_url=f"unix://{self._socket_path}",
                        version="auto",
                        timeout=_CALL_S,
                        max_pool_size=_THREADS,
                    )
                )
                self._engine = EngineSocket(self._socket_path, api_version=self._client.api_version)
            return self._client, self._engine

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except APIError as exc:
            raise failure(exc.status_code or 500, str(exc.explanation or exc)) from exc
        except (DockerException, requests.RequestException, OSError) as exc:
            raise RuntimeFailed(f"container engine: {exc}") from exc

    async def _call(self, work: Callable[[docker.APIClient], T]) -> T:
        client, _ = await self._connected()
        return await self._in_thread(partial(work, client))

    async def version(self) -> RuntimeVersion:
        """Return the engine's version and where it keeps its data."""
        info = await self._call(lambda client: client.info())
        return RuntimeVersion("docker", info["ServerVersion"], info["DockerRootDir"], info.get("CgroupDriver", ""))

    # Observation

    async def sandboxes(self, pod_uid: str = "") -> Sequence[Sandbox]:
        """Return this agent's sandboxes, newest first."""
        found = [
            docker_config.read_sandbox(document)
            for document in await self._inspect_all(pod_uid, docker_config.SANDBOX_TYPE)
        ]
        return sorted(found, key=lambda sandbox: (sandbox.attempt, sandbox.created_at), reverse=True)

    async def containers(self, pod_uid: str = "") -> Sequence[Container]:
        """Return this agent's containers, newest first."""
        items = await self._list(pod_uid, docker_config.CONTAINER_TYPE)
        unknown = [item["Id"] for item in items if item["Id"] not in self._ended]
        found = [docker_config.read_container(d) for d in await self._inspect(unknown)]
        found += [self._ended[item["Id"]] for item in items if item["Id"] in self._ended]
        self._ended |= {container.id: container for container in found if container.state is State.EXITED}
        return sorted(found, key=lambda container: (container.attempt, container.created_at), reverse=True)

    async def _inspect_all(self, pod_uid: str, container_type: str) -> list[dict[str, Any]]:
        return await self._inspect([item["Id"] for item in await self._list(pod_uid, container_type)])

    async def _list(self, pod_uid: str, container_type: str) -> list[dict[str, Any]]:
        labels = docker_config.label_filter(self._agent, pod_uid, container_type)
        return list(await self._call(lambda client: client.containers(all=True, filters={"label": labels})))

    async def _inspect(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        found = await asyncio.gather(*(self._inspect_one(each) for each in ids))
        return [document for document in found if document is not None]

    async def _inspect_one(self, container_id: str) -> dict[str, Any] | None:
        try:
            return dict(await self._call(lambda client: client.inspect_container(container_id)))
        except NoSuchContainer:
            return None

    # Sandboxes and containers

    async def create_sandbox(self, config: SandboxConfig) -> str:
        """Make the sandbox's container."""
        document = docker_config.render_sandbox(config, image=self._sandbox_image, agent=self._agent)
        return await self._create(document, docker_config.container_name(config.pod, "POD", config.attempt))

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Make a container that joins the sandbox."""
        document = docker_config.render_container(sandbox_id, config, agent=self._agent)
        return await self._create(document, docker_config.container_name(config.pod, config.name, config.attempt))

    async def _create(self, document: Mapping[str, Any], name: str) -> str:
        def create(client: docker.APIClient) -> str:
            return str(client.create_container_from_config(document, name)["Id"])  # type: ignore[no-untyped-call]

        try:
            return await self._call(create)
        except RuntimeFailed as exc:
            # Left from a create whose answer never reached us: nothing of it is known to anybody.
            if f'"/{name}" is already in use' not in str(exc):
                raise
            await self.remove_container(name)
            return await self._call(create)

    async def start_sandbox(self, sandbox_id: str) -> Sandbox:
        """Start the sandbox's container."""
        document = await self._start(sandbox_id)
        sandbox = docker_config.read_sandbox(document)
        if not sandbox.running:
            raise RuntimeFailed(f"sandbox {sandbox_id[:12]} ended at once: {document['State'].get('Error') or '?'}")
        return sandbox

    async def start_container(self, container_id: str) -> Container:
        """Start a container."""
        return docker_config.read_container(await self._start(container_id))

    async def _start(self, container_id: str) -> dict[str, Any]:
        def start(client: docker.APIClient) -> dict[str, Any]:
            client.start(container_id)
            return dict(client.inspect_container(container_id))

        try:
            return await self._call(start)
        except RuntimeFailed as exc:
            if "unable to apply caps" in str(exc):
                hint = "this node's kernel keeps capabilities from it that privileged containers need"
                raise RuntimeFailed(f"{hint}: {exc}") from exc
            raise

    async def update_container(self, container_id: str, limits: Limits) -> None:
        """Change a running container's limits."""
        _, engine = await self._connected()
        body = docker_config.render_update(limits)
        answer = await engine.call("POST", f"/containers/{container_id}/update", body=body)
        await answer.close()

    async def stop_container(self, container_id: str, *, grace_s: float) -> None:
        """Stop a container; an engine that answers late does not hold a thread."""
        _, engine = await self._connected()
        try:
            answer = await engine.call(
                "POST", f"/containers/{container_id}/stop", query={"t": round(grace_s)}, answer_s=grace_s + _CALL_S
            )
        except NoSuchContainer:
            return
        await answer.close()

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill the sandbox's process; it has nothing to save."""
        try:
            await self._call(lambda client: client.kill(sandbox_id))
        except (NoSuchContainer, NotRunning):
            return

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Kill and forget."""
        await self.remove_container(sandbox_id)

    async def remove_container(self, container_id: str) -> None:
        """Kill and forget, with its anonymous volumes."""
        self._ended.pop(container_id, None)
        try:
            await self._call(lambda client: client.remove_container(container_id, force=True, v=True))
        except NoSuchContainer:
            return
        except RuntimeFailed as exc:
            if "already in progress" not in str(exc):
                raise

    # Images

    async def image(self, name: str) -> Image | None:
        """Return a local image."""
        try:
            document = await self._call(lambda client: client.inspect_image(name))  # type: ignore[no-untyped-call]
        except (ImageMissing, NoSuchContainer):
            return None
        return docker_config.read_image(document)

    async def images(self) -> Sequence[Image]:
        """Return local images that have a name."""
        found = [docker_config.read_image(item) for item in await self._call(lambda client: client.images())]
        return [image for image in found if image.names]

    async def pull(self, name: str, credentials: Credentials | None) -> Image:
        """Fetch an image and return it."""
        _, engine = await self._connected()
        headers = {}
        if credentials:
            secret = {"username": credentials.username, "password": credentials.password}
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(secret).encode()).decode()
        try:
            answer = await engine.call("POST", "/images/create", query=_image_query(name), headers=headers)
        except RuntimeFailed as exc:
            raise PullFailed(str(exc)) from exc
        try:
            async for line in answer.lines():
                if line.strip() and (error := json.loads(line).get("error")):
                    raise PullFailed(str(error))
        finally:
            await answer.close()
        image = await self.image(name)
        if image is None:
            raise PullFailed(f"the engine pulled {name} and does not have it")
        return image

    async def remove_image(self, image_id: str) -> None:
        """Remove an image that no container uses."""
        await self._call(lambda client: client.remove_image(image_id))

    # Streams

    async def logs(self, container_id: str, options: LogOptions) -> AsyncGenerator[Output, None]:
        """Yield the container's output."""
        _, engine = await self._connected()
        document = await self._call(lambda client: client.inspect_container(container_id))
        query = {
            "stdout": 1,
            "stderr": 1,
            "follow": int(options.follow),
            "timestamps": int(options.timestamps),
            "tail": "all" if options.tail_lines is None else options.tail_lines,
            "since": f"{options.since:.9f}" if options.since else 0,
        }
        answer = await engine.call("GET", f"/containers/{container_id}/logs", query=query)
        try:
            tty = bool(document["Config"].get("Tty"))
            async for output in raw(answer) if tty else demultiplex(answer):
                yield output
        except (OSError, EOFError) as exc:
            raise RuntimeFailed(f"log stream of {container_id[:12]} broke: {exc!r}") from exc
        finally:
            await answer.close()

    async def exec(
        self, container_id: str, command: Sequence[str], *, tty: bool = False, stdin: bool = False
    ) -> DockerSession:
        """Run a command in a container."""
        client, engine = await self._connected()
        created = await self._in_thread(
            partial(client.exec_create, container_id, list(command), tty=tty, stdin=stdin, stdout=True, stderr=True)
        )
        exec_id = created["Id"]
        answer = await engine.call(
            "POST", f"/exec/{exec_id}/start", body={"Detach": False, "Tty": tty}, upgrade=True, answer_s=_CALL_S
        )

        async def resize(width: int, height: int) -> None:
            await self._call(lambda client: client.exec_resize(exec_id, height=height, width=width))

        return DockerSession(
            answer, tty=tty, ends_input=True, resize=resize, exit_code=partial(self._exec_exit_code, exec_id)
        )

    async def _exec_exit_code(self, exec_id: str) -> int:
        # The stream ends a moment before the engine notes the exit code.
        for _ in range(_EXIT_CODE_TRIES):
            found = await self._call(lambda client: client.exec_inspect(exec_id))
            if not found["Running"] and found["ExitCode"] is not None:
                return int(found["ExitCode"])
            await asyncio.sleep(_EXIT_CODE_PAUSE_S)
        raise RuntimeFailed(f"exec {exec_id[:12]} closed its output and goes on running")

    async def attach(self, container_id: str, *, stdin: bool = False) -> DockerSession:
        """Connect to the container's own process."""
        client, engine = await self._connected()
        document = await self._in_thread(partial(client.inspect_container, container_id))
        if not document["State"]["Running"]:
            raise NotRunning(f"container {container_id[:12]} is not running")
        query = {"stream": 1, "stdout": 1, "stderr": 1, "stdin": int(stdin)}
        answer = await engine.call("POST", f"/containers/{container_id}/attach", query=query, upgrade=True)

        async def resize(width: int, height: int) -> None:
            await self._call(lambda client: client.resize(container_id, height=height, width=width))

        async def exit_code() -> int:
            return 0

        tty = bool(document["Config"].get("Tty"))
        once = bool(document["Config"].get("StdinOnce"))
        return DockerSession(answer, tty=tty, ends_input=once, resize=resize, exit_code=exit_code)

    async def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield starts, ends and removals of this agent's containers."""
        _, engine = await self._connected()
        answer = await engine.call("GET", "/events", query={"filters": docker_config.event_filter(self._agent)})
        try:
            yield RuntimeEvent("", "", "subscribed")
            async for line in answer.lines():
                if line.strip():
                    event = json.loads(line)
                    uid = event["Actor"]["Attributes"].get(docker_config.UID, "")
                    yield RuntimeEvent(uid, event["Actor"]["ID"], event["Action"])
        except (OSError, EOFError, ValueError) as exc:
            raise RuntimeFailed(f"event stream broke: {exc!r}") from exc
        finally:
            await answer.close()

    async def close(self) -> None:
        """Close connections and threads."""
        if self._client is not None:
            self._client.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _image_query(name: str) -> dict[str, str]:
    """Return the pull parameters; without a tag the engine would fetch every tag there is."""
    if "@" in name:
        return {"fromImage": name}
    head, _, tail = name.rpartition(":")
    if head and "/" not in tail:
        return {"fromImage": head, "tag": tail}
    return {"fromImage": name, "tag": "latest"}
