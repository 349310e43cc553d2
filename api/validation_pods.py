"""What a pod spec may not be, wherever it stands: in a pod or in a template."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from api import quantity
from api.errors import Fault
from api.faults import (
    annotation_faults,
    duplicate,
    forbidden,
    label_faults,
    label_map_faults,
    one_of,
    port_faults,
    required,
    subdomain_faults,
    unsupported,
    wrong,
)
from api.kinds.pods import Container, EphemeralContainer, Pod, PodSpec, PodTemplateSpec, Probe
from api.kinds.volumes import Volume
from api.validation_pod_parts import env_faults, host_alias_faults, placement_faults, security_faults, source_faults

_ENV_NAME = re.compile(r"[ -<>-~]+")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def pod_faults(pod: Pod) -> list[Fault]:
    """Return the faults of a pod's spec."""
    faults = pod_spec_faults(pod.spec, "spec")
    if why := subdomain_faults(pod.spec.node_name) if pod.spec.node_name else "":
        faults.append(wrong("spec.nodeName", pod.spec.node_name, why))
    return faults


def template_faults(template: PodTemplateSpec, field: str, *, restart: Iterable[str] = ("Always",)) -> list[Fault]:
    """Return the faults of a pod template whose pods must restart by one of the policies ``restart``."""
    faults = label_map_faults(template.metadata.labels, f"{field}.metadata.labels")
    faults += annotation_faults(template.metadata.annotations, f"{field}.metadata.annotations")
    faults += pod_spec_faults(template.spec, f"{field}.spec")
    if template.spec.restart_policy not in restart:
        faults.append(unsupported(f"{field}.spec.restartPolicy", template.spec.restart_policy, restart))
    return faults


