"""What the containers of a pod may not be."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from api import names
from api.errors import Fault
from api.faults import (
    check,
    check_given,
    check_optional,
    duplicate,
    forbidden,
    not_found,
    not_negative,
    one_of,
    port_faults,
    positive,
    required,
    unsupported,
    within,
    wrong,
)
from api.kinds.pods import (
    Container,
    EphemeralContainer,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    PodSpec,
    Probe,
    VolumeMount,
)
from api.kinds.volumes import Volume
from api.validation.paths import climb_faults, local_path_faults
from api.validation.references import env_faults, env_from_faults
from api.validation.resources import requirement_faults, resize_policy_faults
from api.validation.security import container_security_faults

PROTOCOLS = ("SCTP", "TCP", "UDP")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_ONLY_SIDECARS = "may not be set for init containers without restartPolicy=Always"
_NOT_FOR_DEBUGGING = "cannot be set for an Ephemeral Container"
_PROBES = (
    ("liveness_probe", "livenessProbe"),
    ("readiness_probe", "readinessProbe"),
    ("startup_probe", "startupProbe"),
)

AnyContainer = Container | EphemeralContainer


class Surroundings(msgspec.Struct, frozen=True):
    """What the rules for a container depend on."""

    spec: PodSpec
    volumes: Mapping[str, Volume]  # those without faults, by name
    is_pod: bool  # not a template

    @property
    def claims(self) -> Collection[str]:
        """Return the names of the claims for devices that the pod makes."""
        return [each.name for each in self.spec.resource_claims if each.name]


def containers_faults(around: Surroundings, field: str) -> list[Fault]:
    """Return the faults of all containers of the pod spec at ``field``."""
    spec = around.spec
    faults = _regular_faults(around, f"{field}.containers")
    taken = {each.name for each in spec.containers}
    for index, each in enumerate(spec.init_containers):
        faults += _init_faults(each, around, f"{field}.initContainers[{index}]", taken)
    others = set(taken)
    for index, debugger in enumerate(spec.ephemeral_containers):
        faults += _ephemeral_faults(debugger, around, f"{field}.ephemeralContainers[{index}]", taken, others)
    return faults


def _regular_faults(around: Surroundings, field: str) -> list[Fault]:
    containers = around.spec.containers
    if not containers:
        return [required(field)]
    faults: list[Fault] = []
    taken: set[str] = set()
    ports: set[str] = set()
    for index, each in enumerate(containers):
        at = f"{field}[{index}]"
        faults += _common_faults(each, around, at)
        if each.name in taken:
            faults.append(duplicate(f"{at}.name", each.name))
        taken.add(each.name)
        faults += _life_faults(each, around, at) + _resize_policies_faults(each, around, at)
        if each.restart_policy:
            faults.append(forbidden(f"{at}.restartPolicy", "may not be set for non-init containers"))
        faults += _host_port_faults(each, f"{at}.ports", ports)
    return faults + _host_network_faults(around, field)


def _init_faults(container: Container, around: Surroundings, field: str, taken: set[str]) -> list[Fault]:
    faults = _common_faults(container, around, field)
    if container.restart_policy:
        faults += one_of(container.restart_policy, ("Always",), f"{field}.restartPolicy")
    if container.name in taken:
        faults.append(duplicate(f"{field}.name", container.name))
    taken.add(container.name)
    faults += _host_port_faults(container, f"{field}.ports", set())
    if container.restart_policy == "Always":
        return faults + _life_faults(container, around, field) + _resize_policies_faults(container, around, field)
    if container.resize_policy:
        why = "must not be set for init containers"
        faults.append(wrong(f"{field}.resizePolicy", container.resize_policy, why))
    return faults + [
        forbidden(f"{field}.{name}", _ONLY_SIDECARS)
        for attribute, name in (("lifecycle", "lifecycle"), *_PROBES)
        if getattr(container, attribute) is not None
    ]


def _resize_policies_faults(container: Container, around: Surroundings, field: str) -> list[Fault]:
    restarts = around.spec.restart_policy
    return resize_policy_faults(container.resize_policy, f"{field}.resizePolicy", pod_restarts=restarts)


def _ephemeral_faults(
    container: EphemeralContainer, around: Surroundings, field: str, taken: set[str], others: Collection[str]
) -> list[Fault]:
    """Return the faults of a container for debugging; others: the containers that it may look into."""
    faults = _common_faults(container, around, field)
    if container.name in taken:
        faults.append(duplicate(f"{field}.name", container.name))
    taken.add(container.name)
    target = container.target_container_name
    if target and target not in others:
        faults.append(not_found(f"{field}.targetContainerName", target))
    needs = container.resources
    banned: tuple[tuple[str, Any], ...] = (
        ("ports", container.ports),
        ("resources", needs is not None and (needs.limits or needs.requests or needs.claims)),
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
        ("lifecycle", container.lifecycle),
        ("restartPolicy", container.restart_policy),
        ("resizePolicy", container.resize_policy),
    )
    faults += [forbidden(f"{field}.{name}", _NOT_FOR_DEBUGGING) for name, value in banned if value]
    for index, mount in enumerate(container.volume_mounts):
        for name, path in (("subPath", mount.sub_path), ("subPathExpr", mount.sub_path_expr)):
            if path:
                faults.append(forbidden(f"{field}.volumeMounts[{index}].{name}", _NOT_FOR_DEBUGGING))
    return faults


def _common_faults(container: AnyContainer, around: Surroundings, field: str) -> list[Fault]:
    faults = check_given(names.label, container.name, f"{field}.name")
    if not container.image:
        faults.append(required(f"{field}.image"))
    elif around.is_pod and container.image != container.image.strip():
        faults.append(wrong(f"{field}.image", container.image, "must not have leading or trailing whitespace"))
    policy = container.termination_message_policy
    faults += one_of(policy, _MESSAGE_POLICIES, f"{field}.terminationMessagePolicy")
    faults += _ports_faults(container, f"{field}.ports")
    faults += env_faults(container.env, f"{field}.env")
    faults += env_from_faults(container.env_from, f"{field}.envFrom")
    faults += _mounts_faults(container, around.volumes, f"{field}.volumeMounts")
    faults += _devices_faults(container, around.volumes, f"{field}.volumeDevices")
    faults += one_of(container.image_pull_policy, _PULL_POLICIES, f"{field}.imagePullPolicy")
    if container.resources is not None:
        faults += requirement_faults(container.resources, f"{field}.resources", claims=around.claims)
    return faults + container_security_faults(container.security_context, around.spec, f"{field}.securityContext")


def _ports_faults(container: AnyContainer, field: str) -> list[Fault]:
    faults: list[Fault] = []
    taken: set[str] = set()
    for index, port in enumerate(container.ports):
        at = f"{field}[{index}]"
        why = check_optional(names.port_name, port.name, f"{at}.name")
        if port.name and not why and port.name in taken:
            why = [duplicate(f"{at}.name", port.name)]
        taken.add(port.name)
        faults += why
        faults += (
            port_faults(port.container_port, f"{at}.containerPort")
            if port.container_port
            else [required(f"{at}.containerPort")]
        )
        if port.host_port:
            faults += port_faults(port.host_port, f"{at}.hostPort")
        faults += one_of(port.protocol, PROTOCOLS, f"{at}.protocol")
    return faults


def _host_port_faults(container: Container, field: str, taken: set[str]) -> list[Fault]:
    """Return the faults of ports of the host that are ``taken`` already, and add this container's to those."""
    faults = []
    for index, port in enumerate(container.ports):
        key = f"{port.protocol}/{port.host_ip}/{port.host_port}"
        if port.host_port and key in taken:
            faults.append(duplicate(f"{field}[{index}].hostPort", key))
        if port.host_port:
            taken.add(key)
    return faults


