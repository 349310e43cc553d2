"""``resolv.conf``: what the host's says, and what a pod's must say."""

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

MAX_NAMESERVERS = 3
MAX_SEARCHES = 32
MAX_SEARCH_CHARS = 2048
CLUSTER_OPTIONS = ("ndots:5",)


class ResolvConf(msgspec.Struct, frozen=True):
    """The content of a ``resolv.conf``. options: ``name`` or ``name:value``."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def render(self) -> str:
        """Return the file's text."""
        lines = [f"nameserver {n}" for n in self.nameservers]
        if self.searches:
            lines.append(f"search {' '.join(self.searches)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "\n".join(lines) + "\n"


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a ``resolv.conf``; the last search line counts, as for the C library."""
    nameservers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *names]:
                searches = tuple(names)
            case ["options", *names]:
                options += names
            case _:
                continue
    return ResolvConf(tuple(nameservers), searches, tuple(options))


def render_pod_resolv_conf(
    *,
    policy: str,
    namespace: str,
    cluster_dns: str,
    cluster_domain: str,
    host: ResolvConf,
    host_network: bool = False,
    config: ResolvConf | None = None,
) -> str:
    """Return the text of a pod's ``resolv.conf``.

    policy: the pod's dnsPolicy; config: its dnsConfig, merged behind what the policy gives.
    Raises ValueError for an unknown policy, and for None without a nameserver in ``config``.
    """
    base = _by_policy(policy, namespace, cluster_dns, cluster_domain, host, host_network=host_network)
    extra = config or ResolvConf()
    if policy == "None" and not extra.nameservers:
        raise ValueError("dnsPolicy None needs at least one nameserver in dnsConfig")
    return ResolvConf(
        nameservers=_unique((*base.nameservers, *extra.nameservers))[:MAX_NAMESERVERS],
        searches=_limited(_unique((*base.searches, *extra.searches))),
        options=_merged_options(base.options, extra.options),
    ).render()


def _by_policy(
    policy: str,
    namespace: str,
    cluster_dns: str,
    cluster_domain: str,
    host: ResolvConf,
    *,
    host_network: bool,
) -> ResolvConf:
    if policy == "ClusterFirst" and host_network:
        # Such a pod sees what its host sees; ClusterFirstWithHostNet is how one asks for more.
        policy = "Default"
    match policy:
        case "ClusterFirst" | "ClusterFirstWithHostNet":
            domain = cluster_domain.strip(".")
            own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
            return ResolvConf((cluster_dns,), (*own, *host.searches), CLUSTER_OPTIONS)
        case "Default" if host_network:
            return host
        case "Default":
            # A resolver on the host's loopback is out of a pod's reach; the cluster DNS forwards to it.
            servers = _unique(cluster_dns if _is_loopback(n) else n for n in host.nameservers)
            return msgspec.structs.replace(host, nameservers=servers)
        case "None":
            return ResolvConf()
        case _:
            known = "ClusterFirst, ClusterFirstWithHostNet, Default, None"
            raise ValueError(f"unknown dnsPolicy {policy!r}; one of {known}")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _limited(searches: Sequence[str]) -> tuple[str, ...]:
    """Keep as many search domains as resolvers take."""
    kept: list[str] = []
    for domain in searches[:MAX_SEARCHES]:
        if len(" ".join((*kept, domain))) > MAX_SEARCH_CHARS:
            break
        kept.append(domain)
    return tuple(kept)


def _merged_options(base: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """Join options by name; the pod's own win."""
    merged = {option.split(":")[0]: option for option in (*base, *extra)}
    return tuple(merged.values())
