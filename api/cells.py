"""The cells that ``kubectl get`` shows of one object, kind by kind; ``api.columns`` names their columns.

What a cell says when a value is missing (``<none>``, ``<unset>``) is what people know from the real server.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.durations import human, parse_time, since
from api.kinds import (
    apps,
    autoscaling,
    batch,
    certificates,
    core,
    discovery,
    events,
    networking,
    pods,
    policy,
    rbac,
    runtime,
    storage,
    volumes,
)
from api.meta import LabelSelector, Resource
from api.pod_summary import summarize

Cells = list[Any]
NONE, UNSET = "<none>", "<unset>"
MAX_ENDPOINTS = 3
MAX_HOSTS = 3


def _age(obj: Resource, now: float) -> str:
    return since(obj.metadata.creation_timestamp, now)


def plain(obj: Resource, now: float) -> Cells:
    """Return name and age, which every kind has."""
    return [obj.metadata.name, _age(obj, now)]


def pod(pod: pods.Pod, now: float) -> Cells:
    """Return the cells of a pod."""
    summary = summarize(pod)
    gates = [each.condition_type for each in pod.spec.readiness_gates]
    met = sum(1 for each in pod.status.conditions if each.type in gates and each.status == "True")
    return [
        pod.metadata.name,
        f"{summary.ready}/{summary.containers}",
        summary.status,
        summary.restarts_text(now),
        _age(pod, now),
        pod.status.pod_ip or (pod.status.pod_ips[0].ip if pod.status.pod_ips else NONE),
        pod.spec.node_name or NONE,
        pod.status.nominated_node_name or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]


_ROLE, _OLD_ROLE = "node-role.kubernetes.io/", "kubernetes.io/role"


def node(node: core.Node, now: float) -> Cells:
    """Return the cells of a node."""
    ready = next((each for each in node.status.conditions if each.type == "Ready"), None)
    status = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    labels = node.metadata.labels
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)} | {labels.get(_OLD_ROLE, "")}
    info = node.status.node_info or core.NodeSystemInfo()
    addresses = {each.type: each.address for each in reversed(node.status.addresses)}
    return [
        node.metadata.name,
        f"{status},SchedulingDisabled" if node.spec.unschedulable else status,
        ",".join(sorted(roles - {""})) or NONE,
        _age(node, now),
        info.kubelet_version,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.os_image or "<unknown>",
        info.kernel_version or "<unknown>",
        info.container_runtime_version or "<unknown>",
    ]


def _containers(template: pods.PodTemplateSpec) -> Cells:
    containers = template.spec.containers
    return [",".join(each.name for each in containers), ",".join(each.image for each in containers)]


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels as a selector: ``a=b,c=d``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or NONE


_SIGNS = {"In": "in", "NotIn": "notin"}


def format_selector(selector: LabelSelector | None) -> str:
    """Return an object's selector as text; an absent one and an empty one select nothing and everything."""
    if selector is None:
        return NONE
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for each in selector.match_expressions:
        if each.operator in _SIGNS:
            parts.append(f"{each.key} {_SIGNS[each.operator]} ({','.join(sorted(each.values))})")
        else:
            parts.append(each.key if each.operator == "Exists" else f"!{each.key}")
    return ",".join(sorted(parts)) or NONE


def deployment(obj: apps.Deployment, now: float) -> Cells:
    """Return the cells of a deployment."""
    status = obj.status
    return [
        obj.metadata.name,
        f"{status.ready_replicas or 0}/{_wanted(obj.spec.replicas)}",
        status.updated_replicas or 0,
        status.available_replicas or 0,
        _age(obj, now),
        *_containers(obj.spec.template),
        format_selector(obj.spec.selector),
    ]


def _wanted(replicas: int | None) -> int:
    return 1 if replicas is None else replicas


def replica_set(obj: apps.ReplicaSet, now: float) -> Cells:
    """Return the cells of a replica set."""
    counts = [_wanted(obj.spec.replicas), obj.status.replicas, obj.status.ready_replicas or 0]
    selector = format_selector(obj.spec.selector)
    return [obj.metadata.name, *counts, _age(obj, now), *_containers(obj.spec.template), selector]


def replication_controller(obj: core.ReplicationController, now: float) -> Cells:
    """Return the cells of a replication controller."""
    counts = [_wanted(obj.spec.replicas), obj.status.replicas, obj.status.ready_replicas or 0]
    template = obj.spec.template or pods.PodTemplateSpec()
    return [obj.metadata.name, *counts, _age(obj, now), *_containers(template), format_labels(obj.spec.selector)]


