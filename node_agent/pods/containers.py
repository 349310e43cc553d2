"""From a container's spec to the runtime's words: limits, privileges, names, files every container gets. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from api import quantity
from api.kinds.pods import (
    Container,
    EphemeralContainer,
    Pod,
    PodSecurityContext,
    PodSpec,
    ResourceRequirements,
    SecurityContext,
)
from node_agent.dns.resolv_conf import ResolvConf, render_pod_resolv_conf
from node_agent.errors import NodeError
from node_agent.pods.environment import expand
from node_agent.pods.plan import DELAY_LABEL, HASH_LABEL, StartContainer, container_hash
from node_agent.runtime.base import ContainerConfig, Image, Limits, Mount, PodRef, Privileges, SandboxConfig

DEFAULT_GRACE_S = 30
TERMINATION_LOG = "/dev/termination-log"
HOSTNAME_LIMIT = 63
FQDN_LIMIT = 64
_MIN_SHARES, _SHARES_PER_CPU = 2, 1024
_MIN_QUOTA_US, _PERIOD_US = 1000, 100_000
_GUARANTEED_OOM_SCORE, _BEST_EFFORT_OOM_SCORE = -997, 1000


class RefusedByPolicy(NodeError):
    """What the pod's security context asks for and what the image is contradict each other."""


class HostnameTooLong(NodeError):
    """The pod wants its full name for host name, and the kernel takes no more than ``FQDN_LIMIT`` characters."""


class NodeNames(msgspec.Struct, frozen=True, kw_only=True):
    """How pods on this node find names, and what the node itself is called.

    host_hosts: the text of the node's own ``/etc/hosts``.
    """

    node: str
    host_ip: str
    cluster_dns: str
    cluster_domain: str
    host_resolv_conf: ResolvConf = ResolvConf()
    host_hosts: str = ""


def pod_ref(pod: Pod) -> PodRef:
    """Return the pod's identity."""
    return PodRef(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)


def grace_period_s(pod: Pod) -> int:
    """Return how long the pod may take to end if nobody says otherwise."""
    given = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE_S if given is None else given


def all_containers(spec: PodSpec) -> tuple[Container, ...]:
    """Return init containers and containers, in this order."""
    return (*spec.init_containers, *spec.containers)


def ephemeral_containers(spec: PodSpec) -> tuple[Container, ...]:
    """Return the containers that somebody added for debugging, which no resources are reckoned for."""
    return tuple(_without_target(each) for each in spec.ephemeral_containers)


def _without_target(container: EphemeralContainer) -> Container:
    fields = msgspec.structs.asdict(container)
    del fields["target_container_name"]
    return Container(**fields)


def every_container(spec: PodSpec) -> tuple[Container, ...]:
    """Return init containers, containers and those added for debugging, in this order."""
    return (*all_containers(spec), *ephemeral_containers(spec))


def find_container(spec: PodSpec, name: str) -> Container | None:
    """Return the container of that name."""
    return next((each for each in every_container(spec) if each.name == name), None)


def target_of(spec: PodSpec, name: str) -> str:
    """Return the container whose processes the container of that name wants to see, "" for none."""
    return next((each.target_container_name for each in spec.ephemeral_containers if each.name == name), "")


def hostname_of(pod: Pod) -> str:
    """Return what the pod calls itself: its name unless it says otherwise, cut to what a host name may be."""
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_LIMIT].rstrip("-.")


def domain_of(pod: Pod, cluster_domain: str) -> str:
    """Return the domain that the pod's host name lies in, "" if it lies in none."""
    subdomain = pod.spec.subdomain
    return f"{subdomain}.{pod.metadata.namespace}.svc.{cluster_domain}" if subdomain else ""


def kernel_hostname(pod: Pod, cluster_domain: str) -> str:
    """Return what the kernel says the host is called; raises HostnameTooLong."""
    name, domain = hostname_of(pod), domain_of(pod, cluster_domain)
    if not (pod.spec.set_hostname_as_fqdn and domain):
        return name
    full = f"{name}.{domain}"
    if len(full) > FQDN_LIMIT:
        raise HostnameTooLong(f"Failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long")
    return full