def _host_network_faults(around: Surroundings, field: str) -> list[Fault]:
    if not around.spec.host_network:
        return []
    why = "must match `containerPort` when `hostNetwork` is true"
    return [
        wrong(f"{field}[{number}].ports[{index}].hostPort", port.host_port or 0, why)
        for number, container in enumerate(around.spec.containers)
        for index, port in enumerate(container.ports)
        # A template may leave it open: its pods get it when they are made.
        if (around.is_pod or port.host_port) and port.host_port != port.container_port
    ]


def _mounts_faults(container: AnyContainer, volumes: Mapping[str, Volume], field: str) -> list[Fault]:
    faults: list[Fault] = []
    taken: set[str] = set()
    devices = {each.name: each.device_path for each in container.volume_devices}
    for index, mount in enumerate(container.volume_mounts):
        at = f"{field}[{index}]"
        if not mount.name:
            faults.append(required(f"{at}.name"))
        if mount.name not in volumes:
            faults.append(not_found(f"{at}.name", mount.name))
        if not mount.mount_path:
            faults.append(required(f"{at}.mountPath"))
        if mount.mount_path in taken:
            faults.append(wrong(f"{at}.mountPath", mount.mount_path, "must be unique"))
        taken.add(mount.mount_path)
        if mount.name in devices:
            faults.append(wrong(f"{at}.name", mount.name, "must not already exist in volumeDevices"))
        if mount.mount_path in devices.values():
            why = "must not already exist as a path in volumeDevices"
            faults.append(wrong(f"{at}.mountPath", mount.mount_path, why))
        # The real server leaves the index out of what follows.
        faults += _sub_path_faults(mount, at, field) + _sharing_faults(mount, container, field)
    return faults