def pod_spec_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of a defaulted pod spec."""
    faults: list[Fault] = []
    volumes = _volume_faults(spec.volumes, f"{field}.volumes", faults)
    if not spec.containers:
        faults.append(required(f"{field}.containers"))
    names: set[str] = set()
    for list_name, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(containers):
            at = f"{field}.{list_name}[{index}]"
            faults += _container_faults(container, at, volumes)
            if container.name in names:
                faults.append(duplicate(f"{at}.name", container.name))
            names.add(container.name)
    for index, debugger in enumerate(spec.ephemeral_containers):
        faults += _ephemeral_faults(debugger, f"{field}.ephemeralContainers[{index}]", names)
    faults += _host_port_faults(spec, field)
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        faults.append(unsupported(f"{field}.restartPolicy", spec.restart_policy, ("Always", "OnFailure", "Never")))
    if spec.dns_policy not in ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"):
        policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        faults.append(unsupported(f"{field}.dnsPolicy", spec.dns_policy, policies))
    if spec.dns_policy == "None" and not (spec.dns_config and spec.dns_config.nameservers):
        faults.append(
            required(
                f"{field}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
            )
        )
    for name, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value and (why := label_faults(value)):
            faults.append(wrong(f"{field}.{name}", value, why))
    if (spec.termination_grace_period_seconds or 0) < 0:
        faults.append(wrong(f"{field}.terminationGracePeriodSeconds", spec.termination_grace_period_seconds, _NEGATIVE))
    if spec.active_deadline_seconds is not None and spec.active_deadline_seconds < 1:
        faults.append(wrong(f"{field}.activeDeadlineSeconds", spec.active_deadline_seconds, "must be greater than 0"))
    faults += label_map_faults(spec.node_selector, f"{field}.nodeSelector")
    faults += placement_faults(spec, field) + host_alias_faults(spec, f"{field}.hostAliases")
    if spec.service_account_name and (why := subdomain_faults(spec.service_account_name)):
        faults.append(wrong(f"{field}.serviceAccountName", spec.service_account_name, why))
    return faults + _toleration_faults(spec, f"{field}.tolerations")


_NEGATIVE = "must be greater than or equal to 0"


def _container_faults(container: Container, field: str, volumes: set[str]) -> list[Fault]:
    faults: list[Fault] = []
    if not container.name:
        faults.append(required(f"{field}.name"))
    elif why := label_faults(container.name):
        faults.append(wrong(f"{field}.name", container.name, why))
    if not container.image:
        faults.append(required(f"{field}.image"))
    elif container.image != container.image.strip():
        faults.append(wrong(f"{field}.image", container.image, "must not have leading or trailing whitespace"))
    if container.image_pull_policy not in _PULL_POLICIES:
        faults.append(unsupported(f"{field}.imagePullPolicy", container.image_pull_policy, _PULL_POLICIES))
    faults += _ports_faults(container, f"{field}.ports")
    for index, env in enumerate(container.env):
        at = f"{field}.env[{index}]"
        if not env.name:
            faults.append(required(f"{at}.name"))
        elif not _ENV_NAME.fullmatch(env.name):
            faults.append(
                wrong(
                    f"{at}.name",
                    env.name,
                    "a valid environment variable name must consist only of printable ASCII characters other than '='",
                )
            )
        if env.value and env.value_from is not None:
            faults.append(wrong(f"{at}.valueFrom", "", "may not be specified when `value` is not empty"))
        faults += env_faults(env, f"{at}.valueFrom")
    faults += _mount_faults(container, f"{field}.volumeMounts", volumes)
    faults += _resource_faults(container, f"{field}.resources")
    faults += security_faults(container, f"{field}.securityContext")
    faults += one_of(
        container.termination_message_policy, ("FallbackToLogsOnError", "File"), f"{field}.terminationMessagePolicy"
    )
    for name in ("liveness_probe", "readiness_probe", "startup_probe"):
        probe: Probe | None = getattr(container, name)
        if probe is not None:
            faults += _probe_faults(
                probe, f"{field}.{name.removesuffix('_probe')}Probe", ready=name == "readiness_probe"
            )
    return faults


def _ephemeral_faults(container: EphemeralContainer, field: str, names: set[str]) -> list[Fault]:
    faults: list[Fault] = []
    if not container.name:
        faults.append(required(f"{field}.name"))
    elif why := label_faults(container.name):
        faults.append(wrong(f"{field}.name", container.name, why))
    if container.name in names:
        faults.append(duplicate(f"{field}.name", container.name))
    names.add(container.name)
    if not container.image:
        faults.append(required(f"{field}.image"))
    for attribute, name in (
        ("liveness_probe", "livenessProbe"), ("readiness_probe", "readinessProbe"), ("startup_probe", "startupProbe"),
        ("lifecycle", "lifecycle"), ("ports", "ports"),
    ):  # fmt: skip
        if getattr(container, attribute):
            faults.append(forbidden(f"{field}.{name}", "cannot be set for an Ephemeral Container"))
    return faults


def _ports_faults(container: Container, field: str) -> list[Fault]:
    faults = []
    names: set[str] = set()
    for index, port in enumerate(container.ports):
        at = f"{field}[{index}]"
        if port.name:
            faults += port_faults(port.name, f"{at}.name")
            if port.name in names:
                faults.append(duplicate(f"{at}.name", port.name))
            names.add(port.name)
        if not port.container_port:
            faults.append(required(f"{at}.containerPort"))
        else:
            faults += port_faults(port.container_port, f"{at}.containerPort")
        if port.host_port:
            faults += port_faults(port.host_port, f"{at}.hostPort")
        if port.protocol not in _PROTOCOLS:
            faults.append(unsupported(f"{at}.protocol", port.protocol, _PROTOCOLS))
    return faults


def _host_port_faults(spec: PodSpec, field: str) -> list[Fault]:
    taken: set[tuple[Any, ...]] = set()
    faults = []
    for number, container in enumerate(spec.containers):
        for index, port in enumerate(container.ports):
            at = f"{field}.containers[{number}].ports[{index}].hostPort"
            if spec.host_network and port.host_port != port.container_port:
                faults.append(wrong(at, port.host_port, "must match `containerPort` when `hostNetwork` is true"))
            key = (port.host_port, port.protocol, port.host_ip)
            if port.host_port and key in taken:
                faults.append(duplicate(at, f"{port.protocol}/{port.host_ip}/{port.host_port}"))
            taken.add(key)
    return faults


def _mount_faults(container: Container, field: str, volumes: set[str]) -> list[Fault]:
    faults = []
    paths: set[str] = set()
    for index, mount in enumerate(container.volume_mounts):
        at = f"{field}[{index}]"
        if not mount.name:
            faults.append(required(f"{at}.name"))
        elif mount.name not in volumes:
            faults.append(Fault(f"{at}.name", f'Not found: "{mount.name}"', "FieldValueNotFound"))
        if not mount.mount_path:
            faults.append(required(f"{at}.mountPath"))
        elif mount.mount_path in paths:
            faults.append(wrong(f"{at}.mountPath", mount.mount_path, "must be unique"))
        paths.add(mount.mount_path)
        if mount.sub_path.startswith("/"):
            faults.append(wrong(f"{at}.subPath", mount.sub_path, "must be a relative path"))
        if ".." in mount.sub_path.split("/"):
            faults.append(wrong(f"{at}.subPath", mount.sub_path, "must not contain '..'"))
    return faults


def _resource_faults(container: Container, field: str) -> list[Fault]:
    resources = container.resources
    if resources is None:
        return []
    faults = []
    for side, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for name, amount in amounts.items():
            if quantity.parse(amount) < 0:
                faults.append(wrong(f"{field}.{side}[{name}]", amount, _NEGATIVE))
            standard = name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-")
            if not standard and "/" not in name:
                faults.append(wrong(f"{field}.{side}[{name}]", name, "must be a standard resource for containers"))
    for name, amount in resources.requests.items():
        limit = resources.limits.get(name)
        if limit is not None and quantity.parse(amount) > quantity.parse(limit):
            faults.append(wrong(f"{field}.requests", amount, f"must be less than or equal to {name} limit of {limit}"))
    return faults


def _probe_faults(probe: Probe, field: str, *, ready: bool) -> list[Fault]:
    handlers = [each for each in (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc) if each is not None]
    faults = []
    if not handlers:
        faults.append(required(field, "must specify a handler type"))
    if len(handlers) > 1:
        faults.append(forbidden(field, "may not specify more than 1 handler type"))
    if probe.http_get is not None:
        faults += port_faults(probe.http_get.port, f"{field}.httpGet.port")
    if probe.tcp_socket is not None:
        faults += port_faults(probe.tcp_socket.port, f"{field}.tcpSocket.port")
    if probe.exec is not None and not probe.exec.command:
        faults.append(required(f"{field}.exec.command"))
    for attribute, name in (
        ("initial_delay_seconds", "initialDelaySeconds"), ("timeout_seconds", "timeoutSeconds"),
        ("period_seconds", "periodSeconds"), ("success_threshold", "successThreshold"),
        ("failure_threshold", "failureThreshold"),
    ):  # fmt: skip
        value = getattr(probe, attribute)
        if value is not None and value < 0:
            faults.append(wrong(f"{field}.{name}", value, _NEGATIVE))
    if not ready and probe.success_threshold not in (None, 1):
        faults.append(wrong(f"{field}.successThreshold", probe.success_threshold, "must be 1"))
    return faults


def _volume_faults(volumes: Sequence[Volume], field: str, faults: list[Fault]) -> set[str]:
    """Append the faults of ``volumes`` to ``faults``; return the names that mounts may use."""
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        at = f"{field}[{index}]"
        if why := label_faults(volume.name) if volume.name else "":
            faults.append(wrong(f"{at}.name", volume.name, why))
        elif not volume.name:
            faults.append(required(f"{at}.name"))
        if volume.name in names:
            faults.append(duplicate(f"{at}.name", volume.name))
        names.add(volume.name)
        sources = [
            info.encode_name
            for info in msgspec.structs.fields(volume)
            if info.name != "name" and getattr(volume, info.name) is not None
        ]
        if not sources:
            faults.append(required(at, "must specify a volume type"))
        faults += [forbidden(f"{at}.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
        faults += source_faults(volume, at)
    return names


def _toleration_faults(spec: PodSpec, field: str) -> list[Fault]:
    faults = []
    for index, each in enumerate(spec.tolerations):
        at = f"{field}[{index}]"
        operator = each.operator or "Equal"
        if operator not in ("Equal", "Exists"):
            faults.append(unsupported(f"{at}.operator", operator, ("Equal", "Exists")))
        if not each.key and operator != "Exists":
            faults.append(
                wrong(
                    f"{at}.operator",
                    each.operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if operator == "Exists" and each.value:
            faults.append(wrong(f"{at}.operator", each.value, "value must be empty when `operator` is 'Exists'"))
        if each.effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            faults.append(unsupported(f"{at}.effect", each.effect, ("NoSchedule", "PreferNoSchedule", "NoExecute")))
        if each.toleration_seconds is not None and each.effect != "NoExecute":
            faults.append(
                wrong(f"{at}.effect", each.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
            )
    return faults


# What an update may change of a pod's spec: the rest is settled once it is bound.
_MUTABLE = {"active_deadline_seconds", "tolerations", "scheduling_gates", "ephemeral_containers"}


def pod_change_faults(old: Pod, new: Pod) -> list[Fault]:
    """Return what an update may not do to a pod's spec."""
    faults = []
    if any(each not in new.spec.tolerations for each in old.spec.tolerations):
        faults.append(
            forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
        )
    if any(each not in old.spec.scheduling_gates for each in new.spec.scheduling_gates):
        faults.append(forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate"))
    before, after = old.spec.active_deadline_seconds, new.spec.active_deadline_seconds
    if before is not None and (after is None or after > before):
        why = f"must be less than or equal to previous value {before}"
        faults.append(wrong("spec.activeDeadlineSeconds", after, why))
    known = {each.name: each for each in new.spec.ephemeral_containers}
    for index, each in enumerate(old.spec.ephemeral_containers):
        if known.get(each.name) != each:
            why = "existing ephemeral containers may not be removed" if each.name not in known else "may not be changed"
            faults.append(forbidden(f"spec.ephemeralContainers[{index}]", why))
    settled = new.spec
    if (old.spec.termination_grace_period_seconds or 0) < 0 and settled.termination_grace_period_seconds == 1:
        settled = msgspec.structs.replace(
            settled, termination_grace_period_seconds=old.spec.termination_grace_period_seconds
        )
    if _comparable(old.spec, old.spec) != _comparable(settled, old.spec):
        faults.append(forbidden("spec", _POD_CHANGES))
    return faults


_POD_CHANGES = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _comparable(spec: PodSpec, settled: PodSpec) -> PodSpec:
    """Return ``spec`` with everything that may change taken from ``settled``."""

    def without_images(mine: Sequence[Container], theirs: Sequence[Container]) -> tuple[Container, ...]:
        images = [each.image for each in theirs] + [""] * len(mine)
        return tuple(msgspec.structs.replace(each, image=images[index]) for index, each in enumerate(mine))

    return msgspec.structs.replace(
        spec,
        containers=without_images(spec.containers, settled.containers),
        init_containers=without_images(spec.init_containers, settled.init_containers),
        **{name: getattr(settled, name) for name in _MUTABLE},
    )
