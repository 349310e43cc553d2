"""Network faults, as iptables rules inside the hosts.

All rules sit in one chain of the ``raw`` table, which packets meet before connection tracking: established
connections are cut as well, and nothing is remembered of what was dropped. A later ``partition`` replaces the former
one, and ``heal`` removes every trace.
"""

import ipaddress
import re
from collections.abc import Mapping, Sequence

from deploy.errors import HostFailed, UsageError
from deploy.hosts.base import HostDriver
from deploy.lab import Host, Lab
from deploy.parallel import each

CHAIN = "TRIREME-FAULTS"
REST = "rest"  # in a partition: every host that no group names

ENABLE = f"""
for hook in PREROUTING OUTPUT; do
  iptables -w -t raw -C $hook -j {CHAIN} 2>/dev/null || iptables -w -t raw -I $hook -j {CHAIN} || exit 1
done
"""
DISABLE = f"""
for hook in PREROUTING OUTPUT; do
  while iptables -w -t raw -D $hook -j {CHAIN} 2>/dev/null; do :; done
done
iptables -w -t raw -F {CHAIN} 2>/dev/null && iptables -w -t raw -X {CHAIN}
true
"""

Groups = tuple[frozenset[str], ...]


def parse_partition(lab: Lab, words: Sequence[str]) -> Groups:
    """Return the groups in ``master1 | master2,master3``, whether it came as one argument or several.

    One group alone is cut off from everybody else. Hosts named in no group keep their connections to all groups;
    the word ``rest`` stands for all of them.
    """
    text = " ".join(words)
    groups = [[name for name in re.split(r"[,\s]+", part) if name] for part in re.split(r"\s*\|\s*", text.strip())]
    if not text.strip() or not all(groups):
        raise UsageError(
            f"'{text}' is no partition: a group is empty",
            hint="name the groups, separated by a bar: trireme partition 'master1 | master2,master3'",
        )
    named = [name for group in groups for name in group]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} cannot be on two sides of a partition")
    for name in named:
        if name != REST:
            lab.host(name)
    others = frozenset(host.name for host in lab.hosts) - set(named)
    sides = [frozenset(group) - {REST} | (others if REST in group else frozenset()) for group in groups]
    if len(sides) == 1:
        sides.append(others)
    if not all(sides):
        raise UsageError(f"'{text}' leaves nobody on the other side")
    return tuple(sides)


def cut_off(lab: Lab, groups: Groups) -> dict[str, list[Host]]:
    """Return from whom each host is cut off: name -> the hosts of all other groups."""
    return {
        host.name: [other for other in lab.hosts if any(other.name in group for group in groups if group is not mine)]
        for mine in groups
        for host in lab.hosts
        if host.name in mine
    }


def routes_via(ip_route: str, peers: Sequence[Host]) -> list[str]:
    """Return the networks in the output of ``ip -4 route`` that are reached through one of ``peers``.

    Pods keep their own addresses between hosts on one link, so a partition has to name their networks too.
    """
    addresses = {peer.address for peer in peers}
    networks = []
    for line in ip_route.splitlines():
        words = line.split()
        if "via" in words and words[words.index("via") + 1] in addresses and words[0] != "default":
            networks.append(str(ipaddress.ip_network(words[0])))
    return networks


def render_rules(blocked: Sequence[str]) -> str:
    """Return input for ``iptables-restore --noflush`` that replaces our chain: both directions of each address."""
    rules = [f"-A {CHAIN} {side} {address} -j DROP" for address in blocked for side in ("-s", "-d")]
    return "\n".join(["*raw", f":{CHAIN} - [0:0]", *rules, "COMMIT", ""])


def apply_partition(lab: Lab, driver: HostDriver, groups: Groups) -> None:
    """Cut the groups from each other; hosts that do not run are skipped: they come back without rules anyway."""
    peers = cut_off(lab, groups)
    states = driver.states()

    def cut(host: Host) -> None:
        blocked_hosts = peers.get(host.name, [])
        if not blocked_hosts:
            _shell(driver, host, DISABLE)
            return
        routes = routes_via(driver.execute(host, ["ip", "-4", "route"]).output, blocked_hosts)
        text = render_rules([*(peer.address for peer in blocked_hosts), *routes])
        _shell(driver, host, f"iptables-restore -w --noflush <<'RULES' || exit 1\n{text}RULES\n{ENABLE}")

    each([host for host in lab.hosts if states[host.name] == "running"], cut)


def heal(lab: Lab, driver: HostDriver) -> None:
    """Remove every rule of ours from every running host."""
    states = driver.states()
    each(
        [host for host in lab.hosts if states[host.name] == "running"],
        lambda host: _shell(driver, host, DISABLE),
    )


def partitioned(lab: Lab, driver: HostDriver) -> Mapping[str, bool]:
    """Return which running hosts have rules of ours right now."""
    running = [host for host in lab.hosts if driver.states()[host.name] == "running"]
    argv = ["iptables", "-w", "-t", "raw", "-S", CHAIN]
    results = each(running, lambda host: driver.execute(host, argv).exit_status == 0)
    return {host.name: ruled for host, ruled in zip(running, results, strict=True)}


def _shell(driver: HostDriver, host: Host, script: str) -> None:
    result = driver.execute(host, ["sh", "-c", script])
    if result.exit_status != 0:
        raise HostFailed(f"{host.name} could not change its network rules: {result.output.strip()}")
