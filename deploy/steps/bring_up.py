"""What ``up`` does, in order. Every step looks first and makes only what is missing, so that ``up`` can be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
import msgspec

from deploy import backups, configs, engine, image, pki, state
from deploy.choices import Choices
from deploy.engine import Ask
from deploy.errors import DeployError, HostFailed
from deploy.hosts import containers
from deploy.hosts.containers import ContainerHosts
from deploy.lab import Lab, plan_hosts
from deploy.parallel import each
from deploy.steps.progress import Progress
from deploy.steps.readiness import collect_logs, wait_ready
from deploy.steps.take_down import remove_lab

SUBNET_ATTEMPTS = 5


def bring_up(choices: Choices, *, ask: Ask, keep: bool, wait: bool, renew: bool = False) -> Lab:
    """Bring up, finish or repair the lab that ``choices`` describe.

    A lab that never was complete is removed again when a step fails or the caller interrupts, unless ``keep``; what
    its programs logged is kept in the log that the error names. A lab that was complete once is never removed.
    """
    progress = Progress()
    with progress.step("Docker engine"):
        client = engine.ensure(ask, progress.note)
    known = state.find(choices.name)
    lab = choices.new_lab(containers.free_subnet(client)) if known is None else choices.change(known)
    if choices.from_snapshot is not None:
        with progress.step(f"Snapshot {choices.from_snapshot.name}"):
            backups.unpack(choices.from_snapshot, lab)
    log = state.log_file(f"up-{choices.name}")
    try:
        lab = BringUp(lab, client, progress, ask).run(wait=wait, renew=renew)
    except BaseException as exc:
        _after_failure(client, choices.name, log, exc, keep=keep)
        raise
    progress.finish("already up" if known and known.complete and known == lab else "up")
    log.unlink(missing_ok=True)
    return lab


def _after_failure(client: docker.DockerClient, name: str, log: Path, exc: BaseException, *, keep: bool) -> None:
    """Keep the programs' last words, then remove what a lab that never was complete has left."""
    lab = state.find(name)
    if lab is None:
        return
    collect_logs(lab, ContainerHosts(lab, client), log)
    removed = not (keep or lab.complete)
    if removed:
        remove_lab(client, name)
    if isinstance(exc, DeployError):
        kept = "what it had made is removed again; --keep leaves it" if removed else "what runs was left as it is"
        exc.hint = "\n".join(filter(None, [exc.hint, f"the log: {log} ({kept})"]))


@dataclass(frozen=True, slots=True)
class BringUp:
    """One run of ``up``: the lab as it should be, and what to make it with."""

    lab: Lab
    client: docker.DockerClient
    progress: Progress
    ask: Ask

    def run(self, *, wait: bool, renew: bool) -> Lab:
        """Bring the lab up and return it as it was saved; with ``wait``, once every node is Ready.

        renew: hosts made from an older image are replaced; their data stays.
        """
        with self.progress.step("Host image"):
            tag = image.ensure(self.client, self.ask, self.progress.note)
        with self.progress.step("Network"):
            lab = self._network(self.lab)
        with self.progress.step("Certificates and configuration"):
            write_files(lab)
        hosts = ContainerHosts(lab, self.client)
        outdated = hosts.outdated(image=tag)
        if outdated and renew:
            with self.progress.step(f"Replacing {', '.join(outdated)}"):
                each([lab.host(name) for name in outdated], hosts.discard)
        elif outdated:
            self.progress.note(
                "hosts run an older build of the code; trireme up --renew replaces them, their data stays"
            )
        with self.progress.step(f"Hosts: {_sizes(lab)}"):
            hosts.ensure_hosts(image=tag)
        if wait:
            wait_ready(lab, hosts, self.progress)
            lab = msgspec.structs.replace(lab, complete=True)
            state.save(lab)
        return lab

    def _network(self, lab: Lab) -> Lab:
        """Another lab may be taking the same subnet at this moment: then take the next one."""
        for attempt in range(1, SUBNET_ATTEMPTS + 1):
            state.save(lab)
            try:
                ContainerHosts(lab, self.client).ensure_network()
            except HostFailed as exc:
                if "overlaps" not in str(exc) or attempt == SUBNET_ATTEMPTS or lab.complete:
                    raise
                lab = move(lab, containers.free_subnet(self.client))
            else:
                return lab
        raise AssertionError("the last attempt returns or raises")


def move(lab: Lab, subnet: str) -> Lab:
    """Return ``lab`` with the same hosts on another subnet."""
    hosts = plan_hosts(subnet, masters=len(lab.masters), nodes=len(lab.nodes))
    return msgspec.structs.replace(lab, subnet=subnet, hosts=hosts)


def write_files(lab: Lab) -> None:
    """Write keys, certificates and configuration of all hosts, and the kubeconfig; what is right already stays."""
    pki.ensure(lab)
    for host in lab.hosts:
        folder = state.host_folder(lab.name, host.name)
        for name, text in configs.render_host_files(lab, host).items():
            state.write(folder / name, text.encode())
        if host.role == "master" and lab.store_tls is not None:
            sources = msgspec.structs.asdict(lab.store_tls)
            for key, name in configs.STORE_FILES.items():
                state.write(folder / configs.STORE_PKI / name, Path(sources[key]).read_bytes(), mode=0o600)
    ca, cert, key_pem = (path.read_bytes() for path in state.admin_files(lab.name))
    text = configs.render_kubeconfig(lab, ca=ca, cert=cert, key=key_pem)
    state.write(state.kubeconfig(lab.name), text.encode(), mode=0o600)


def _sizes(lab: Lab) -> str:
    parts: Sequence[tuple[int, str]] = ((len(lab.masters), "master"), (len(lab.nodes), "node"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in parts) + ", 1 entry"
