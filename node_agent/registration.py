"""The node's own object: what it is, how it is, that it lives.

``render_status`` is pure. ``Registrar`` keeps the Node and its Lease: the Lease is renewed at every heartbeat, the
status is written when it changed and every ten seconds. It goes on trying while masters are away; pods do not notice.
"""

import asyncio
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from api.errors import AlreadyExists, ApiError, NotFound
from api.kinds.coordination import Lease, LeaseSpec
from api.kinds.core import (
    ContainerImage,
    DaemonEndpoint,
    Node,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeStatus,
    NodeSystemInfo,
)
from api.meta import ObjectMeta, OwnerReference
from client.clock import Clock, micro_timestamp, timestamp
from client.resources import Resources
from node_agent.runtime.base import Image, RuntimeVersion
from node_agent.statistics import Pressure, Size

log = logging.getLogger(__name__)

LEASES = "kube-node-lease"
KUBELET_VERSION = "v1.32.0+trireme"  # as the masters' own: a node may not be ahead of them
_STATUS_S = 10.0
_HEARTBEAT_LIMIT_S = 3.0
_WRITE_LIMIT_S = 15.0
_RETRY_S = 0.5
_LEASE_BEATS = 4
_MIB = 1 << 20
_RESERVED_MEMORY_BYTES = 100 * _MIB
_LOW_MEMORY_BYTES = 100 * _MIB
_LOW_DISK_SHARE = 0.05
_LOW_DISK_BYTES = 5 * 1024 * _MIB
_LOW_PID_SHARE = 0.1
_IMAGES_SHOWN = 50
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class System(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while the host runs."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the conditions are made from. problem: why no pod can be started, "" if one can."""

    pressure: Pressure
    problem: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the Node's status shows."""

    name: str
    address: str
    port: int
    max_pods: int
    system: System
    size: Size
    runtime: RuntimeVersion | None
    images: Sequence[Image]
    health: Health


def read_system() -> System:
    """Read the host's identity. Blocks."""
    return System(
        machine_id=_first_line("/etc/machine-id", "/var/lib/dbus/machine-id"),
        system_uuid=_first_line("/sys/class/dmi/id/product_uuid", "/etc/machine-id"),
        boot_id=_first_line("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
    )


def _first_line(*paths: str) -> str:
    for path in paths:
        try:
            return Path(path).read_text().strip()
        except OSError:
            continue
    return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def may_protect_from_oom() -> bool:
    """Whether this host may give processes a negative OOM score: without CAP_SYS_RESOURCE the kernel refuses."""
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective.split()[1], 16) >> 24 & 1)


def render_labels(name: str, architecture: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the node's labels."""
    own = {"kubernetes.io/hostname": name, "kubernetes.io/arch": architecture, "kubernetes.io/os": "linux"}
    beta = {"beta.kubernetes.io/arch": architecture, "beta.kubernetes.io/os": "linux"}
    return {**beta, **own, **extra}


def render_capacity(size: Size, max_pods: int) -> dict[str, str]:
    """Return what the node has."""
    return {
        "cpu": str(size.cpus),
        "memory": f"{size.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{size.disk_bytes // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": str(max_pods),
    }


def render_allocatable(size: Size, max_pods: int) -> dict[str, str]:
    """Return what pods may ask for: all but what keeps the node itself alive."""
    memory = max(size.memory_bytes - _RESERVED_MEMORY_BYTES, 0) // 1024
    return render_capacity(size, max_pods) | {
        "memory": f"{memory}Ki",
        "ephemeral-storage": str(size.disk_bytes * 9 // 10),
    }


def plan_allocatable(status: NodeStatus) -> dict[str, str | None]:
    """Return what must change of a Node's allocatable for the devices that others say it has; None takes one away.

    Whoever offers them (a device plugin, an operator, an administrator) writes the capacity alone.
    """
    own = {"cpu", "memory", "ephemeral-storage", "pods"}
    foreign = {
        name: amount
        for name, amount in status.capacity.items()
        if name not in own and status.allocatable.get(name) != amount
    }
    gone = {name: None for name in status.allocatable if name not in status.capacity}
    return {**foreign, **gone}


def render_status(facts: Facts, old: Sequence[NodeCondition], now: float) -> NodeStatus:
    """Return the node's status; a condition that did not change keeps its time of transition."""
    system = facts.system
    images = sorted(facts.images, key=lambda image: image.size_bytes, reverse=True)[:_IMAGES_SHOWN]
    return NodeStatus(
        addresses=(
            NodeAddress(type="InternalIP", address=facts.address),
            NodeAddress(type="Hostname", address=facts.name),
        ),
        capacity=render_capacity(facts.size, facts.max_pods),
        allocatable=render_allocatable(facts.size, facts.max_pods),
        conditions=_conditions(facts.health, old, now),
        daemon_endpoints=NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=facts.port)),
        images=tuple(ContainerImage(names=image.names, size_bytes=image.size_bytes) for image in images),
        node_info=NodeSystemInfo(
            architecture=system.architecture,
            boot_id=system.boot_id,
            container_runtime_version=str(facts.runtime) if facts.runtime else "docker://unknown",
            kernel_version=system.kernel,
            kube_proxy_version=KUBELET_VERSION,
            kubelet_version=KUBELET_VERSION,
            machine_id=system.machine_id,
            operating_system="linux",
            os_image=system.os_image,
            system_uuid=system.system_uuid,
        ),
    )