def _sub_path_faults(mount: VolumeMount, field: str, mounts: str) -> list[Fault]:
    faults: list[Fault] = []
    if mount.sub_path:
        faults += local_path_faults(mount.sub_path, f"{mounts}.subPath")
    if mount.sub_path_expr:
        if mount.sub_path:
            why = "subPathExpr and subPath are mutually exclusive"
            faults.append(wrong(f"{field}.subPathExpr", mount.sub_path_expr, why))
        faults += local_path_faults(mount.sub_path_expr, f"{mounts}.subPathExpr")
    return faults


def _sharing_faults(mount: VolumeMount, container: AnyContainer, field: str) -> list[Fault]:
    """Return the faults of whether later mounts are seen from both sides, and whether they are read-only."""
    faults: list[Fault] = []
    if mount.mount_propagation:
        faults += one_of(mount.mount_propagation, _PROPAGATIONS, f"{field}.mountPropagation")
        context = container.security_context
        if mount.mount_propagation == "Bidirectional" and not (context and context.privileged):
            why = "Bidirectional mount propagation is available only to privileged containers"
            faults.append(forbidden(f"{field}.mountPropagation", why))
    at, wanted = f"{field}.recursiveReadOnly", mount.recursive_read_only
    if wanted and wanted not in ("Disabled", "Enabled", "IfPossible"):
        faults.append(unsupported(at, wanted, ("Disabled", "Enabled", "IfPossible")))
    elif wanted in ("Enabled", "IfPossible"):
        if not mount.read_only:
            faults.append(forbidden(at, "may only be specified when readOnly is true"))
        if mount.mount_propagation not in ("", "None"):
            faults.append(forbidden(at, "may only be specified when mountPropagation is None or not specified"))
    return faults


def _devices_faults(container: AnyContainer, volumes: Mapping[str, Volume], field: str) -> list[Fault]:
    faults: list[Fault] = []
    mounts = {each.name: each.mount_path for each in container.volume_mounts}
    taken_names: set[str] = set()
    taken_paths: set[str] = set()
    for index, device in enumerate(container.volume_devices):
        at, name, path = f"{field}[{index}]", device.name, device.device_path
        volume = volumes.get(name)
        if not name:
            faults.append(required(f"{at}.name"))
        if name in taken_names:
            faults.append(wrong(f"{at}.name", name, "must be unique"))
        if volume is None:
            faults.append(not_found(f"{at}.name", name))
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            faults.append(wrong(f"{at}.name", name, why))
        if not path:
            faults.append(required(f"{at}.devicePath"))
        if path in taken_paths:
            faults.append(wrong(f"{at}.devicePath", path, "must be unique"))
        if climb_faults(path, at):
            faults.append(wrong(f"{at}.devicePath", path, "can not contain backsteps ('..')"))
        if name in mounts:
            faults.append(wrong(f"{at}.name", name, "must not already exist in volumeMounts"))
        if path in mounts.values():
            faults.append(wrong(f"{at}.devicePath", path, "must not already exist as a path in volumeMounts"))
        taken_names.add(name)
        taken_paths.add(path)
    return faults