def daemon_set(obj: apps.DaemonSet, now: float) -> Cells:
    """Return the cells of a daemon set."""
    status = obj.status
    return [
        obj.metadata.name,
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled or 0,
        status.number_available or 0,
        format_labels(obj.spec.template.spec.node_selector),
        _age(obj, now),
        *_containers(obj.spec.template),
        format_selector(obj.spec.selector),
    ]


def stateful_set(obj: apps.StatefulSet, now: float) -> Cells:
    """Return the cells of a stateful set."""
    ready = f"{obj.status.ready_replicas or 0}/{_wanted(obj.spec.replicas)}"
    return [obj.metadata.name, ready, _age(obj, now), *_containers(obj.spec.template)]


def _job_status(job: batch.Job) -> str:
    met = {each.type for each in job.status.conditions if each.status == "True"}
    for condition in ("Complete", "Failed"):
        if condition in met:
            return condition
    if job.metadata.deletion_timestamp:
        return "Terminating"
    return next((each for each in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if each in met), "Running")


def job(job: batch.Job, now: float) -> Cells:
    """Return the cells of a job."""
    done, parallelism = job.status.succeeded or 0, job.spec.parallelism or 0
    if job.spec.completions is not None:
        completions = f"{done}/{job.spec.completions}"
    else:
        completions = f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"
    started, ended = parse_time(job.status.start_time), parse_time(job.status.completion_time)
    duration = "" if started is None else human((ended or now) - started)
    selector = format_selector(job.spec.selector)
    age = _age(job, now)
    return [job.metadata.name, _job_status(job), completions, duration, age, *_containers(job.spec.template), selector]


def cron_job(obj: batch.CronJob, now: float) -> Cells:
    """Return the cells of a cron job."""
    spec = obj.spec
    last = since(obj.status.last_schedule_time, now) if obj.status.last_schedule_time else NONE
    return [
        obj.metadata.name,
        spec.schedule,
        spec.time_zone or NONE,
        str(bool(spec.suspend)),
        len(obj.status.active),
        last,
        _age(obj, now),
        *_containers(spec.job_template.spec.template),
        format_selector(spec.job_template.spec.selector),
    ]


def service(service: core.Service, now: float) -> Cells:
    """Return the cells of a service."""
    spec = service.spec
    ports = [
        f"{each.port}:{each.node_port}/{each.protocol}" if each.node_port else f"{each.port}/{each.protocol}"
        for each in spec.ports
    ]
    return [
        service.metadata.name,
        spec.type,
        spec.cluster_ip or (spec.cluster_ips[0] if spec.cluster_ips else NONE),
        _external_ip(service),
        ",".join(ports) or NONE,
        _age(service, now),
        format_labels(spec.selector),
    ]


def _external_ip(service: core.Service) -> str:
    spec = service.spec
    if spec.type == "ExternalName":
        return spec.external_name
    addresses = list(spec.external_ips)
    if spec.type == "LoadBalancer":
        balancer = service.status.load_balancer
        given = [each.ip or each.hostname for each in balancer.ingress] if balancer else []
        return ",".join(given + addresses) or "<pending>"
    return ",".join(addresses) or NONE


def _shortened(shown: Sequence[str], empty: str) -> str:
    if len(shown) > MAX_ENDPOINTS:
        return f"{','.join(shown[:MAX_ENDPOINTS])} + {len(shown) - MAX_ENDPOINTS} more..."
    return ",".join(shown) or empty


def endpoints(obj: core.Endpoints, now: float) -> Cells:
    """Return the cells of endpoints."""
    shown = []
    for subset in obj.subsets:
        if not subset.ports:
            shown += [each.ip for each in subset.addresses]
        for port in subset.ports:
            shown += [f"{_in_url(each.ip)}:{port.port}" for each in subset.addresses]
    return [obj.metadata.name, _shortened(shown, NONE), _age(obj, now)]


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def endpoint_slice(obj: discovery.EndpointSlice, now: float) -> Cells:
    """Return the cells of an endpoint slice."""
    ports = [str(each.port) if each.port is not None else "*" for each in obj.ports]
    addresses = [address for each in obj.endpoints for address in each.addresses]
    shown = [_shortened(ports, UNSET), _shortened(addresses, UNSET)]
    return [obj.metadata.name, obj.address_type, *shown, _age(obj, now)]