def _conditions(health: Health, old: Sequence[NodeCondition], now: float) -> tuple[NodeCondition, ...]:
    left = health.pressure
    few_pids = left.pids_used > left.pids_limit * (1 - _LOW_PID_SHARE)
    low_disk = left.disk_available_bytes < min(left.disk_bytes * _LOW_DISK_SHARE, _LOW_DISK_BYTES)
    low_memory = left.memory_available_bytes < _LOW_MEMORY_BYTES
    wanted = [
        _pressure("MemoryPressure", "Memory", "sufficient memory available", low=low_memory),
        _pressure("DiskPressure", "Disk", "no disk pressure", low=low_disk),
        _pressure("PIDPressure", "PID", "sufficient PID available", low=few_pids),
        NodeCondition(type="Ready", status="False", reason="KubeletNotReady", message=health.problem)
        if health.problem
        else NodeCondition(
            type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status"
        ),
    ]
    before = {condition.type: condition for condition in old}
    own = {condition.type for condition in wanted}
    foreign = (condition for condition in old if condition.type not in own)
    return (*foreign, *(_dated(each, before.get(each.type), now) for each in wanted))


def _pressure(kind: str, word: str, fine: str, *, low: bool) -> NodeCondition:
    if low:
        reason, message = f"KubeletHasInsufficient{word}", f"kubelet has insufficient {word.lower()} available"
        if word == "Disk":
            reason, message = "KubeletHasDiskPressure", "kubelet has disk pressure"
        return NodeCondition(type=kind, status="True", reason=reason, message=message)
    reason = "KubeletHasNoDiskPressure" if word == "Disk" else f"KubeletHasSufficient{word}"
    return NodeCondition(type=kind, status="False", reason=reason, message=f"kubelet has {fine}")


def _dated(condition: NodeCondition, old: NodeCondition | None, now: float) -> NodeCondition:
    stamp = timestamp(now)
    since = old.last_transition_time if old and old.status == condition.status else stamp
    return msgspec.structs.replace(condition, last_heartbeat_time=stamp, last_transition_time=since or stamp)


def differs(old: NodeStatus, new: NodeStatus) -> bool:
    """Whether anything but heartbeat times changed."""

    def undated(status: NodeStatus) -> NodeStatus:
        bare = tuple(msgspec.structs.replace(c, last_heartbeat_time="") for c in status.conditions)
        return msgspec.structs.replace(status, conditions=bare)

    return undated(old) != undated(new)


