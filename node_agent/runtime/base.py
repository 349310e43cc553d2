"""The seam between pods and whatever runs containers.

A pod is a sandbox (it holds the shared namespaces) and containers that join it. The runtime is the only record of
both: everything that a restarted agent must know travels in ``labels`` and comes back with ``Sandbox`` and
``Container``. Nothing here decides; names and numbers come ready from the caller.

RuntimeFailed
├── ImageMissing      the image is not on this node
├── PullFailed        the registry refused, or could not be reached
├── NoSuchContainer   gone, or never was
└── NotRunning        it is there and does not run
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from enum import Enum
from typing import Protocol

import msgspec

from node_agent.errors import NodeError


class RuntimeFailed(NodeError):
    """The container runtime refused or could not be reached."""


class ImageMissing(RuntimeFailed):
    """The image is not on this node."""


class PullFailed(RuntimeFailed):
    """The image could not be fetched."""


class NoSuchContainer(RuntimeFailed):
    """There is no such container or sandbox."""


class NotRunning(RuntimeFailed):
    """The container is there and does not run."""


class RuntimeVersion(msgspec.Struct, frozen=True):
    """Who runs the containers, as nodeInfo shows it: ``docker://20.10.24``."""

    name: str
    version: str
    root_dir: str  # the file system that images and containers fill
    cgroup_driver: str = ""

    def __str__(self) -> str:
        return f"{self.name}://{self.version}"


class PodRef(msgspec.Struct, frozen=True):
    """Which pod something belongs to; only the UID is unique."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class State(Enum):
    """Where a container stands."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox to be made."""

    pod: PodRef
    attempt: int
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    reap_orphans: bool = False  # a process 1 that buries what containers sharing its PID namespace leave
    sysctls: Mapping[str, str] = {}
    handler: str = ""  # which of the engine's runtimes, "" for its own choice
    labels: Mapping[str, str] = {}


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox as the runtime has it. pid: its process on the host, 0 unless it runs."""

    id: str
    pod: PodRef
    attempt: int
    running: bool
    pid: int = 0
    created_at: float = 0.0
    labels: Mapping[str, str] = {}


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A path of the host seen inside the container; both absolute, the source exists.

    propagation: "" for none: what either side mounts below stays unseen by the other as far as the engine permits.
    """

    source: str
    target: str
    read_only: bool = False
    propagation: str = ""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel enforces; 0 means no limit. cpu_quota_us is per 100 ms."""

    cpu_shares: int = 2
    cpu_quota_us: int = 0
    memory_bytes: int = 0
    oom_score_adj: int = 1000


class Privileges(msgspec.Struct, frozen=True, kw_only=True):
    """What the processes may do. user: "", "uid" or "uid:gid"."""

    user: str = ""
    groups: tuple[int, ...] = ()
    privileged: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    read_only_root: bool = False
    no_new_privileges: bool = False
    seccomp: str = ""  # "", "unconfined" or a profile's JSON


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A container to be made. An empty command or args keeps the image's entry point or arguments."""

    pod: PodRef
    name: str
    attempt: int
    image: str
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = {}
    working_dir: str = ""
    mounts: Sequence[Mount] = ()
    devices: Sequence[str] = ()
    limits: Limits = Limits()
    privileges: Privileges = Privileges()
    host_network: bool = False
    share_pid_with: str = ""  # id of the sandbox or container whose PID namespace it joins
    host_pid: bool = False
    host_ipc: bool = False
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    handler: str = ""  # as the sandbox's
    labels: Mapping[str, str] = {}


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a pod's container as the runtime has it. Times are Unix seconds, 0.0 if they have not come."""

    id: str
    pod: PodRef
    name: str
    attempt: int
    sandbox_id: str
    state: State
    image: str
    image_id: str = ""
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""  # why it could not be started
    tty: bool = False
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    labels: Mapping[str, str] = {}
    limits: Limits = Limits()


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image on this node. user: what its configuration names, "" for root."""

    id: str
    names: tuple[str, ...] = ()
    size_bytes: int = 0
    user: str = ""
    digest: str = ""  # repository@sha256:..., "" for an image that no registry knows


class Credentials(msgspec.Struct, frozen=True):
    """Whom a registry asks for."""

    username: str
    password: str


class RuntimeEvent(msgspec.Struct, frozen=True):
    """Something happened to a container or sandbox of the pod; look at the runtime to learn what is now."""

    pod_uid: str
    container_id: str
    action: str


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a container's output. since: Unix seconds. stdout and stderr come mixed, in order."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float = 0.0


class Stdout(msgspec.Struct, frozen=True):
    """Bytes of the process's standard output; with a terminal, of everything."""

    data: bytes