def _source(component: str, host: str) -> str:
    return ", ".join(filter(None, (component, host)))


def _event_cells(
    name: str, *, first: str, last: str, now: float, shown: tuple[str, str, str, str, str, str], count: int
) -> Cells:
    kind, reason, about, subobject, source, message = shown
    first_seen, last_seen = since(first or last, now), since(last or first, now)
    return [last_seen, kind, reason, about, subobject, source, message.strip(), first_seen, count, name]


def _about(reference: volumes.ObjectReference | None) -> str:
    return f"{reference.kind.lower()}/{reference.name}" if reference and reference.name else "unknown"


def event(event: core.Event, now: float) -> Cells:
    """Return the cells of an event."""
    involved, source = event.involved_object, event.source or core.EventSource()
    series = event.series or core.EventSeries()
    component = source.component or event.reporting_component
    text = _source(component, source.host or event.reporting_instance)
    return _event_cells(
        event.metadata.name,
        first=event.first_timestamp or event.event_time,
        last=series.last_observed_time or event.last_timestamp,
        now=now,
        shown=(event.type, event.reason, _about(involved), involved.field_path, text, event.message),
        count=series.count or event.count or 1,
    )


def new_event(event: events.Event, now: float) -> Cells:
    """Return the cells of events.k8s.io's face of events."""
    regarding, old = event.regarding or volumes.ObjectReference(), event.deprecated_source or core.EventSource()
    series = event.series or events.EventSeries()
    component = event.reporting_controller or old.component
    text = _source(component, event.reporting_instance or old.host)
    return _event_cells(
        event.metadata.name,
        first=event.deprecated_first_timestamp or event.event_time or "",
        last=series.last_observed_time or event.deprecated_last_timestamp,
        now=now,
        shown=(event.type, event.reason, _about(regarding), regarding.field_path, text, event.note),
        count=series.count or event.deprecated_count or 1,
    )


def namespace(obj: core.Namespace, now: float) -> Cells:
    """Return the cells of a namespace."""
    return [obj.metadata.name, obj.status.phase, _age(obj, now)]


def config_map(obj: core.ConfigMap, now: float) -> Cells:
    """Return the cells of a config map."""
    return [obj.metadata.name, len(obj.data) + len(obj.binary_data), _age(obj, now)]


def secret(obj: core.Secret, now: float) -> Cells:
    """Return the cells of a secret."""
    return [obj.metadata.name, obj.type, len(obj.data), _age(obj, now)]


def service_account(obj: core.ServiceAccount, now: float) -> Cells:
    """Return the cells of a service account."""
    return [obj.metadata.name, len(obj.secrets), _age(obj, now)]


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _access_modes(modes: Iterable[str]) -> str:
    given = set(modes)
    return ",".join(short for mode, short in _MODES.items() if mode in given)


def persistent_volume(obj: volumes.PersistentVolume, now: float) -> Cells:
    """Return the cells of a persistent volume."""
    spec, claim = obj.spec, obj.spec.claim_ref
    return [
        obj.metadata.name,
        spec.capacity.get("storage", ""),
        _access_modes(spec.access_modes),
        spec.persistent_volume_reclaim_policy,
        "Terminating" if obj.metadata.deletion_timestamp else obj.status.phase,
        f"{claim.namespace}/{claim.name}" if claim else "",
        spec.storage_class_name or "",
        spec.volume_attributes_class_name or UNSET,
        obj.status.reason,
        _age(obj, now),
        spec.volume_mode or UNSET,
    ]


def persistent_volume_claim(obj: volumes.PersistentVolumeClaim, now: float) -> Cells:
    """Return the cells of a persistent volume claim."""
    bound = bool(obj.spec.volume_name)
    return [
        obj.metadata.name,
        "Terminating" if obj.metadata.deletion_timestamp else obj.status.phase,
        obj.spec.volume_name,
        obj.status.capacity.get("storage", "") if bound else "",
        _access_modes(obj.status.access_modes) if bound else "",
        obj.spec.storage_class_name or "",
        obj.spec.volume_attributes_class_name or UNSET,
        _age(obj, now),
        obj.spec.volume_mode or UNSET,
    ]


def created_at(obj: Resource, now: float) -> Cells:
    """Return name and time of creation."""
    del now
    return [obj.metadata.name, obj.metadata.creation_timestamp]


