"""Starting a container: everything it needs is fetched side by side, then it is made, then started.

Image, volumes and the sandbox come from different places and take about as long as each other, so none waits for
another one; making the container needs the sandbox's id only, starting it needs the sandbox plugged in.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from api.errors import ApiError
from api.kinds.core import ConfigMap, Secret
from api.kinds.pods import Container as ContainerSpec
from api.kinds.pods import Pod
from api.qos import qos_class
from node_agent.errors import NodeError
from node_agent.pods.containers import (
    TERMINATION_LOG,
    RefusedByPolicy,
    find_container,
    pod_ref,
    render_container,
    render_hosts,
    render_limits,
    resolv_conf_of,
    target_of,
)
from node_agent.pods.environment import ConfigMissing, Facts, needs_pod_ip, render_environment
from node_agent.pods.hooks import run_hook
from node_agent.pods.images import ImageNotFetched, NeverPulled, pull_failure, pull_policy
from node_agent.pods.operations import COMMIT, phase, shared
from node_agent.pods.plan import StartContainer
from node_agent.pods.references import config_map_names, pull_secret_names, secret_names
from node_agent.pods.situation import Failure
from node_agent.pods.surroundings import Surroundings
from node_agent.pods.volume_files import render_files, tokens_wanted
from node_agent.pods.volumes import Mounted, MountRefused, PodVolumes, VolumeFailed, follows_objects, render_mounts
from node_agent.runtime.base import Container, Image, Limits, LogOptions, Mount, RuntimeFailed, Sandbox, State

log = logging.getLogger(__name__)

_CONFIG_RETRY_S = 1.0
_CONFIG_RETRY_MAX_S = 10.0
_REFRESH_S = 10.0
_LAST_LINES = 80
_LAST_BYTES = 2048


class StartFailed(NodeError):
    """The container could not be started. failure: what to show and when to try again, None if nothing is to blame."""

    def __init__(self, message: str, failure: Failure | None) -> None:
        super().__init__(message)
        self.failure = failure


class _Ending(NodeError):
    """The pod is ending: there is nothing to start any more."""


class _Promise:
    """A sandbox under way: its id comes first, its network last."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.id: asyncio.Future[str] = loop.create_future()
        self.pod_ip: asyncio.Future[str] = loop.create_future()

    def fail(self, exc: NodeError) -> None:
        for future in (self.id, self.pod_ip):
            if not future.done():
                future.set_exception(exc)
                future.exception()  # perhaps nobody waits