class Stderr(msgspec.Struct, frozen=True):
    """Bytes of the process's standard error."""

    data: bytes


Output = Stdout | Stderr


class Session(Protocol):
    """A running exec or attach. Closing it without having read everything is fine."""

    def output(self) -> AsyncIterator[Output]:
        """Yield output until the process ends."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the process's standard input; waits while it does not read."""

    async def close_stdin(self) -> None:
        """Tell the process that no more input comes."""

    async def resize(self, *, width: int, height: int) -> None:
        """Give the terminal a new size; without a terminal nothing happens."""

    async def exit_code(self) -> int:
        """Return the process's exit code once output has ended; 0 for an attach."""

    async def close(self) -> None:
        """Let go of the connection."""


class ContainerRuntime(Protocol):
    """Runs sandboxes and containers. Every method raises RuntimeFailed; ids that are gone give NoSuchContainer."""

    async def version(self) -> RuntimeVersion:
        """Return who runs here; fails while the engine is down."""

    async def sandboxes(self, pod_uid: str = "") -> Sequence[Sandbox]:
        """Return this agent's sandboxes, of one pod or of all, newest first."""

    async def containers(self, pod_uid: str = "") -> Sequence[Container]:
        """Return this agent's containers without sandboxes, of one pod or of all, newest first."""

    async def create_sandbox(self, config: SandboxConfig) -> str:
        """Make a sandbox and return its id; its network namespace has no interface but ``lo``."""

    async def start_sandbox(self, sandbox_id: str) -> Sandbox:
        """Start it; from now on it can be plugged into the network."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop it at once and forget it; no error if it is gone."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Stop it at once, keep the record; no error if it is gone."""

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Make a container in the sandbox's namespaces and return its id. Raises ImageMissing."""

    async def start_container(self, container_id: str) -> Container:
        """Start it and return what it is then; raises RuntimeFailed with the engine's reason."""

    async def update_container(self, container_id: str, limits: Limits) -> None:
        """Enforce other limits from now on; ``oom_score_adj`` stays as it is. Raises RuntimeFailed if it cannot."""

    async def stop_container(self, container_id: str, *, grace_s: float) -> None:
        """Send its stop signal and, after ``grace_s``, SIGKILL; returns when it has ended."""

    async def remove_container(self, container_id: str) -> None:
        """Kill it if it runs and forget it with its output; no error if it is gone."""

    async def image(self, name: str) -> Image | None:
        """Return the image on this node that ``name`` (or id) stands for."""

    async def images(self) -> Sequence[Image]:
        """Return every tagged image on this node."""

    async def pull(self, name: str, credentials: Credentials | None) -> Image:
        """Fetch an image; raises PullFailed."""

    async def remove_image(self, image_id: str) -> None:
        """Remove an image that no container uses."""

    def logs(self, container_id: str, options: LogOptions) -> AsyncGenerator[Output, None]:
        """Yield the container's output; ends when everything there is was given, or with ``follow`` when it ends."""

    async def exec(
        self, container_id: str, command: Sequence[str], *, tty: bool = False, stdin: bool = False
    ) -> Session:
        """Run a command inside; raises NotRunning."""

    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        """Connect to the container's own process; raises NotRunning."""

    def events(self) -> AsyncGenerator[RuntimeEvent, None]:
        """Yield what happens to this agent's containers from now on; ends when the engine goes away.

        The first event has an empty pod_uid and says that the subscription stands.
        """

    async def close(self) -> None:
        """Let go of connections and threads; containers run on."""
