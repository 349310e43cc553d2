"""Hosts that are VMs made by Vagrant (or, with its docker provider, containers that look like VMs).

``vagrant`` makes, starts and stops them; everything inside goes straight over SSH to the host's fixed address,
because a ``vagrant`` command takes seconds; and where Vagrant's docker provider cannot do what a lab needs (a power
cut, freezing), the engine does it. There is no entry host: a balancer runs beside every master, and
keepalived holds the one address of the control plane on one of them. A separate VM would cost a machine's memory and
be a single point of failure, which on VMs, unlike on one container engine, there is no need for.
"""

import io
import ipaddress
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from deploy import image, shell, state
from deploy.errors import CommandFailed, HostFailed, UsageError
from deploy.hosts.base import HostState, Result
from deploy.lab import FIRST_ADDRESS, Host, Lab, plan_hosts, resize
from deploy.steps.bring_up import write_files

BUNDLE = "bundle.tar"  # everything that is the same on all hosts: scripts, code, wheels
SSH_KEY = "ssh.key"  # for the docker provider, whose image takes this key and no other
VAGRANT_TIMEOUT_S = 1800

# What the providers call their states.
STATES: dict[str, HostState] = {
    "running": "running",
    "paused": "paused",
    "saved": "paused",
    "not_created": "absent",
}


def prepare(name: str, *, masters: int, nodes: int, subnet: str, engine: str, folder: Path) -> Lab:
    """Write all that the Vagrantfile uploads; what is there already and right stays as it is."""
    _check_unchanged(name, masters=masters, nodes=nodes, subnet=subnet, engine=engine, folder=folder.resolve())
    lab = Lab(
        name=name,
        driver="vagrant",
        engine=engine,
        subnet=subnet,
        hosts=plan_hosts(subnet, masters=masters, nodes=nodes, entry=False),
        folder=str(folder.resolve()),
        virtual_address=str(ipaddress.IPv4Network(subnet)[FIRST_ADDRESS["entry"]]),
    )
    state.save(lab)
    write_files(lab)
    _ensure_ssh_key(state.lab_folder(name))
    state.write(state.lab_folder(name) / BUNDLE, render_bundle(), mode=0o600)
    for host in lab.hosts:
        archive = _tar(dict(_host_files(lab, host)))
        state.write(state.lab_folder(name) / "hosts" / f"{host.name}.tar", archive, mode=0o600)
    return lab


def _check_unchanged(name: str, *, masters: int, nodes: int, subnet: str, engine: str, folder: Path) -> None:
    """Raise UsageError if the name is another lab's, or if hosts exist that were made for another plan."""
    known = state.find(name)
    if known is None:
        return
    if known.driver != "vagrant" or known.folder != str(folder):
        where = "containers" if known.driver != "vagrant" else known.folder
        hint = "choose another name, for example: TRIREME_NAME=vms vagrant up"
        raise UsageError(f"lab '{name}' exists already ({where})", hint=hint)
    if not any(_notes(folder).glob("machines/*/*/id")):
        return
    if subnet != known.subnet:
        hint = f"repeat with TRIREME_SUBNET={known.subnet}, or destroy it first: vagrant destroy -f"
        raise UsageError(f"lab '{name}' lives on {known.subnet} and cannot move to {subnet}", hint=hint)
    resize(known, masters=masters, nodes=nodes, engine=engine)


def _notes(folder: Path) -> Path:
    """Return where Vagrant keeps what it knows of the machines of the Vagrantfile in ``folder``."""
    return folder / os.environ.get("VAGRANT_DOTFILE_PATH", ".vagrant")


def render_bundle() -> bytes:
    """Return the archive of what every host gets: provision/, src/, wheels/."""
    files = dict(image.code_files()) | image.base_files()
    files |= {f"wheels/{path.name}": path.read_bytes() for path in image.fetch_wheels()}
    return _tar(files)