def signing_request(request: certificates.CertificateSigningRequest, now: float) -> Cells:
    """Return the cells of a certificate signing request."""
    spec, types = request.spec, {each.type for each in request.status.conditions}
    state = "Denied" if "Denied" in types else "Approved" if "Approved" in types else "Pending"
    if "Failed" in types:
        state += ",Failed"
    if request.status.certificate:
        state += ",Issued"
    duration = human(spec.expiration_seconds) if spec.expiration_seconds is not None else NONE
    return [request.metadata.name, _age(request, now), spec.signer_name, spec.username, duration, state]


def resource_quota(obj: core.ResourceQuota, now: float) -> Cells:
    """Return the cells of a resource quota."""
    request: list[str] = []
    limit: list[str] = []
    for name, hard in sorted(obj.status.hard.items()):
        text = f"{name}: {obj.status.used.get(name, '0')}/{hard}"
        (limit if name.startswith("limits.") else request).append(text)
    return [obj.metadata.name, ", ".join(request), ", ".join(limit), _age(obj, now)]


def autoscaler(obj: autoscaling.HorizontalPodAutoscalerV2, now: float) -> Cells:
    """Return the cells of an autoscaler."""
    spec, target = obj.spec, obj.spec.scale_target_ref
    return [
        obj.metadata.name,
        f"{target.kind}/{target.name}",
        _targets(obj),
        str(spec.min_replicas) if spec.min_replicas is not None else UNSET,
        spec.max_replicas,
        obj.status.current_replicas or 0,
        _age(obj, now),
    ]


def _targets(obj: autoscaling.HorizontalPodAutoscalerV2) -> str:
    current = {each.resource.name: each.resource.current for each in obj.status.current_metrics if each.resource}
    shown = []
    for metric in obj.spec.metrics:
        if metric.resource is None:
            shown.append(f"<unknown> ({metric.type})")
            continue
        now_at, target = current.get(metric.resource.name), metric.resource.target
        if target.average_utilization is not None:
            value = now_at.average_utilization if now_at else None
            shown.append(f"{metric.resource.name}: {_percent(value)}/{target.average_utilization}%")
        else:
            value_text = now_at.average_value if now_at else "<unknown>"
            shown.append(f"{metric.resource.name}: {value_text}/{target.average_value}")
    return ", ".join(shown) or NONE


def _percent(value: int | None) -> str:
    return "<unknown>" if value is None else f"{value}%"


def disruption_budget(obj: policy.PodDisruptionBudget, now: float) -> Cells:
    """Return the cells of a disruption budget."""
    least, most = ("N/A" if each is None else str(each) for each in (obj.spec.min_available, obj.spec.max_unavailable))
    return [obj.metadata.name, least, most, obj.status.disruptions_allowed or 0, _age(obj, now)]


def ingress(obj: networking.Ingress, now: float) -> Cells:
    """Return the cells of an ingress."""
    balancer = obj.status.load_balancer
    addresses = [each.ip or each.hostname for each in balancer.ingress] if balancer else []
    return [
        obj.metadata.name,
        obj.spec.ingress_class_name or NONE,
        _hosts(obj.spec.rules),
        ",".join(addresses),
        "80, 443" if obj.spec.tls else "80",
        _age(obj, now),
    ]


def _hosts(rules: Sequence[networking.IngressRule]) -> str:
    """Return the first hosts; how many more there are is counted in rules, as the real server does."""
    hosts: list[str] = []
    for rule in rules:
        if len(hosts) == MAX_HOSTS:
            return f"{','.join(hosts)} + {len(rules) - MAX_HOSTS} more..."
        hosts += [rule.host] if rule.host else []
    return ",".join(hosts) or "*"


def ingress_class(obj: networking.IngressClass, now: float) -> Cells:
    """Return the cells of an ingress class."""
    given = obj.spec.parameters
    group = f".{given.api_group}" if given and given.api_group else ""
    shown = f"{given.kind}{group}/{given.name}" if given else NONE
    return [obj.metadata.name, obj.spec.controller, shown, _age(obj, now)]


def network_policy(obj: networking.NetworkPolicy, now: float) -> Cells:
    """Return the cells of a network policy."""
    return [obj.metadata.name, format_selector(obj.spec.pod_selector), _age(obj, now)]