class Registrar:
    """Keeps the Node object and its Lease.

    look: returns the facts of the moment. uid: of the Node, "" until it is known.
    """

    def __init__(
        self,
        resources: Resources,
        look: Callable[[], "asyncio.Future[Facts] | asyncio.Task[Facts]"],
        *,
        name: str,
        labels: Mapping[str, str],
        heartbeat_s: float,
        clock: Clock,
    ) -> None:
        self._resources = resources
        self._look = look
        self._name = name
        self._labels = labels
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._written: NodeStatus | None = None
        self._node: Node | None = None
        self._lease_owners: tuple[OwnerReference, ...] = ()  # as last written
        self._soon = asyncio.Event()
        self.registered = asyncio.Event()

    @property
    def node(self) -> Node | None:
        """The Node as last answered by the API."""
        return self._node

    async def look_at_node(self) -> Node | None:
        """Return the Node as it is now, or as last answered while the masters do not answer."""
        try:
            async with asyncio.timeout(_HEARTBEAT_LIMIT_S):
                self._node = await self._resources.get(Node, self._name)
        except (ApiError, TimeoutError) as exc:
            log.warning("node not looked at error=%s", exc or "timeout")
        return self._node

    def refresh(self) -> None:
        """Something that the status shows changed: look now."""
        self._soon.set()

    async def run(self) -> None:
        """Register, then keep both objects until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_status(), name="node status")
            tasks.create_task(self._keep_lease(), name="node lease")

    async def _keep_status(self) -> None:
        while True:
            self._soon.clear()  # what changes from here on may be missing in what is written now
            try:
                async with asyncio.timeout(_WRITE_LIMIT_S):
                    await self._write_status()
            except (ApiError, TimeoutError) as exc:
                log.warning("node status not written error=%s", exc or "timeout")
                await self._clock.sleep(_RETRY_S)
                continue
            self.registered.set()
            try:
                async with asyncio.timeout(_STATUS_S):
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def _write_status(self) -> None:
        facts = await self._look()
        if self._node is None:
            self._node = await self._ensure_node(facts)
        old = self._written or self._node.status
        status = render_status(facts, self._node.status.conditions if self._node else (), self._clock.time())
        document = msgspec.json.decode(msgspec.json.encode(status))
        if self._written is not None and not differs(old, status):
            # Nothing new: the heartbeat times alone.
            document = {"conditions": document["conditions"]}
        try:
            patch = {"status": document}
            self._node = await self._resources.patch(Node, self._name, patch, subresource="status")
            if allocatable := plan_allocatable(self._node.status):
                patch = {"status": {"allocatable": allocatable}}
                self._node = await self._resources.patch(Node, self._name, patch, subresource="status")
        except NotFound:
            self._node = self._written = None
            raise
        self._written = status

    async def _ensure_node(self, facts: Facts) -> Node:
        labels = render_labels(self._name, facts.system.architecture, self._labels)
        node = Node(metadata=ObjectMeta(name=self._name, labels=labels))
        status = render_status(facts, (), self._clock.time())
        try:
            created = await self._resources.create(msgspec.structs.replace(node, status=status))
        except AlreadyExists:
            found = await self._resources.get(Node, self._name)
            if any(found.metadata.labels.get(key) != value for key, value in labels.items()):
                found = await self._resources.patch(Node, self._name, {"metadata": {"labels": labels}})
            return found
        log.info("node registered name=%s", self._name)
        return created

    async def _keep_lease(self) -> None:
        await self.registered.wait()
        while True:
            started = self._clock.monotonic()
            try:
                async with asyncio.timeout(max(_HEARTBEAT_LIMIT_S, self._heartbeat_s)):
                    await self._renew()
            except (ApiError, TimeoutError) as exc:
                log.warning("heartbeat not delivered error=%s", exc or "timeout")
            pause_s = self._heartbeat_s - (self._clock.monotonic() - started)
            await self._clock.sleep(max(pause_s, self._heartbeat_s / 10))

    async def _renew(self) -> None:
        now, owners = micro_timestamp(self._clock.time()), self._owners()
        patch: dict[str, object] = {"spec": {"renewTime": now}}
        if owners != self._lease_owners:
            patch["metadata"] = {"ownerReferences": [msgspec.to_builtins(owner) for owner in owners]}
        try:
            await self._resources.patch(Lease, self._name, patch, namespace=LEASES)
        except NotFound:
            await self._resources.create(self._lease(now, owners))
        self._lease_owners = owners

    def _owners(self) -> tuple[OwnerReference, ...]:
        """Return the Node that the lease goes with; none while this node is not registered."""
        if self._node is None:
            return ()
        uid = self._node.metadata.uid
        return (OwnerReference(api_version="v1", kind="Node", name=self._name, uid=uid),)

    def _lease(self, now: str, owners: tuple[OwnerReference, ...]) -> Lease:
        spec = LeaseSpec(
            holder_identity=self._name,
            lease_duration_seconds=max(round(self._heartbeat_s * _LEASE_BEATS), 1),
            renew_time=now,
        )
        meta = ObjectMeta(name=self._name, namespace=LEASES, owner_references=owners)
        return Lease(metadata=meta, spec=spec)
