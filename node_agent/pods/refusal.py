"""Which pods this node does not take, whoever sent them here: pure.

A pod that is refused fails at once and for good; its owner, if it has one, makes another.
"""

from typing import NamedTuple

from api.kinds.pods import Pod

# Sysctls that belong to the pod's namespaces alone and can harm nobody beside it; no setting of ours allows others.
SAFE_SYSCTLS = frozenset(
    """
    kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.ip_unprivileged_port_start net.ipv4.tcp_syncookies
    net.ipv4.ping_group_range net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout
    net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_rmem net.ipv4.tcp_wmem
    """.split()
)


class Refusal(NamedTuple):
    """Why, in a word and in a sentence."""

    reason: str
    message: str


def refusal(pod: Pod) -> Refusal | None:
    """Return why this node does not run the pod; None if it does."""
    system = pod.spec.os.name if pod.spec.os else ""
    if system not in {"", "linux"}:
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    context = pod.spec.security_context
    for each in context.sysctls if context else ():
        if each.name.replace("/", ".") not in SAFE_SYSCTLS:
            return Refusal("SysctlForbidden", f'forbidden sysctl: "{each.name}" not allowlisted')
    return None
