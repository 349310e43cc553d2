"""Our words into the engine's and back: pure translation, one function a document.

Labels follow what dockershim wrote (``io.kubernetes.*``), so tools that know those find their way.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from node_agent.runtime.base import (
    Container,
    ContainerConfig,
    Image,
    Limits,
    Mount,
    PodRef,
    Privileges,
    Sandbox,
    SandboxConfig,
    State,
)

NAMESPACE = "io.kubernetes.pod.namespace"
POD = "io.kubernetes.pod.name"
UID = "io.kubernetes.pod.uid"
CONTAINER = "io.kubernetes.container.name"
TYPE = "io.kubernetes.docker.type"
SANDBOX_ID = "io.kubernetes.sandbox.id"
ATTEMPT = "io.trireme.attempt"
AGENT = "io.trireme.agent"
SANDBOX_TYPE = "podsandbox"
CONTAINER_TYPE = "container"

# Ends at once on SIGTERM, so that stopping the engine does not wait for it; the shell's wait buries orphans.
SLEEP_FOR_EVER = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done")
CPU_PERIOD_US = 100_000
_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def render_sandbox(config: SandboxConfig, *, image: str, agent: str) -> dict[str, Any]:
    """Return the create request of a pod sandbox."""
    host: dict[str, Any] = {
        "NetworkMode": "host" if config.host_network else "none",
        "IpcMode": "host" if config.host_ipc else "shareable",
        "CpuShares": 2,
        "LogConfig": _LOG_CONFIG,
        "SecurityOpt": ["no-new-privileges"],
        "Init": config.reap_orphans,
    }
    if config.host_pid:
        host["PidMode"] = "host"
    if config.sysctls:
        host["Sysctls"] = dict(config.sysctls)
    host |= _runtime(config.handler)
    document: dict[str, Any] = {
        "Image": image,
        "Entrypoint": list(SLEEP_FOR_EVER[:1]),
        "Cmd": list(SLEEP_FOR_EVER[1:]),
        "Labels": _labels(config.pod, config.labels, agent, SANDBOX_TYPE, "POD", config.attempt),
        "StopTimeout": 1,
        "HostConfig": host,
    }
    if config.hostname and not config.host_network:
        document["Hostname"] = config.hostname
    return document


def render_container(sandbox_id: str, config: ContainerConfig, *, agent: str) -> dict[str, Any]:
    """Return the create request of a container that joins the sandbox."""
    labels = _labels(config.pod, config.labels, agent, CONTAINER_TYPE, config.name, config.attempt)
    document: dict[str, Any] = {
        "Image": config.image,
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "Labels": labels | {SANDBOX_ID: sandbox_id},
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin_once,
        "HostConfig": _host_config(sandbox_id, config),
        # The image's own health check would only burn CPU: probes are ours.
        "Healthcheck": {"Test": ["NONE"]},
    }
    if config.command:
        document["Entrypoint"] = list(config.command)
        # Without this the image's arguments would follow our command.
        document["Cmd"] = list(config.args)
    elif config.args:
        document["Cmd"] = list(config.args)
    if config.working_dir:
        document["WorkingDir"] = config.working_dir
    if config.privileges.user:
        document["User"] = config.privileges.user
    if config.stop_signal:
        document["StopSignal"] = config.stop_signal
    return document


def _host_config(sandbox_id: str, config: ContainerConfig) -> dict[str, Any]:
    limits, privileges = config.limits, config.privileges
    joined = f"container:{sandbox_id}"
    host: dict[str, Any] = {
        "NetworkMode": "host" if config.host_network else joined,
        "IpcMode": "host" if config.host_ipc else joined,
        "CpuShares": limits.cpu_shares,
        "OomScoreAdj": limits.oom_score_adj,
        "Mounts": [_mount(mount) for mount in config.mounts],
        "Privileged": privileges.privileged,
        "CapAdd": list(privileges.add_capabilities),
        "CapDrop": list(privileges.drop_capabilities),
        "ReadonlyRootfs": privileges.read_only_root,
        "GroupAdd": [str(group) for group in privileges.groups],
        "SecurityOpt": _security_options(privileges),
        "LogConfig": _LOG_CONFIG,
    }
    if config.host_pid:
        host["PidMode"] = "host"
    elif config.share_pid_with:
        host["PidMode"] = f"container:{config.share_pid_with}"
    host |= _runtime(config.handler)
    if limits.cpu_quota_us:
        host |= {"CpuPeriod": CPU_PERIOD_US, "CpuQuota": limits.cpu_quota_us}
    if limits.memory_bytes:
        # Equal to the limit: no swap, so that a limit means memory.
        host |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    if config.devices:
        host["Devices"] = [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in config.devices
        ]
    return host


def render_update(limits: Limits) -> dict[str, Any]:
    """Return the request that changes a running container's limits: to other ones, none is ever taken away."""
    return {
        "CpuShares": limits.cpu_shares,
        # A period goes with a quota only: set alone it would be taken for one.
        **({"CpuPeriod": CPU_PERIOD_US, "CpuQuota": limits.cpu_quota_us} if limits.cpu_quota_us else {}),
        **({"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes} if limits.memory_bytes else {}),
    }


def read_limits(host: Mapping[str, Any]) -> Limits:
    """Return what an inspection says that the kernel enforces."""
    return Limits(
        cpu_shares=int(host.get("CpuShares") or 0),
        cpu_quota_us=max(int(host.get("CpuQuota") or 0), 0),
        memory_bytes=int(host.get("Memory") or 0),
        oom_score_adj=int(host.get("OomScoreAdj") or 0),
    )


def _runtime(handler: str) -> dict[str, str]:
    """Name one of the engine's runtimes; "docker" is the engine itself, as classes have called it since dockershim."""
    return {} if handler in {"", "docker"} else {"Runtime": handler}


def _mount(mount: Mount) -> dict[str, Any]:
    # Left open the engine makes it private, but for its own folder and what that lies in: holding on to what it mounts
    # there would keep it from removing containers, and asking for that is an error.
    options = {"BindOptions": {"Propagation": mount.propagation}} if mount.propagation else {}
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        **options,
    }


def _security_options(privileges: Privileges) -> list[str]:
    options = []
    if privileges.no_new_privileges:
        options.append("no-new-privileges")
    if privileges.seccomp:
        options.append(f"seccomp={privileges.seccomp}")
    return options


def _labels(
    pod: PodRef, more: Mapping[str, str], agent: str, container_type: str, name: str, attempt: int
) -> dict[str, str]:
    return {
        **more,
        NAMESPACE: pod.namespace,
        POD: pod.name,
        UID: pod.uid,
        TYPE: container_type,
        CONTAINER: name,
        ATTEMPT: str(attempt),
        AGENT: agent,
    }


def container_name(pod: PodRef, name: str, attempt: int) -> str:
    """Return the engine's name for a container; the sandbox's is ``POD``."""
    return f"k8s_{name}_{pod.name}_{pod.namespace}_{pod.uid}_{attempt}"


def read_sandbox(document: Mapping[str, Any]) -> Sandbox:
    """Return what an inspection says of a sandbox."""
    labels, state = document["Config"]["Labels"], document["State"]
    return Sandbox(
        id=document["Id"],
        pod=_pod(labels),
        attempt=int(labels[ATTEMPT]),
        running=bool(state["Running"]),
        pid=int(state.get("Pid") or 0),
        created_at=unix_time(document["Created"]),
        labels=labels,
    )


def read_container(document: Mapping[str, Any]) -> Container:
    """Return what an inspection says of a container."""
    labels, state = document["Config"]["Labels"], document["State"]
    return Container(
        id=document["Id"],
        pod=_pod(labels),
        name=labels[CONTAINER],
        attempt=int(labels[ATTEMPT]),
        sandbox_id=labels[SANDBOX_ID],
        state=_state(state),
        image=document["Config"]["Image"],
        image_id=document["Image"],
        pid=int(state.get("Pid") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        tty=bool(document["Config"].get("Tty")),
        created_at=unix_time(document["Created"]),
        started_at=unix_time(state.get("StartedAt") or ""),
        finished_at=unix_time(state.get("FinishedAt") or ""),
        labels=labels,
        limits=read_limits(document.get("HostConfig") or {}),
    )


def _state(state: Mapping[str, Any]) -> State:
    if state.get("Running") or state.get("Paused") or state.get("Restarting"):
        return State.RUNNING
    # A start that failed leaves an error. What has neither started nor failed has not ended either, also while it is
    # being removed: the engine then calls it "removing" or "dead", with an exit code of 0 that is nobody's success.
    started = unix_time(state.get("StartedAt") or "")
    return State.EXITED if started or state.get("Error") else State.CREATED


def _pod(labels: Mapping[str, str]) -> PodRef:
    return PodRef(labels[NAMESPACE], labels[POD], labels[UID])


def read_image(document: Mapping[str, Any]) -> Image:
    """Return an image from an inspection or from an item of the list."""
    digests = [digest for digest in document.get("RepoDigests") or () if "<none>" not in digest]
    tags = [tag for tag in document.get("RepoTags") or () if "<none>" not in tag]
    return Image(
        id=document["Id"],
        names=(*digests, *tags),
        size_bytes=int(document.get("Size") or 0),
        user=(document.get("Config") or {}).get("User") or "",
        digest=digests[0] if digests else "",
    )


def unix_time(text: str) -> float:
    """Return Unix seconds of the engine's RFC 3339 time with nanoseconds; 0.0 for Go's zero time."""
    if not text or text.startswith("0001-"):
        return 0.0
    whole, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:] if rest else ""
    fraction = rest[:digits][:6]
    moment = f"{whole}.{fraction}{zone}" if fraction else text
    return datetime.fromisoformat(moment).timestamp()


def label_filter(agent: str, pod_uid: str, container_type: str) -> list[str]:
    """Return the label conditions that select this agent's containers of one type."""
    return [f"{AGENT}={agent}", f"{TYPE}={container_type}", *([f"{UID}={pod_uid}"] if pod_uid else [])]


def event_filter(agent: str) -> str:
    """Return the ``filters`` parameter of an event subscription."""
    return json.dumps(
        {"type": ["container"], "label": [f"{AGENT}={agent}"], "event": ["start", "die", "oom", "destroy"]}
    )
