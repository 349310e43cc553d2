"""The programs on the hosts: their logs, killing one of them, images for their engines."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from deploy.errors import HostFailed, UsageError
from deploy.hosts.base import HostDriver
from deploy.lab import Host, Lab
from deploy.parallel import each
from deploy.state import home

SERVICES = "/opt/trireme/services"


def check_program(lab: Lab, host: Host, program: str) -> str:
    """Return ``program`` if ``host`` runs one of that name; raises UsageError naming those that it runs."""
    if program not in lab.programs(host):
        raise UsageError(f"{host.name} runs no {program}", hint=f"its programs: {', '.join(lab.programs(host))}")
    return program


def log_argv(lab: Lab, host: Host, program: str, *, follow: bool, lines: int) -> list[str]:
    """Return the command that prints the logs on the host."""
    programs = [check_program(lab, host, program)] if program else list(lab.programs(host))
    files = [f"/var/log/trireme/{name}/current" for name in programs]
    count = str(lines) if lines > 0 else "+1"
    # -F: svlogd begins a new file when the old one is full.
    return ["tail", "-n", count, *(["-F"] if follow else []), *files]


def kill_program(driver: HostDriver, host: Host, program: str) -> None:
    """Kill one program of the host (checked before); its supervisor starts it again a second later."""
    result = driver.execute(host, ["sv", "kill", f"{SERVICES}/{host.role}/{program}"])
    if result.exit_status != 0:
        raise HostFailed(f"{program} on {host.name} could not be killed: {result.output.strip()}")


def full_name(image: str) -> str:
    """Return ``image`` with the tag that Docker means where none is given."""
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def load_images(client: docker.DockerClient, lab: Lab, driver: HostDriver, images: Sequence[str]) -> list[Host]:
    """Put ``images`` of this machine's engine on every running node; return those nodes."""
    for image in images:
        try:
            client.images.get(image)
        except ImageNotFound as exc:
            hint = f"docker pull {image}, or build it; 'docker images' lists what there is"
            raise UsageError(f"this machine's Docker engine has no image '{image}'", hint=hint) from exc
    states = driver.states()
    nodes = [node for node in lab.nodes if states[node.name] == "running"]
    if not nodes:
        raise HostFailed("no node is running", hint=f"trireme start --name {lab.name}")
    with tempfile.NamedTemporaryFile(prefix="trireme-", suffix=".tar", dir=home()) as archive:
        for image in images:
            archive.seek(0)
            archive.truncate()
            # Under the name that the caller gave: an image may have several.
            for chunk in client.api.get_image(full_name(image)):
                archive.write(chunk)
            archive.flush()
            each(nodes, lambda node: driver.load_image(node, Path(archive.name)))
    return nodes
