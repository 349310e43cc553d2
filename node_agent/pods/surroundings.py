"""What a pod worker uses and does not own: the seams to network, API and events, and the node's facts."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from api.kinds.core import ConfigMap, Node, Secret, Service
from api.kinds.pods import Pod, PodStatus
from node_agent.network.host_ports import HostPort
from node_agent.pods.checks import Ask
from node_agent.pods.containers import NodeNames
from node_agent.pods.images import Images
from node_agent.pods.volume_files import TokenRequest
from node_agent.runtime.base import ContainerRuntime


class Address(Protocol):
    """Where a pod is plugged in."""

    @property
    def address(self) -> str:
        """The pod's IPv4 address."""


class Network(Protocol):
    """Plugs sandboxes in; ``node_agent.network.plumbing.PodNetwork`` is the real one."""

    async def attach(self, sandbox: int, pod_key: str, ports: tuple[HostPort, ...] = ()) -> Address:
        """Plug in the network namespace of process ``sandbox``; repeating it gives the same answer.

        ports: the node's ports that lead to the pod.
        """

    async def detach(self, pod_key: str) -> None:
        """Unplug the pod and free its address; no error if it is not there."""


class PodObjects(Protocol):
    """The objects that pods name. Missing ones are left out of the answers."""

    async def config_maps(self, namespace: str, names: Collection[str]) -> Mapping[str, ConfigMap]:
        """Return name -> object."""

    async def secrets(self, namespace: str, names: Collection[str]) -> Mapping[str, Secret]:
        """Return name -> object."""

    async def token(self, pod: Pod, request: TokenRequest) -> str:
        """Return a token of the pod's service account, bound to the pod."""

    async def handler(self, runtime_class: str) -> str | None:
        """Return which of the engine's runtimes a RuntimeClass means; None if there is no such class."""

    async def services(self) -> tuple[Service, ...]:
        """Return the services known now."""


class PodApi(Protocol):
    """The pod's own object in the API."""

    async def write_status(self, pod: Pod, old: PodStatus, new: PodStatus) -> None:
        """Write what differs from ``old``, which the API has; a pod that is no longer there needs nothing."""

    async def finalize(self, pod: Pod) -> None:
        """Remove the object for good: everything of the pod has ended."""


class NodeObject(Protocol):
    """The node's own object in the API; ``node_agent.registration.Registrar`` keeps it."""

    @property
    def node(self) -> Node | None:
        """The Node as last seen; None: not yet."""

    async def look_at_node(self) -> Node | None:
        """Return it as it is now, if the masters answer."""


class Recorder(Protocol):
    """Where events go; never waits. ``client.events.EventRecorder`` is the real one."""

    def event(self, about: Any, *, kind: str, reason: str, message: str, field_path: str = "") -> None:
        """Record that something happened to an object. kind: "Normal" or "Warning"."""


class NodeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the node has, for values that a pod leaves open."""

    memory_capacity_bytes: int
    allocatable: Mapping[str, str] = {}
    negative_oom_score: bool = False


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker is handed."""

    runtime: ContainerRuntime
    images: Images
    network: Network
    objects: PodObjects
    api: PodApi
    recorder: Recorder
    node: NodeObject
    names: NodeNames
    limits: NodeLimits
    data_dir: Path
    ask: Ask
    now: Callable[[], float] = time.time