def _host_files(lab: Lab, host: Host) -> list[tuple[str, bytes]]:
    folder = state.host_folder(lab.name, host.name)
    files = [(str(path.relative_to(folder)), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    names = "".join(f"{other.address} {other.name}\n" for other in lab.hosts) + f"{lab.virtual_address} entry\n"
    return [*files, ("hosts", names.encode())]


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            secret = name.endswith((".key", ".pem"))
            entry.size, entry.mode = len(data), 0o600 if secret else 0o755 if name.endswith(".sh") else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _ensure_ssh_key(folder: Path) -> None:
    path = folder / SSH_KEY
    if path.exists():
        return
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    state.write(path.with_suffix(".pub"), public + b" trireme\n")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    state.write(path, private, mode=0o600)


def parse_status(machine_readable: str) -> dict[str, HostState]:
    """Return the hosts' states in the output of ``vagrant status --machine-readable``."""
    states: dict[str, HostState] = {}
    for line in machine_readable.splitlines():
        fields = line.split(",")
        if len(fields) >= 4 and fields[2] == "state":
            states[fields[1]] = STATES.get(fields[3], "stopped")
    return states


class VagrantHosts:
    """Drives the hosts of one lab; a ``HostDriver``."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._folder = Path(lab.folder)

    def states(self) -> Mapping[str, HostState]:
        """Return the state of every host of the lab: name -> state."""
        found = parse_status(self._vagrant("status", "--machine-readable"))
        # A frozen container runs, for Vagrant.
        frozen = {host.name for host in self._lab.hosts if _status(self._container(host)) == "paused"}
        return {
            host.name: "paused" if host.name in frozen else found.get(host.name, "absent") for host in self._lab.hosts
        }

    def start(self, host: Host) -> None:
        """Start a stopped host; no harm if it runs."""
        self._vagrant("up", host.name)

    def stop(self, host: Host) -> None:
        """Let the host's programs end in order, then stop it; no harm if it is stopped."""
        self._vagrant("halt", host.name)

    def kill(self, host: Host) -> None:
        """End every process of the host at once, as a power cut would."""
        if container := self._container(host):
            _signal(container, "kill", only={"running", "paused"})
        else:
            self._vagrant("halt", "--force", host.name)

    def pause(self, host: Host) -> None:
        """Freeze the host: connections stay open, nothing answers."""
        if container := self._container(host):
            _signal(container, "pause", only={"running"})
        else:
            self._vagrant("suspend", host.name)

    def resume(self, host: Host) -> None:
        """Let a paused host go on."""
        if container := self._container(host):
            _signal(container, "unpause", only={"paused"})
        else:
            self._vagrant("resume", host.name)

    def execute(self, host: Host, argv: Sequence[str]) -> Result:
        """Run ``argv`` on the host as root, without input."""
        try:
            return Result(0, shell.run(self.terminal_argv(host, argv, tty=False, stdin=False)))
        except CommandFailed as exc:
            if exc.status is None or exc.status == SSH_FAILED:
                raise HostFailed(f"{host.name} could not be reached: {exc.output.strip()}") from exc
            return Result(exc.status, exc.output)

    def terminal_argv(self, host: Host, argv: Sequence[str], *, tty: bool, stdin: bool) -> list[str]:
        """Return the ssh command that runs ``argv`` on the host and passes its exit status on."""
        # The remote shell splits what it gets: quote each word for it.
        remote = shell.quote(["sudo", *argv])
        flags = ["-t"] * tty + ["-n"] * (not stdin)
        return ["ssh", *SSH_OPTIONS, *flags, "-i", str(self._key(host)), f"vagrant@{host.address}", remote]

    def load_image(self, host: Host, archive: Path) -> None:
        """Give the host's own engine the images of a ``docker save`` archive."""
        with archive.open("rb") as data:
            shell.run(self.terminal_argv(host, ["docker", "load", "-q"], tty=False, stdin=True), stdin=data)

    def destroy(self) -> None:
        """Remove all VMs of the lab."""
        self._vagrant("destroy", "--force")

    def _key(self, host: Host) -> Path:
        """Return the key that Vagrant made for the host, or ours where the image knows only that."""
        own = sorted(_notes(self._folder).glob(f"machines/{host.name}/*/private_key"))
        return own[0] if own else state.lab_folder(self._lab.name) / SSH_KEY

    def _container(self, host: Host) -> str:
        """Return the container that the docker provider made for the host; empty if another provider made it."""
        path = _notes(self._folder) / "machines" / host.name / "docker" / "id"
        return path.read_text().strip() if path.exists() else ""

    def _vagrant(self, *arguments: str) -> str:
        env = os.environ | {
            "VAGRANT_CWD": str(self._folder),
            "TRIREME_NAME": self._lab.name,
            "TRIREME_MASTERS": str(len(self._lab.masters)),
            "TRIREME_NODES": str(len(self._lab.nodes)),
            "TRIREME_SUBNET": self._lab.subnet,
            "TRIREME_ENGINE": self._lab.engine,
        }
        return shell.run(["vagrant", *arguments], env=env, timeout_s=VAGRANT_TIMEOUT_S)


def _status(container: str) -> str:
    """Return what the engine calls the container's state; empty if there is none."""
    if not container:
        return ""
    try:
        return shell.run(["docker", "container", "inspect", "--format", "{{.State.Status}}", container]).strip()
    except CommandFailed:
        return ""


def _signal(container: str, verb: str, *, only: set[str]) -> None:
    if _status(container) in only:
        shell.run(["docker", verb, container])


SSH_FAILED = 255  # ssh's own status; commands hardly ever end with it
SSH_OPTIONS = (
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "LogLevel=ERROR",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=5",
)