def _life_faults(container: Container, around: Surroundings, field: str) -> list[Fault]:
    """Return the faults of what is done to a container while it lives."""
    faults: list[Fault] = []
    grace_s = around.spec.termination_grace_period_seconds
    if container.lifecycle is not None:
        faults += _lifecycle_faults(container.lifecycle, grace_s, f"{field}.lifecycle")
    for attribute, name in _PROBES:
        probe: Probe | None = getattr(container, attribute)
        if probe is not None:
            faults += _probe_faults(probe, f"{field}.{name}", ready=name == "readinessProbe")
    return faults


def _lifecycle_faults(lifecycle: Lifecycle, grace_s: int | None, field: str) -> list[Fault]:
    faults: list[Fault] = []
    for handler, name in ((lifecycle.post_start, "postStart"), (lifecycle.pre_stop, "preStop")):
        if handler is not None:
            faults += _handler_faults(handler, f"{field}.{name}")
            if handler.sleep is not None and grace_s is not None and not 0 < handler.sleep.seconds <= grace_s:
                why = (
                    f"must be greater than 0 and less than terminationGracePeriodSeconds ({grace_s}). Enable "
                    "AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
                )
                faults.append(wrong(f"{field}.{name}.sleep", handler.sleep.seconds, why))
    return faults


def _probe_faults(probe: Probe, field: str, *, ready: bool) -> list[Fault]:
    faults = _handler_faults(probe, field)
    for attribute, name in (
        ("initial_delay_seconds", "initialDelaySeconds"), ("timeout_seconds", "timeoutSeconds"),
        ("period_seconds", "periodSeconds"), ("success_threshold", "successThreshold"),
        ("failure_threshold", "failureThreshold"),
    ):  # fmt: skip
        faults += not_negative(getattr(probe, attribute), f"{field}.{name}")
    grace_s = probe.termination_grace_period_seconds
    faults += positive(grace_s, f"{field}.terminationGracePeriodSeconds")
    if ready and grace_s is not None:
        why = "must not be set for readinessProbes"
        faults.append(wrong(f"{field}.terminationGracePeriodSeconds", grace_s, why))
    if not ready and probe.success_threshold not in (None, 1):
        faults.append(wrong(f"{field}.successThreshold", probe.success_threshold, "must be 1"))
    return faults


def _handler_faults(handler: Probe | LifecycleHandler, field: str) -> list[Fault]:
    kinds = (
        ("exec", "exec"),
        ("http_get", "httpGet"),
        ("tcp_socket", "tcpSocket"),
        ("grpc", "grpc"),
        ("sleep", "sleep"),
    )
    every: list[tuple[str, Any]] = [(name, getattr(handler, attribute, None)) for attribute, name in kinds]
    given = [(name, action) for name, action in every if action is not None]
    if not given:
        return [required(field, "must specify a handler type")]
    faults = [forbidden(f"{field}.{name}", "may not specify more than 1 handler type") for name, _ in given[1:]]
    name, action = given[0]
    match name:
        case "exec" if not action.command:
            faults.append(required(f"{field}.exec.command"))
        case "httpGet":
            faults += _http_faults(action, f"{field}.httpGet")
        case "tcpSocket":
            faults += port_faults(action.port, f"{field}.tcpSocket.port")
        case "grpc":
            faults += within(action.port, 1, 65535, f"{field}.grpc.port")
    return faults


def _http_faults(action: HTTPGetAction, field: str) -> list[Fault]:
    faults = [] if action.path else [required(f"{field}.path")]
    faults += port_faults(action.port, f"{field}.port")
    if action.scheme not in ("HTTP", "HTTPS"):
        faults.append(unsupported(f"{field}.scheme", action.scheme, ("HTTP", "HTTPS")))
    for header in action.http_headers:
        faults += check(names.header, header.name, f"{field}.httpHeaders")
    return faults