def render_limits(container: Container, *, qos: str, memory_capacity_bytes: int, negative_oom_score: bool) -> Limits:
    """Return what the kernel shall enforce.

    negative_oom_score: whether this host may protect processes from the out-of-memory killer at all.
    """
    resources = container.resources or ResourceRequirements()
    requested = resources.requests.get("cpu", resources.limits.get("cpu", "0"))
    quota = quantity.cpu_millis(resources.limits.get("cpu", "0")) * _PERIOD_US // 1000
    score = _oom_score(qos, resources, memory_capacity_bytes)
    return Limits(
        cpu_shares=max(_MIN_SHARES, quantity.cpu_millis(requested) * _SHARES_PER_CPU // 1000),
        cpu_quota_us=max(quota, _MIN_QUOTA_US) if quota else 0,
        memory_bytes=quantity.whole(resources.limits.get("memory", "0")),
        oom_score_adj=score if negative_oom_score else max(score, 0),
    )


def _oom_score(qos: str, resources: ResourceRequirements, memory_capacity_bytes: int) -> int:
    if qos == "Guaranteed":
        return _GUARANTEED_OOM_SCORE
    if qos == "BestEffort":
        return _BEST_EFFORT_OOM_SCORE
    requested = quantity.whole(resources.requests.get("memory", "0"))
    score = 1000 - 1000 * requested // max(memory_capacity_bytes, 1)
    return min(max(score, 3), 999)


def render_privileges(container: Container, spec: PodSpec, image: Image) -> Privileges:
    """Join the container's security context over the pod's; raises RefusedByPolicy."""
    own, shared = container.security_context or SecurityContext(), spec.security_context or PodSecurityContext()
    user = shared.run_as_user if own.run_as_user is None else own.run_as_user
    group = shared.run_as_group if own.run_as_group is None else own.run_as_group
    non_root = shared.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
    if non_root:
        _check_non_root(user, image)
    groups = (*shared.supplemental_groups, *([] if shared.fs_group is None else [shared.fs_group]))
    capabilities = own.capabilities
    return Privileges(
        user=_user(user, group, image),
        groups=groups,
        privileged=bool(own.privileged),
        add_capabilities=capabilities.add if capabilities else (),
        drop_capabilities=capabilities.drop if capabilities else (),
        read_only_root=bool(own.read_only_root_filesystem),
        no_new_privileges=own.allow_privilege_escalation is False,
        seccomp=_seccomp(own, spec),
    )


def _user(user: int | None, group: int | None, image: Image) -> str:
    if group is None:
        return "" if user is None else str(user)
    return f"{user if user is not None else image.user.partition(':')[0] or 0}:{group}"


def _check_non_root(user: int | None, image: Image) -> None:
    if user == 0:
        raise RefusedByPolicy("container's runAsUser breaks non-root policy")
    if user is not None:
        return
    named = image.user.partition(":")[0]
    if named in {"", "0", "root"}:
        raise RefusedByPolicy("container has runAsNonRoot and image will run as root")
    if not named.isdigit():
        raise RefusedByPolicy(
            f"container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root"
        )


def _seccomp(own: SecurityContext, spec: PodSpec) -> str:
    profile = own.seccomp_profile or (spec.security_context.seccomp_profile if spec.security_context else None)
    # As with a kubelet, a pod that names no profile is not confined to the engine's.
    if profile is None or profile.type == "Unconfined":
        return "unconfined"
    if profile.type == "RuntimeDefault":
        return ""
    raise RefusedByPolicy(f"seccomp profile {profile.localhost_profile!r}: this node keeps no profiles of its own")


def file_owner(spec: PodSpec) -> int | None:
    """Return the user that all containers run as, if the pod says so: who may own what nobody else shall read."""
    users = {_given_user(container, spec) for container in all_containers(spec)}
    return users.pop() if len(users) == 1 else None


def _given_user(container: Container, spec: PodSpec) -> int | None:
    own, shared = container.security_context, spec.security_context
    if own is not None and own.run_as_user is not None:
        return own.run_as_user
    return shared.run_as_user if shared else None


def render_sandbox(pod: Pod, attempt: int, *, cluster_domain: str, handler: str = "") -> SandboxConfig:
    """Return the sandbox that the pod needs; raises HostnameTooLong.

    handler: of the pod's RuntimeClass, "" for the engine's own choice.
    """
    spec = pod.spec
    context = spec.security_context
    return SandboxConfig(
        pod=pod_ref(pod),
        attempt=attempt,
        hostname=kernel_hostname(pod, cluster_domain),
        host_network=bool(spec.host_network),
        host_pid=bool(spec.host_pid),
        host_ipc=bool(spec.host_ipc),
        reap_orphans=bool(spec.share_process_namespace),
        sysctls={each.name: each.value for each in context.sysctls} if context else {},
        handler=handler,
    )


def render_container(
    pod: Pod,
    container: Container,
    start: StartContainer,
    *,
    sandbox_id: str,
    target_id: str = "",
    image: Image,
    environment: Mapping[str, str],
    mounts: Sequence[Mount],
    limits: Limits,
    handler: str = "",
) -> ContainerConfig:
    """Return the container to be made; command and arguments may refer to its environment.

    target_id: the container whose processes it shall see, "" for none. handler: as the sandbox's.
    """
    lifecycle = container.lifecycle
    return ContainerConfig(
        pod=pod_ref(pod),
        name=container.name,
        attempt=start.attempt,
        image=container.image,
        command=tuple(expand(word, environment) for word in container.command),
        args=tuple(expand(word, environment) for word in container.args),
        env=environment,
        working_dir=container.working_dir,
        mounts=mounts,
        limits=limits,
        privileges=render_privileges(container, pod.spec, image),
        host_network=bool(pod.spec.host_network),
        share_pid_with=sandbox_id if pod.spec.share_process_namespace else target_id,
        host_pid=bool(pod.spec.host_pid),
        host_ipc=bool(pod.spec.host_ipc),
        tty=bool(container.tty),
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        stop_signal=lifecycle.stop_signal if lifecycle else "",
        handler=handler,
        labels={HASH_LABEL: container_hash(container), DELAY_LABEL: str(start.delay_s)},
    )


def render_hosts(pod: Pod, pod_ip: str, names: NodeNames) -> str:
    """Return the pod's /etc/hosts; in the host's network that is the host's own with the pod's aliases."""
    text = _host_network_hosts(names) if pod.spec.host_network else _own_hosts(pod, pod_ip, names)
    if pod.spec.host_aliases:
        lines = ["", "# Entries added by HostAliases."]
        lines += ["\t".join((alias.ip, *alias.hostnames)) for alias in pod.spec.host_aliases]
        text += "\n".join(lines) + "\n"
    return text


def _host_network_hosts(names: NodeNames) -> str:
    text = names.host_hosts
    return "# Kubernetes-managed hosts file (host network).\n" + text + ("" if text.endswith("\n") else "\n")


def _own_hosts(pod: Pod, pod_ip: str, names: NodeNames) -> str:
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
    ]
    if pod_ip:
        hostname = hostname_of(pod)
        domain = domain_of(pod, names.cluster_domain)
        full = f"{hostname}.{domain}\t" if domain else ""
        lines.append(f"{pod_ip}\t{full}{hostname}")
    return "\n".join(lines) + "\n"


def resolv_conf_of(pod: Pod, names: NodeNames) -> str:
    """Return the pod's /etc/resolv.conf; raises ValueError for a policy that makes no sense."""
    config = pod.spec.dns_config
    return render_pod_resolv_conf(
        policy=pod.spec.dns_policy or "ClusterFirst",
        namespace=pod.metadata.namespace,
        cluster_dns=names.cluster_dns,
        cluster_domain=names.cluster_domain,
        host=names.host_resolv_conf,
        host_network=bool(pod.spec.host_network),
        config=ResolvConf(
            nameservers=config.nameservers,
            searches=config.searches,
            options=tuple(f"{o.name}:{o.value}" if o.value else o.name for o in config.options),
        )
        if config
        else None,
    )
