"""Waiting until a lab is ready, and finding out why it does not get there."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.errors import NotReady
from deploy.health import judge
from deploy.hosts.base import HostDriver
from deploy.lab import Host, Lab
from deploy.observe import ask_masters, is_ready, list_nodes
from deploy.parallel import each
from deploy.steps.progress import Progress

READY_TIMEOUT_S = 90.0
POLL_S = 0.15


def wait_ready(lab: Lab, hosts: HostDriver, progress: Progress, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return once writes are possible and every node is Ready; raises NotReady saying what is missing and why."""
    deadline = time.monotonic() + timeout_s
    with progress.step("Masters: a leader, writes possible"):
        while not (
            verdict := judge(len(lab.masters), ask_masters(lab), external_store=bool(lab.store_endpoints))
        ).writes:
            _check_time(lab, hosts, deadline, verdict.words)
            time.sleep(POLL_S)
    with progress.step(f"Nodes Ready: {len(lab.nodes)}"):
        while missing := _not_ready(lab):
            _check_time(lab, hosts, deadline, f"not Ready: {', '.join(missing)}")
            time.sleep(POLL_S)


def _not_ready(lab: Lab) -> list[str]:
    nodes = list_nodes(lab, [master.name for master in lab.masters])
    ready = {node["metadata"]["name"] for node in nodes or () if is_ready(node)}
    return [host.name for host in lab.nodes if host.name not in ready]


def _check_time(lab: Lab, hosts: HostDriver, deadline: float, missing: str) -> None:
    """Give up at the deadline, or as soon as a host has stopped by itself."""
    stopped = sorted(name for name, found in hosts.states().items() if found != "running")
    if stopped:
        raise NotReady(f"{', '.join(stopped)} ended while the lab was coming up", hint=f"docker ps -a: {lab.name}")
    if time.monotonic() > deadline:
        raise NotReady(f"the lab did not get ready in time: {missing}", hint=_troubles(lab, hosts))


def _troubles(lab: Lab, hosts: HostDriver) -> str:
    """Return the last words of every program that does not stay up."""
    lines = []
    for host, service in each(lab.hosts, lambda host: (host, failing_programs(hosts, host, lab.programs(host)))):
        lines += [f"{host.name}: {program} keeps ending: {words}" for program, words in service.items()]
    return "\n".join(lines) or "every program runs; trireme logs HOST PROGRAM shows what they are about"


# For each program of the role that ended within the last seconds: its name and the last line that it logged.
FAILING = """
for program in "$@"; do
  seconds=$(sv status /opt/trireme/services/$0/$program 2>&1 | sed -n 's/.* \\([0-9]*\\)s.*/\\1/p;q')
  [ "${seconds:-0}" -le 3 ] || continue
  line=$(grep -v ' ended: exit status' /var/log/trireme/$program/current 2>/dev/null | tail -n 1 | cut -c 27-)
  printf '%s\\t%s\\n' "$program" "$line"
done
"""


def failing_programs(hosts: HostDriver, host: Host, programs: Sequence[str]) -> Mapping[str, str]:
    """Return the host's programs that do not stay up: name -> the last line that each logged."""
    result = hosts.execute(host, ["sh", "-c", FAILING, host.role, *programs])
    pairs = [line.split("\t", 1) for line in result.output.splitlines() if "\t" in line]
    return {pair[0]: pair[1] for pair in pairs}


def collect_logs(lab: Lab, hosts: HostDriver, target: Path) -> None:
    """Append the programs' logs of all running hosts to ``target``: what remains of a lab that failed to come up."""
    states = hosts.states()
    script = 'for file in /var/log/trireme/*/current; do echo "--- $file"; tail -n 200 "$file"; done'

    def collect(host: Host) -> str:
        return hosts.execute(host, ["sh", "-c", script]).output if states[host.name] == "running" else "not running\n"

    with target.open("a") as file:
        for host, text in zip(lab.hosts, each(lab.hosts, collect), strict=True):
            file.write(f"=== {host.name}\n{text}")
