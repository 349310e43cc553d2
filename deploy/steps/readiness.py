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
# A program may end once or twice until what it needs is there; one that still does after this never stays up.
GRACE_S = 20.0
LOOK_EVERY_S = 5.0


def wait_ready(lab: Lab, hosts: HostDriver, progress: Progress, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return once writes are possible and every node is Ready; raises NotReady saying what is missing and why."""
    patience = Patience(lab, hosts, timeout_s)
    with progress.step("Masters: a leader, writes possible"):
        while not (
            verdict := judge(len(lab.masters), ask_masters(lab), external_store=bool(lab.store_endpoints))
        ).writes:
            patience.check(verdict.words)
            time.sleep(POLL_S)
    with progress.step(f"Nodes Ready: {len(lab.nodes)}"):
        while missing := _not_ready(lab):
            patience.check(f"not Ready: {', '.join(missing)}")
            time.sleep(POLL_S)


def _not_ready(lab: Lab) -> list[str]:
    nodes = list_nodes(lab, [master.name for master in lab.masters])
    ready = {node["metadata"]["name"] for node in nodes or () if is_ready(node)}
    return [host.name for host in lab.nodes if host.name not in ready]


class Patience:
    """Decides when waiting has no sense any more: at the deadline, or when something has ended for good."""

    def __init__(self, lab: Lab, hosts: HostDriver, timeout_s: float) -> None:
        self._lab, self._hosts = lab, hosts
        self._began = time.monotonic()
        self._timeout_s = timeout_s
        self._look_again_at_s = GRACE_S

    def check(self, missing: str) -> None:
        """Raise NotReady with the reason if ``missing`` will not come."""
        waited_s = time.monotonic() - self._began
        stopped = sorted(name for name, found in self._hosts.states().items() if found != "running")
        if stopped:
            hint = f"it was killed, or out of memory: docker ps -a --filter label=trireme.lab={self._lab.name}"
            raise NotReady(f"{', '.join(stopped)} ended while the lab was coming up", hint=hint)
        if waited_s < self._look_again_at_s:
            return
        self._look_again_at_s += LOOK_EVERY_S
        troubles = self._troubles()
        if troubles:
            raise NotReady(f"the lab does not get ready: {missing}", hint="\n".join(troubles))
        if waited_s > self._timeout_s:
            hint = "every program runs; trireme logs HOST PROGRAM shows what they are about"
            raise NotReady(f"the lab did not get ready in time: {missing}", hint=hint)

    def _troubles(self) -> list[str]:
        """Return the last words of every program that does not stay up."""
        hosts = self._lab.hosts
        failing = each(hosts, lambda host: failing_programs(self._hosts, host, self._lab.programs(host)))
        return [
            f"{host.name}: {program} keeps ending: {words}"
            for host, programs in zip(hosts, failing, strict=True)
            for program, words in programs.items()
        ]


# For each program whose log shows an end among its last lines: its name and the last line of its own.
FAILING = """
for program in "$@"; do
  log=/var/log/trireme/$program/current
  tail -n 8 $log 2>/dev/null | grep -q ' ended: exit status' || continue
  printf '%s\\t%s\\n' "$program" "$(grep -v ' ended: exit status' $log | tail -n 1 | cut -c 27-)"
done
"""


def failing_programs(hosts: HostDriver, host: Host, programs: Sequence[str]) -> Mapping[str, str]:
    """Return the host's programs that do not stay up: name -> the last line that each logged."""
    result = hosts.execute(host, ["sh", "-c", FAILING, "sh", *programs])
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
