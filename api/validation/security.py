"""What security contexts of pods and containers may not be."""

import re
from collections.abc import Sequence

from api import names
from api.errors import Fault
from api.faults import (
    check_optional,
    duplicate,
    forbidden,
    one_of,
    required,
    too_long,
    unsupported,
    within,
    wrong,
)
from api.kinds.pods import (
    AppArmorProfile,
    PodSecurityContext,
    PodSpec,
    SeccompProfile,
    SecurityContext,
    Sysctl,
    WindowsSecurityContextOptions,
)
from api.validation.paths import local_path_faults

_HIGHEST_ID = 2**31 - 1
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_LONGEST_PROFILE = 4095
_LONGEST_SYSCTL = 253
_SYSCTL_PART = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"^({_SYSCTL_PART}[\./])*{_SYSCTL_PART}$"
# Which of the host's namespaces a kernel parameter belongs to, by what its name begins with.
_OF_NETWORK, _OF_IPC = ("net.",), ("kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue.")


def pod_security_faults(context: PodSecurityContext | None, spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of the security context of a pod."""
    if context is None:
        return []
    faults = within(context.fs_group, 0, _HIGHEST_ID, f"{field}.fsGroup")
    faults += _user_faults(context, field)
    for index, group in enumerate(context.supplemental_groups):
        faults += within(group, 0, _HIGHEST_ID, f"{field}.supplementalGroups[{index}]")
    if spec.share_process_namespace and spec.host_pid:
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        faults.append(wrong(f"{field}.shareProcessNamespace", value=True, detail=why))
    faults += _sysctls_faults(context.sysctls, spec, f"{field}.sysctls")
    for name, value, allowed in (
        ("fsGroupChangePolicy", context.fs_group_change_policy, ("Always", "OnRootMismatch")),
        ("supplementalGroupsPolicy", context.supplemental_groups_policy, ("Merge", "Strict")),
        ("seLinuxChangePolicy", context.se_linux_change_policy, ("MountOption", "Recursive")),
    ):
        if value:
            faults += one_of(value, allowed, f"{field}.{name}")
    return faults + _profile_faults(context, field)


def container_security_faults(context: SecurityContext | None, spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of the security context of a container of ``spec``."""
    if context is None:
        return []
    faults = _user_faults(context, field)
    if context.proc_mount and context.proc_mount not in ("Default", "Unmasked"):
        faults.append(unsupported(f"{field}.procMount", context.proc_mount, ("Default", "Unmasked")))
    if context.proc_mount == "Unmasked" and spec.host_users is not False:
        why = "`hostUsers` must be false to use `Unmasked`"
        faults.append(wrong(f"{field}.procMount", context.proc_mount, why))
    if context.allow_privilege_escalation is False:
        refused = "cannot set `allowPrivilegeEscalation` to false and "
        if context.privileged:
            faults.append(wrong(field, context, f"{refused}`privileged` to true"))
        if context.capabilities is not None and "CAP_SYS_ADMIN" in context.capabilities.add:
            faults.append(wrong(field, context, f"{refused}`capabilities.Add` CAP_SYS_ADMIN"))
    return faults + _profile_faults(context, field)


def _user_faults(context: PodSecurityContext | SecurityContext, field: str) -> list[Fault]:
    faults = within(context.run_as_user, 0, _HIGHEST_ID, f"{field}.runAsUser")
    return faults + within(context.run_as_group, 0, _HIGHEST_ID, f"{field}.runAsGroup")


def _profile_faults(context: PodSecurityContext | SecurityContext, field: str) -> list[Fault]:
    faults = _seccomp_faults(context.seccomp_profile, f"{field}.seccompProfile")
    faults += _windows_faults(context.windows_options, f"{field}.windowsOptions")
    return faults + _app_armor_faults(context.app_armor_profile, f"{field}.appArmorProfile")


def _seccomp_faults(profile: SeccompProfile | None, field: str) -> list[Fault]:
    if profile is None:
        return []
    faults = []
    if not profile.type:
        faults.append(required(f"{field}.type", "type is required when seccompProfile is set"))
    else:
        faults += one_of(profile.type, _PROFILES, f"{field}.type")
    at = f"{field}.localhostProfile"
    if profile.type == "Localhost":
        if not profile.localhost_profile:
            return [*faults, required(at, "must be set when seccomp type is Localhost")]
        return faults + local_path_faults(profile.localhost_profile, at)
    if profile.localhost_profile:
        faults.append(wrong(at, profile, "can only be set when seccomp type is Localhost"))
    return faults


def _app_armor_faults(profile: AppArmorProfile | None, field: str) -> list[Fault]:
    if profile is None:
        return []
    at, path = f"{field}.localhostProfile", profile.localhost_profile
    if not profile.type:
        return [required(f"{field}.type", "type is required when appArmorProfile is set")]
    if profile.type != "Localhost":
        if path and profile.type in _PROFILES:
            return [wrong(at, path, "can only be set when AppArmor type is Localhost")]
        return one_of(profile.type, _PROFILES, f"{field}.type")
    faults = []
    if path != path.strip():
        faults.append(wrong(at, path, "must not be padded with whitespace"))
    elif not path:
        faults.append(required(at, "must be set when AppArmor type is Localhost"))
    return [*faults, too_long(at, _LONGEST_PROFILE)] if len(path) > _LONGEST_PROFILE else faults


def _sysctls_faults(sysctls: Sequence[Sysctl], spec: PodSpec, field: str) -> list[Fault]:
    faults = []
    taken: set[str] = set()
    for index, each in enumerate(sysctls):
        at = f"{field}[{index}].name"
        if not each.name:
            faults.append(required(at))
        elif len(each.name) > _LONGEST_SYSCTL or not re.fullmatch(_SYSCTL, each.name):
            why = f"must have at most {_LONGEST_SYSCTL} characters and match regex {_SYSCTL}"
            faults.append(wrong(at, each.name, why))
        elif each.name in taken:
            faults.append(duplicate(at, each.name))
        taken.add(each.name)
        dotted = each.name.replace("/", ".")
        if spec.host_network and dotted.startswith(_OF_NETWORK):
            faults.append(wrong(at, each.name, "may not be specified when 'hostNetwork' is true"))
        if spec.host_ipc and dotted.startswith(_OF_IPC):
            faults.append(wrong(at, each.name, "may not be specified when 'hostIPC' is true"))
    return faults


def _windows_faults(options: WindowsSecurityContextOptions | None, field: str) -> list[Fault]:
    if options is None:
        return []
    return check_optional(names.subdomain, options.gmsa_credential_spec_name, f"{field}.gmsaCredentialSpecName")


def host_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of what a pod with users of its own may not share with its host."""
    if spec.host_users is not False:
        return []
    shared = (("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc))
    return [forbidden(f"{field}.{name}", "when `pod.Spec.HostUsers` is false") for name, value in shared if value]


def system_faults(spec: PodSpec, field: str) -> list[Fault]:
    """Return the faults of the operating system that a pod is made for."""
    if spec.os is None:
        return []
    if not spec.os.name:
        return [required(f"{field}.os.name", "cannot be empty")]
    if spec.os.name not in ("linux", "windows"):
        return [unsupported(f"{field}.os", spec.os.name, ("linux", "windows"))]
    if spec.os.name == "windows":
        return []
    why = "windows options cannot be set for a linux pod"
    holders = [(f"{field}.securityContext", spec.security_context)] + [
        (f"{field}.{name}[{index}].securityContext", each.security_context)
        for name, containers in (("initContainers", spec.init_containers), ("containers", spec.containers))
        for index, each in enumerate(containers)
    ]
    return [forbidden(f"{at}.windowsOptions", why) for at, context in holders if context and context.windows_options]