class Launcher:
    """Prepares and starts the containers of one pod."""

    def __init__(self, around: Surroundings, volumes: PodVolumes) -> None:
        self._around = around
        self._volumes = volumes
        self._promise: _Promise | None = None
        self._mounted: asyncio.Task[Mapping[str, Mounted]] | None = None
        self._refresh_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._handler = ""
        self.image_refs: dict[str, str] = {}
        self.enforced: dict[str, Limits] = {}
        """Container id -> the limits that the engine took last, at its making or since."""

    async def handler(self, pod: Pod) -> str:
        """Return which of the engine's runtimes the pod wants, "" for the engine's choice; raises RuntimeFailed."""
        name = pod.spec.runtime_class_name
        if name and not self._handler:
            found = await self._around.objects.handler(name)
            if found is None:
                raise RuntimeFailed(f'RuntimeClass "{name}" not found')
            # What the pod began with it keeps, whatever becomes of the class.
            self._handler = found
        return self._handler

    # The sandbox's progress, told by the worker

    def expect_sandbox(self) -> None:
        """A sandbox is about to be made."""
        self._promise = _Promise()

    def sandbox_created(self, sandbox_id: str) -> None:
        """It can be joined."""
        if self._promise and not self._promise.id.done():
            self._promise.id.set_result(sandbox_id)

    async def sandbox_ready(self, pod: Pod, sandbox: Sandbox, pod_ip: str) -> None:
        """It runs and has its address: containers may start."""
        await self._write_etc(pod, pod_ip)
        self.sandbox_created(sandbox.id)
        if self._promise and not self._promise.pod_ip.done():
            self._promise.pod_ip.set_result(pod_ip)

    def sandbox_failed(self, exc: NodeError) -> None:
        """There will be none: whoever waits gives up."""
        if self._promise:
            self._promise.fail(exc)

    def adopt(self, sandbox: Sandbox) -> None:
        """A sandbox from before this agent's start runs."""
        self.expect_sandbox()
        self.sandbox_created(sandbox.id)

    async def _write_etc(self, pod: Pod, pod_ip: str) -> tuple[str, str]:
        names = self._around.names
        hosts = await asyncio.to_thread(self._volumes.write_etc, "hosts", render_hosts(pod, pod_ip, names))
        resolv = await asyncio.to_thread(self._volumes.write_etc, "resolv.conf", resolv_conf_of(pod, names))
        return str(hosts), str(resolv)

    # Starting

    async def start(
        self, pod: Pod, action: StartContainer, *, before: Failure | None, is_ending: Callable[[], bool]
    ) -> None:
        """Start one instance and run its postStart hook; raises StartFailed."""
        spec = self.spec_of(pod, action.name)
        assert spec is not None, action
        now = self._around.now
        try:
            await self._start(pod, spec, action, is_ending)
        except _Ending as exc:
            raise StartFailed(str(exc), None) from exc
        except (ImageNotFetched, NeverPulled) as exc:
            self.record(pod, "Warning", "Failed", f"{exc}", spec.name)
            failure = pull_failure(spec.image, str(exc), before=before, now=now())
            if isinstance(exc, NeverPulled):
                failure = _failure("ErrImageNeverPull", str(exc), before, now())
            raise StartFailed(str(exc), failure) from exc
        except (VolumeFailed, ApiError) as exc:
            self.record(pod, "Warning", "FailedMount", str(exc))
            raise StartFailed(str(exc), _failure("ContainerCreating", "", before, now())) from exc
        except (ConfigMissing, MountRefused, RefusedByPolicy, ValueError) as exc:
            self.record(pod, "Warning", "Failed", f"Error: {exc}", spec.name)
            raise StartFailed(str(exc), _failure("CreateContainerConfigError", str(exc), before, now())) from exc
        except RuntimeFailed as exc:
            self.record(pod, "Warning", "Failed", f"Error: {exc}", spec.name)
            raise StartFailed(str(exc), _failure("RunContainerError", str(exc), before, now())) from exc

    async def _start(
        self, pod: Pod, spec: ContainerSpec, action: StartContainer, is_ending: Callable[[], bool]
    ) -> None:
        assert self._promise is not None, "a container is started in a sandbox"
        promise = self._promise
        image, mounted, sandbox_id = await asyncio.gather(
            self._ensure_image(pod, spec), self._mount_volumes(pod), _wait(promise.id)
        )
        pod_ip = await _wait(promise.pod_ip) if needs_pod_ip(spec) else ""
        environment = render_environment(spec, await self._facts(pod, pod_ip))
        mounts = (
            *await asyncio.to_thread(render_mounts, spec, mounted, environment),
            *await self._own_mounts(pod, spec, action),
        )
        if is_ending():
            raise _Ending("the pod is ending")
        runtime = self._around.runtime
        config = render_container(
            pod,
            spec,
            action,
            sandbox_id=sandbox_id,
            target_id=await self._target_id(pod, spec),
            image=image,
            environment=environment,
            mounts=mounts,
            handler=await self.handler(pod),
            limits=self.limits_of(pod, spec),
        )
        with phase(COMMIT):
            container_id = await runtime.create_container(sandbox_id, config)
        self.enforced[container_id] = config.limits
        self.record(pod, "Normal", "Created", f"Created container {spec.name}", spec.name)
        pod_ip = await _wait(promise.pod_ip)
        if is_ending():
            raise _Ending("the pod is ending")
        with phase(COMMIT):
            await runtime.start_container(container_id)
        self.record(pod, "Normal", "Started", f"Started container {spec.name}", spec.name)
        await self._post_start(pod, spec, container_id, pod_ip)

    def limits_of(self, pod: Pod, spec: ContainerSpec) -> Limits:
        """Return what the kernel shall enforce for a container of the pod."""
        node = self._around.limits
        return render_limits(
            spec,
            qos=qos_class(pod.spec),
            memory_capacity_bytes=node.memory_capacity_bytes,
            negative_oom_score=node.negative_oom_score,
        )

    async def _target_id(self, pod: Pod, spec: ContainerSpec) -> str:
        """Return the running container whose processes a debugger shall see, "" for none; raises RuntimeFailed."""
        target = target_of(pod.spec, spec.name)
        if not target:
            return ""
        for each in await self._around.runtime.containers(pod.metadata.uid):
            if each.name == target and each.state is State.RUNNING:
                return each.id
        raise RuntimeFailed(f"unable to find target container {target}: it does not run")

    async def _post_start(self, pod: Pod, spec: ContainerSpec, container_id: str, pod_ip: str) -> None:
        hook = spec.lifecycle.post_start if spec.lifecycle else None
        if hook is None:
            return
        try:
            await run_hook(hook, spec, container_id, pod_ip, self._around.runtime)
        except NodeError as exc:
            self.record(pod, "Warning", "FailedPostStartHook", f"PostStartHook failed: {exc}", spec.name)
            await self._around.runtime.stop_container(container_id, grace_s=2)

    async def _ensure_image(self, pod: Pod, spec: ContainerSpec) -> Image:
        policy = pull_policy(spec.image_pull_policy, spec.image)
        present = await self._around.images.present(spec.image)
        if policy == "Never" and present is None:
            raise NeverPulled(f'Container image "{spec.image}" is not present with pull policy of Never')
        if present is not None and policy != "Always":
            message = f'Container image "{spec.image}" already present on machine'
            self.record(pod, "Normal", "Pulled", message, spec.name)
        else:
            self.record(pod, "Normal", "Pulling", f'Pulling image "{spec.image}"', spec.name)
            secrets = await self._around.objects.secrets(pod.metadata.namespace, pull_secret_names(pod))
            present, took_s = await self._around.images.pull(spec.image, tuple(secrets.values()))
            message = f'Successfully pulled image "{spec.image}" in {took_s:.3f}s'
            self.record(pod, "Normal", "Pulled", message, spec.name)
        if present.digest:
            self.image_refs[present.id] = present.digest
        return present

    async def _own_mounts(self, pod: Pod, spec: ContainerSpec, action: StartContainer) -> list[Mount]:
        """Return the mounts that every container gets, unless it mounts something of its own there."""
        hosts, resolv = (self._volumes.directory / "etc" / name for name in ("hosts", "resolv.conf"))
        if not (hosts.exists() and resolv.exists()):
            await self._write_etc(pod, "")
        last_words = await asyncio.to_thread(self._volumes.termination_log, spec.name, action.attempt)
        own = {
            "/etc/hosts": hosts,
            "/etc/resolv.conf": resolv,
            spec.termination_message_path or TERMINATION_LOG: last_words,
        }
        taken = {mount.mount_path for mount in spec.volume_mounts}
        return [Mount(source=str(path), target=target) for target, path in own.items() if target not in taken]

    # Objects and volumes

    async def _facts(self, pod: Pod, pod_ip: str) -> Facts:
        objects, namespace = self._around.objects, pod.metadata.namespace
        wanted_maps, wanted_secrets = config_map_names(pod), secret_names(pod)
        config_maps: Mapping[str, ConfigMap] = {}
        secrets: Mapping[str, Secret] = {}
        if wanted_maps:
            config_maps = await objects.config_maps(namespace, wanted_maps)
        if wanted_secrets:
            secrets = await objects.secrets(namespace, wanted_secrets)
        return Facts(
            pod=pod,
            node=self._around.names.node,
            host_ip=self._around.names.host_ip,
            pod_ip=pod_ip,
            config_maps=config_maps,
            secrets=secrets,
            services=await objects.services(),
            allocatable=self._around.limits.allocatable,
        )

    async def _mount_volumes(self, pod: Pod) -> Mapping[str, Mounted]:
        """Set the pod's volumes up once; its containers share the work and its failure."""
        if self._mounted is None or (self._mounted.done() and _failed(self._mounted)):
            self._mounted = shared(asyncio.create_task(self._set_up_volumes(pod, ""), name="volumes"))
        return await asyncio.shield(self._mounted)

    async def _set_up_volumes(self, pod: Pod, pod_ip: str) -> Mapping[str, Mounted]:
        following = [volume for volume in pod.spec.volumes if follows_objects(volume)]
        facts = await self._facts(pod, pod_ip)
        files = {}
        for volume in following:
            tokens = {wanted: await self._around.objects.token(pod, wanted) for wanted in tokens_wanted(volume)}
            try:
                files[volume.name] = render_files(volume, facts, tokens)
            except ConfigMissing as exc:
                raise VolumeFailed(f'MountVolume.SetUp failed for volume "{volume.name}" : {exc}') from exc
        if following:
            self._refresh_at = self._around.now() + _REFRESH_S
        return await asyncio.to_thread(self._volumes.set_up, pod, files)

    @property
    def refresh_at(self) -> float | None:
        """When files that follow objects are to be looked at next; None: there are none."""
        return self._refresh_at

    def refresh_if_due(self, tasks: asyncio.TaskGroup, pod: Pod, pod_ip: str) -> None:
        """Bring the files that follow objects up to date, in the background."""
        due = self._refresh_at is not None and self._refresh_at <= self._around.now()
        ready = self._mounted is not None and self._mounted.done() and not _failed(self._mounted)
        if due and ready and (self._refreshing is None or self._refreshing.done()):
            self._refresh_at = None
            self._refreshing = tasks.create_task(self._refresh(pod, pod_ip))

    async def _refresh(self, pod: Pod, pod_ip: str) -> None:
        try:
            await self._set_up_volumes(pod, pod_ip)
        except (NodeError, ApiError) as exc:
            self._refresh_at = self._around.now() + _REFRESH_S
            log.warning("volume files not updated pod=%s error=%s", pod_ref(pod), exc)

    # Looking back

    def spec_of(self, pod: Pod, name: str) -> ContainerSpec | None:
        """Return the container's spec; a pod that is known by its containers only has none."""
        return find_container(pod.spec, name)

    async def last_words(self, pod: Pod, container: Container) -> str:
        """Return the termination message of an instance that ended."""
        text = await asyncio.to_thread(self._volumes.read_termination_log, container.name, container.attempt)
        spec = self.spec_of(pod, container.name)
        wants_log = spec is not None and spec.termination_message_policy == "FallbackToLogsOnError"
        if text or not wants_log or container.exit_code == 0:
            return text
        options = LogOptions(tail_lines=_LAST_LINES)
        parts = [output.data async for output in self._around.runtime.logs(container.id, options)]
        return b"".join(parts)[-_LAST_BYTES:].decode(errors="replace")

    def record(self, pod: Pod, kind: str, reason: str, message: str, container: str = "") -> None:
        """Record an event about the pod, or about one of its containers."""
        path = ""
        if container:
            path = f"spec.{_list_of(pod, container)}{{{container}}}"
        self._around.recorder.event(pod, kind=kind, reason=reason, message=message, field_path=path)


def _list_of(pod: Pod, name: str) -> str:
    """Return in which of the spec's lists a container stands."""
    if any(each.name == name for each in pod.spec.init_containers):
        return "initContainers"
    return "ephemeralContainers" if any(e.name == name for e in pod.spec.ephemeral_containers) else "containers"


async def _wait(future: "asyncio.Future[str]") -> str:
    """Wait without ending the future when the waiter is cancelled; the sandbox's failure ends the start quietly."""
    try:
        return await asyncio.shield(future)
    except NodeError as exc:
        raise _Ending(f"no sandbox: {exc}") from exc


def _failed(task: "asyncio.Task[Any]") -> bool:
    return task.cancelled() or task.exception() is not None


def _failure(reason: str, message: str, before: Failure | None, now: float) -> Failure:
    delay_s = min(before.delay_s * 2, _CONFIG_RETRY_MAX_S) if before else _CONFIG_RETRY_S
    return Failure(reason=reason, message=message, failed_at=now, retry_at=now + delay_s, delay_s=delay_s)