def lease(obj: Any, now: float) -> Cells:
    """Return the cells of a lease."""
    return [obj.metadata.name, obj.spec.holder_identity, _age(obj, now)]


def binding(obj: rbac.RoleBinding | rbac.ClusterRoleBinding, now: float) -> Cells:
    """Return the cells of a role binding, namespaced or not."""

    def named(kind: str) -> str:
        return ", ".join(each.name for each in obj.subjects if each.kind == kind)

    accounts = ", ".join(f"{each.namespace}/{each.name}" for each in obj.subjects if each.kind == "ServiceAccount")
    role = f"{obj.role_ref.kind}/{obj.role_ref.name}"
    return [obj.metadata.name, role, _age(obj, now), named("User"), named("Group"), accounts]


_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def storage_class(obj: storage.StorageClass, now: float) -> Cells:
    """Return the cells of a storage class."""
    default = obj.metadata.annotations.get(_DEFAULT_CLASS) == "true"
    return [
        f"{obj.metadata.name} (default)" if default else obj.metadata.name,
        obj.provisioner,
        obj.reclaim_policy or "Delete",
        obj.volume_binding_mode or "Immediate",
        str(bool(obj.allow_volume_expansion)).lower(),
        _age(obj, now),
    ]


def component_status(obj: core.ComponentStatus, now: float) -> Cells:  # noqa: ARG001 - one signature for all kinds
    """Return the cells of a component status."""
    healthy = next((each for each in obj.conditions if each.type == "Healthy"), None)
    if healthy is None:
        return [obj.metadata.name, "Unknown", "", ""]
    status = "Healthy" if healthy.status == "True" else "Unhealthy"
    return [obj.metadata.name, status, healthy.message, healthy.error]


def volume_attachment(obj: storage.VolumeAttachment, now: float) -> Cells:
    """Return the cells of a volume attachment."""
    spec = obj.spec
    volume = spec.source.persistent_volume_name
    attached = bool(obj.status.attached) if obj.status else False
    return [obj.metadata.name, spec.attacher, volume, spec.node_name, str(attached).lower(), _age(obj, now)]


def csi_driver(obj: storage.CSIDriver, now: float) -> Cells:
    """Return the cells of a CSI driver."""
    spec = obj.spec
    return [
        obj.metadata.name,
        str(spec.attach_required is not False).lower(),
        str(bool(spec.pod_info_on_mount)).lower(),
        str(bool(spec.storage_capacity)).lower(),
        ",".join(each.audience for each in spec.token_requests) or UNSET,
        str(bool(spec.requires_republish)).lower(),
        ",".join(spec.volume_lifecycle_modes) or NONE,
        _age(obj, now),
    ]


def csi_node(obj: storage.CSINode, now: float) -> Cells:
    """Return the cells of a CSI node."""
    return [obj.metadata.name, len(obj.spec.drivers), _age(obj, now)]


def storage_capacity(obj: storage.CSIStorageCapacity, now: float) -> Cells:  # noqa: ARG001 - one signature for all kinds
    """Return the cells of a storage capacity."""
    return [obj.metadata.name, obj.storage_class_name, obj.capacity or UNSET]


def runtime_class(obj: runtime.RuntimeClass, now: float) -> Cells:
    """Return the cells of a runtime class."""
    return [obj.metadata.name, obj.handler, _age(obj, now)]


def priority_class(obj: Any, now: float) -> Cells:
    """Return the cells of a priority class."""
    policy_name = obj.preemption_policy or "PreemptLowerPriority"
    return [obj.metadata.name, obj.value or 0, str(bool(obj.global_default)).lower(), _age(obj, now), policy_name]


def pod_template(obj: pods.PodTemplate, now: float) -> Cells:
    """Return the cells of a pod template."""
    del now
    labels = obj.template.metadata.labels if obj.template.metadata else {}
    return [obj.metadata.name, *_containers(obj.template), format_labels(labels)]


def controller_revision(obj: apps.ControllerRevision, now: float) -> Cells:
    """Return the cells of a controller revision."""
    owner = next((each for each in obj.metadata.owner_references if each.controller), None)
    kind = owner.kind.lower() if owner else ""
    group = owner.api_version.partition("/")[0] if owner and "/" in owner.api_version else ""
    name = f"{kind}{'.' if group else ''}{group}/{owner.name}" if owner else NONE
    return [obj.metadata.name, name, obj.revision or 0, _age(obj, now)]
