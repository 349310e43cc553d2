"""The Pod Security Standards: what each level forbids, a check for each rule. Pure.

Each check returns why a pod breaks its rule, empty if it does not. They are in the order of the real server's own
names for them, which is the order in which a refusal tells them. Source: kubernetes.io, "Pod Security Standards"; the
rules are those of the newest version, whatever version a namespace names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from api.kinds.pods import Container, EphemeralContainer, PodSpec, SecurityContext
from api.meta import ObjectMeta
from api.struct import json_name

LEVELS = ("privileged", "baseline", "restricted")

_DEFAULT_CAPABILITIES = frozenset(
    """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT
    """.split()
)
_SAFE_SYSCTLS = frozenset(
    """
    kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_unprivileged_port_start net.ipv4.tcp_syncookies
    net.ipv4.ping_group_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout
    net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_rmem net.ipv4.tcp_wmem
    """.split()
)
_SAFE_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SAFE_VOLUMES = frozenset(
    "name config_map csi downward_api empty_dir ephemeral image persistent_volume_claim projected secret".split()
)
_APPARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"
_SAFE_SECCOMP = ("RuntimeDefault", "Localhost")

AnyContainer = Container | EphemeralContainer


class Subject(NamedTuple):
    """What is checked: a pod, or the template of one."""

    meta: ObjectMeta
    spec: PodSpec

    @property
    def containers(self) -> tuple[AnyContainer, ...]:
        """Return all containers, of every sort."""
        return (*self.spec.init_containers, *self.spec.containers, *self.spec.ephemeral_containers)

    @property
    def windows(self) -> bool:
        """Return whether the pod is for Windows, where some rules make no sense."""
        return self.spec.os is not None and self.spec.os.name == "windows"


_NOTHING = SecurityContext()


def _context(container: AnyContainer) -> SecurityContext:
    return container.security_context or _NOTHING


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{each}"' for each in names)


def _containers(containers: Sequence[AnyContainer], what: str) -> str:
    """Return ``container "a" must ...`` or ``containers "a", "b" must ...``; empty for none."""
    if not containers:
        return ""
    plural = "s" if len(containers) > 1 else ""
    return f"container{plural} {_quoted(each.name for each in containers)} {what}"


def _rule(title: str, *details: str) -> str:
    told = "; ".join(filter(None, details))
    return f"{title} ({told})" if told else ""


def _escalation(pod: Subject) -> str:
    if pod.windows:
        return ""
    bad = [each for each in pod.containers if _context(each).allow_privilege_escalation is not False]
    return _rule(
        "allowPrivilegeEscalation != false",
        _containers(bad, "must set securityContext.allowPrivilegeEscalation=false"),
    )


def _apparmor(pod: Subject) -> str:
    told = [
        f'annotation "{key}" may not be set to "{value}"'
        for key, value in sorted(pod.meta.annotations.items())
        if key.startswith(_APPARMOR_ANNOTATION)
        and value not in ("", "runtime/default")
        and not value.startswith("localhost/")
    ]
    whole = pod.spec.security_context
    if whole is not None and whole.app_armor_profile is not None and whole.app_armor_profile.type == "Unconfined":
        told.append('pod must not set AppArmor profile type to "Unconfined"')
    profiles = ((each, _context(each).app_armor_profile) for each in pod.containers)
    bad = [each for each, profile in profiles if profile is not None and profile.type == "Unconfined"]
    told.append(_containers(bad, 'must not set AppArmor profile type to "Unconfined"'))
    return _rule("forbidden AppArmor profile", *told)


def _forbidden_capabilities(pod: Subject, allowed: frozenset[str]) -> str:
    bad, names = [], set()
    for container in pod.containers:
        capabilities = _context(container).capabilities
        extra = {each for each in capabilities.add if each not in allowed} if capabilities is not None else set()
        if extra:
            bad.append(container)
            names |= extra
    return _containers(bad, f"must not include {_quoted(sorted(names))} in securityContext.capabilities.add")


def _capabilities_baseline(pod: Subject) -> str:
    return _rule("non-default capabilities", _forbidden_capabilities(pod, _DEFAULT_CAPABILITIES))


def _capabilities_restricted(pod: Subject) -> str:
    if pod.windows:
        return ""
    keeping = []
    for container in pod.containers:
        capabilities = _context(container).capabilities
        if capabilities is None or "ALL" not in capabilities.drop:
            keeping.append(container)
    return _rule(
        "unrestricted capabilities",
        _containers(keeping, 'must set securityContext.capabilities.drop=["ALL"]'),
        _forbidden_capabilities(pod, frozenset(("NET_BIND_SERVICE",))),
    )


def _host_namespaces(pod: Subject) -> str:
    spec = pod.spec
    used = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    return _rule("host namespaces", ", ".join(f"{name}=true" for name, value in used if value))


def _host_paths(pod: Subject) -> str:
    names = [each.name for each in pod.spec.volumes if each.host_path is not None]
    return _rule("hostPath volumes", f"volume{'s' if len(names) > 1 else ''} {_quoted(names)}" if names else "")


def _host_ports(pod: Subject) -> str:
    bad = [each for each in pod.containers if any(port.host_port for port in each.ports)]
    ports = sorted({port.host_port for each in bad for port in each.ports if port.host_port})
    plural = "s" if len(ports) > 1 else ""
    verb = "use" if len(bad) > 1 else "uses"
    return _rule("hostPort", _containers(bad, f"{verb} hostPort{plural} {', '.join(map(str, ports))}"))


def _privileged(pod: Subject) -> str:
    bad = [each for each in pod.containers if _context(each).privileged]
    return _rule("privileged", _containers(bad, "must not set securityContext.privileged=true"))


def _proc_mount(pod: Subject) -> str:
    bad = [each for each in pod.containers if _context(each).proc_mount not in ("", "Default")]
    kinds = _quoted(sorted({_context(each).proc_mount for each in bad}))
    return _rule("procMount", _containers(bad, f"must not set securityContext.procMount to {kinds}"))


def _volume_types(pod: Subject) -> str:
    found: dict[str, str] = {}
    for volume in pod.spec.volumes:
        kinds = [name for name in volume.__struct_fields__ if getattr(volume, name) and name not in _SAFE_VOLUMES]
        if kinds:
            found[volume.name] = json_name(kinds[0])
    if not found:
        return ""
    names, kinds = list(found), sorted(set(found.values()))
    one = len(names) == 1
    return _rule(
        "restricted volume types",
        f"volume{'' if one else 's'} {_quoted(names)} use{'s' if one else ''} restricted volume "
        f"type{'' if len(kinds) == 1 else 's'} {_quoted(kinds)}",
    )


def _non_root(pod: Subject) -> str:
    whole = pod.spec.security_context
    pod_says = whole.run_as_non_root if whole is not None else None
    told = "pod must not set securityContext.runAsNonRoot=false" if pod_says is False else ""
    wrong = [each for each in pod.containers if _context(each).run_as_non_root is False]
    silent = [each for each in pod.containers if _context(each).run_as_non_root is None and pod_says is None]
    return _rule(
        "runAsNonRoot != true",
        told,
        _containers(wrong, "must not set securityContext.runAsNonRoot=false"),
        f"pod or {_containers(silent, 'must set securityContext.runAsNonRoot=true')}" if silent else "",
    )


def _root_user(pod: Subject) -> str:
    whole = pod.spec.security_context
    told = "pod must not set runAsUser=0" if whole is not None and whole.run_as_user == 0 else ""
    bad = [each for each in pod.containers if _context(each).run_as_user == 0]
    return _rule("runAsUser=0", told, _containers(bad, "must not set runAsUser=0"))


def _selinux(pod: Subject) -> str:
    whole = pod.spec.security_context
    told = []
    options = [("pod", whole.se_linux_options if whole is not None else None)]
    options += [(f'container "{each.name}"', _context(each).se_linux_options) for each in pod.containers]
    for who, each in options:
        if each is None:
            continue
        bad = [f'type "{each.type}"'] if each.type not in _SAFE_SELINUX_TYPES else []
        bad += [f"{name} may not be set" for name, value in (("user", each.user), ("role", each.role)) if value]
        if bad:
            told.append(f"{who} set forbidden securityContext.seLinuxOptions: {'; '.join(bad)}")
    return _rule("seLinuxOptions", *told)


def _seccomp(pod: Subject) -> Iterator[tuple[str, str | None]]:
    """Yield (who, profile type or None) of the pod and its containers."""
    whole = pod.spec.security_context
    profile = whole.seccomp_profile if whole is not None else None
    yield "", profile.type if profile is not None else None
    for container in pod.containers:
        own = _context(container).seccomp_profile
        yield container.name, own.type if own is not None else None


def _seccomp_told(pod: Subject, bad: Callable[[str], bool]) -> list[str]:
    (_, whole), *parts = _seccomp(pod)
    told = []
    if whole is not None and bad(whole):
        told.append(f'pod must not set securityContext.seccompProfile.type to "{whole}"')
    wrong = {name: kind for name, kind in parts if kind is not None and bad(kind)}
    containers = [each for each in pod.containers if each.name in wrong]
    kinds = _quoted(sorted(set(wrong.values())))
    told.append(_containers(containers, f"must not set securityContext.seccompProfile.type to {kinds}"))
    return told


def _seccomp_baseline(pod: Subject) -> str:
    return _rule("seccompProfile", *_seccomp_told(pod, lambda kind: kind == "Unconfined"))


def _seccomp_restricted(pod: Subject) -> str:
    if pod.windows:
        return ""
    told = _seccomp_told(pod, lambda kind: kind not in _SAFE_SECCOMP)
    (_, whole), *parts = _seccomp(pod)
    silent_names = {name for name, kind in parts if kind is None and whole is None}
    silent = [each for each in pod.containers if each.name in silent_names]
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    if silent:
        told.append(f"pod or {_containers(silent, wanted)}")
    return _rule("seccompProfile", *told)


def _sysctls(pod: Subject) -> str:
    whole = pod.spec.security_context
    sysctls = whole.sysctls if whole is not None else ()
    return _rule("forbidden sysctls", ", ".join(each.name for each in sysctls if each.name not in _SAFE_SYSCTLS))


def _host_process(pod: Subject) -> str:
    whole = pod.spec.security_context
    told = []
    if whole is not None and whole.windows_options is not None and whole.windows_options.host_process:
        told.append("pod must not set securityContext.windowsOptions.hostProcess=true")
    options = ((each, _context(each).windows_options) for each in pod.containers)
    bad = [each for each, option in options if option is not None and option.host_process]
    told.append(_containers(bad, "must not set securityContext.windowsOptions.hostProcess=true"))
    return _rule("hostProcess", *told)


Check = Callable[[Subject], str]
BASELINE: Sequence[Check] = (
    _apparmor, _capabilities_baseline, _host_namespaces, _host_paths, _host_ports, _privileged, _proc_mount, _selinux,
    _seccomp_baseline, _sysctls, _host_process,
)  # fmt: skip
# The stricter check of a rule stands in the place of the weaker one; a restricted volume type says hostPath too.
RESTRICTED: Sequence[Check] = (
    _escalation, _apparmor, _capabilities_restricted, _host_namespaces, _host_ports, _privileged, _proc_mount,
    _volume_types, _non_root, _root_user, _selinux, _seccomp_restricted, _sysctls, _host_process,
)  # fmt: skip
CHECKS = {"privileged": (), "baseline": BASELINE, "restricted": RESTRICTED}


def violations(level: str, pod: Subject) -> list[str]:
    """Return how a pod breaks the rules of ``level``, one of ``LEVELS``."""
    return [told for check in CHECKS[level] if (told := check(pod))]
