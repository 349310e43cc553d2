"""Hosts that are containers on this machine's Docker engine.

Everything made here bears the label ``trireme.lab=NAME``, so that ``down`` finds it even when nothing else is left.
Masters and the entry host are plain containers with leave to program their own network; nodes run a Docker engine of
their own and need nearly all that a machine has.
"""

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import msgspec
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from deploy import shell
from deploy.errors import HostFailed
from deploy.hosts.base import HostState, Result
from deploy.lab import API_PORT, Host, Lab, Network, Role, pick_subnet, routed_networks
from deploy.parallel import each
from deploy.state import home, host_folder, write

LABEL = "trireme.lab"
HOST_LABEL = "trireme.host"
STOP_TIMEOUT_S = 12
STATES: dict[str, HostState] = {"running": "running", "paused": "paused", "restarting": "running"}

# A machine whose bounding set lacks CAP_SYS_RESOURCE refuses --privileged; this is as near as it lets us come.
NEARLY_PRIVILEGED: dict[str, Any] = {
    "CapAdd": ["ALL"],
    "CapDrop": ["SYS_RESOURCE"],
    "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined"],
    "MaskedPaths": [],
    "ReadonlyPaths": [],
    "DeviceCgroupRules": ["a *:* rwm"],
}
PRIVILEGED: dict[str, Any] = {"Privileged": True}
# Faults are iptables rules inside the host; the balancer may bind an address that comes and goes.
LIGHT: dict[str, Any] = {"CapAdd": ["NET_ADMIN"]}

# Volumes by role: suffix of the volume's name -> where the host sees it.
VOLUMES: dict[Role, dict[str, str]] = {
    "entry": {},
    "master": {"data": "/var/lib/trireme"},
    "node": {"data": "/var/lib/trireme", "docker": "/var/lib/docker"},
}


def prefix(lab: str) -> str:
    """Return what the names of all the lab's containers, volumes and its network begin with."""
    return f"trireme-{lab}"


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, OSError) as exc:
        reason = exc.explanation if isinstance(exc, APIError) and exc.explanation else exc
        raise HostFailed(f"{what}: {reason}", hint=_hint(str(reason))) from exc


def _hint(reason: str) -> str:
    if "no space left" in reason:
        return "the engine's disk is full; docker system df shows what takes it"
    if "port is already allocated" in reason or "address already in use" in reason:
        return "choose another port with --api-port"
    return ""


class ContainerHosts:
    """Makes, drives and removes the container hosts of one lab; a ``HostDriver``."""

    def __init__(self, lab: Lab, client: docker.DockerClient) -> None:
        self._lab = lab
        self._client = client
        self._prefix = prefix(lab.name)

    # What only ``up`` needs.

    def ensure_network(self) -> None:
        """Make the lab's network; raises HostFailed if its subnet has been taken meanwhile."""
        with _explained(f"the network {self._prefix} could not be made"):
            if self._client.networks.list(names=[f"^{self._prefix}$"]):
                return
            pool = docker.types.IPAMPool(subnet=self._lab.subnet)
            self._client.networks.create(
                self._prefix,
                driver="bridge",
                ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                labels={LABEL: self._lab.name},
                check_duplicate=True,
            )

    def outdated(self, *, image: str) -> list[str]:
        """Return the names of the hosts that were made from another image than ``image``."""
        with _explained("the engine did not list the lab's containers"):
            wanted = self._client.images.get(image).id
            listed = self._client.api.containers(all=True, filters={"label": f"{LABEL}={self._lab.name}"})
        return sorted(entry["Labels"][HOST_LABEL] for entry in listed if entry["ImageID"] != wanted)

    def discard(self, host: Host) -> None:
        """Stop the host and remove its container; its volumes, and so all its data, stay."""
        with _explained(f"{host.name} could not be replaced"):
            self.stop(host)
            self._get(host).remove(force=True)

    def ensure_hosts(self, *, image: str) -> None:
        """Make the hosts that are not there and see that all run, side by side."""
        with _explained("the engine did not say what it allows"):
            privileges = node_privileges(self._client, image)
        each(self._lab.hosts, lambda host: self._ensure_host(host, image, privileges))

    def _ensure_host(self, host: Host, image: str, privileges: dict[str, Any]) -> None:
        with _explained(f"{host.name} could not be started"):
            container = self._find(host)
            if container is None:
                self._create(host, image, privileges)
            elif container.status == "paused":
                container.unpause()
            elif container.status != "running":
                container.start()

    def _create(self, host: Host, image: str, privileges: dict[str, Any]) -> None:
        labels = {LABEL: self._lab.name, HOST_LABEL: host.name}
        name = f"{self._prefix}-{host.name}"
        binds = [f"{host_folder(self._lab.name, host.name)}:/etc/trireme:ro"]
        for suffix, target in VOLUMES[host.role].items():
            volume = f"{name}-{suffix}"
            self._client.volumes.create(volume, labels=labels)
            binds.append(f"{volume}:{target}")
        body = {
            "Image": image,
            "Hostname": host.name,
            "Cmd": [host.role],
            "Labels": labels,
            "ExposedPorts": {f"{API_PORT}/tcp": {}} if host.role == "entry" else {},
            "HostConfig": self._host_config(host, binds) | (privileges if host.role == "node" else LIGHT),
            "NetworkingConfig": {
                "EndpointsConfig": {self._prefix: {"IPAMConfig": {"IPv4Address": host.address}, "Aliases": [host.name]}}
            },
        }
        # The SDK's own create has no field for masked paths.
        created = self._client.api.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
        self._client.api.start(created["Id"])

    def _host_config(self, host: Host, binds: list[str]) -> dict[str, Any]:
        config: dict[str, Any] = {
            "Init": True,
            "Binds": binds,
            "NetworkMode": self._prefix,
            "ExtraHosts": [f"{other.name}:{other.address}" for other in self._lab.hosts if other != host],
            # As on a machine: what lies in /run does not survive a restart.
            "Tmpfs": {"/run": "exec"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        }
        if host.role == "entry" and self._lab.api_publish:
            address, _, port = self._lab.api_publish.rpartition(":")
            config["PortBindings"] = {f"{API_PORT}/tcp": [{"HostIp": address, "HostPort": port}]}
        return config

    # HostDriver

    def states(self) -> Mapping[str, HostState]:
        """Return the state of every host of the lab: name -> state."""
        with _explained("the engine did not list the lab's containers"):
            listed = self._client.api.containers(all=True, filters={"label": f"{LABEL}={self._lab.name}"})
        found = {entry["Labels"].get(HOST_LABEL): STATES.get(entry["State"], "stopped") for entry in listed}
        return {host.name: found.get(host.name, "absent") for host in self._lab.hosts}

    def start(self, host: Host) -> None:
        """Start a stopped host; no harm if it runs."""
        with _explained(f"{host.name} could not be started"):
            container = self._get(host)
            if container.status == "paused":
                container.unpause()
            container.start()

    def stop(self, host: Host) -> None:
        """Let the host's programs end in order, then stop it; no harm if it is stopped."""
        with _explained(f"{host.name} could not be stopped"):
            container = self._get(host)
            if container.status == "paused":
                container.unpause()  # a frozen process cannot end
            container.stop(timeout=STOP_TIMEOUT_S)

    def kill(self, host: Host) -> None:
        """End every process of the host at once, as a power cut would."""
        with _explained(f"{host.name} could not be killed"):
            container = self._get(host)
            if container.status not in ("running", "paused"):
                raise HostFailed(f"{host.name} is not running", hint=f"start it with: trireme start {host.name}")
            container.kill("SIGKILL")

    def pause(self, host: Host) -> None:
        """Freeze the host: connections stay open, nothing answers."""
        with _explained(f"{host.name} could not be paused"):
            container = self._get(host)
            if container.status != "paused":
                container.pause()

    def resume(self, host: Host) -> None:
        """Let a paused host go on."""
        with _explained(f"{host.name} could not be resumed"):
            container = self._get(host)
            if container.status == "paused":
                container.unpause()

    def execute(self, host: Host, argv: Sequence[str]) -> Result:
        """Run ``argv`` on the host as root, without input."""
        with _explained(f"{host.name} could not run {argv[0]}"):
            exit_status, output = self._get(host).exec_run(list(argv))
        assert isinstance(output, bytes), "neither streamed nor demultiplexed"
        assert exit_status is not None, "it has ended"
        return Result(exit_status, output.decode(errors="replace"))

    def terminal_argv(self, host: Host, argv: Sequence[str], *, tty: bool, stdin: bool) -> list[str]:
        """Return the docker command that runs ``argv`` on the host and passes its exit status on."""
        flags = ["-i"] * stdin + ["-t"] * tty
        return ["docker", "exec", *flags, f"{self._prefix}-{host.name}", *argv]

    def load_image(self, host: Host, archive: Path) -> None:
        """Give the host's own engine the images of a ``docker save`` archive."""
        with archive.open("rb") as data:
            argv = self.terminal_argv(host, ["docker", "load", "-q"], tty=False, stdin=True)
            shell.run(argv, stdin=data)

    def _find(self, host: Host) -> Container | None:
        try:
            return self._client.containers.get(f"{self._prefix}-{host.name}")
        except NotFound:
            return None

    def _get(self, host: Host) -> Container:
        container = self._find(host)
        if container is None:
            hint = f"make it again with: trireme up --name {self._lab.name}"
            raise HostFailed(f"{host.name} is part of lab '{self._lab.name}' but its container is gone", hint=hint)
        return container


def node_privileges(client: docker.DockerClient, image: str) -> dict[str, Any]:
    """Return what makes a nested engine work here; tried once per engine, then remembered."""
    cache = home() / "cache" / "privileges.json"
    engine = str(client.info()["ID"])
    known: dict[str, bool] = {}
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        known = msgspec.json.decode(cache.read_bytes(), type=dict[str, bool])
    if engine not in known:
        known[engine] = _privileged_works(client, image)
        write(cache, msgspec.json.encode(known))
    return PRIVILEGED if known[engine] else NEARLY_PRIVILEGED


def _privileged_works(client: docker.DockerClient, image: str) -> bool:
    probe = client.containers.create(image, entrypoint=["/bin/true"], privileged=True, network_mode="none")
    try:
        probe.start()
    except APIError:
        return False
    else:
        return True
    finally:
        probe.remove(force=True)


def taken_networks(client: docker.DockerClient) -> list[Network]:
    """Return every IPv4 network that a new lab must keep clear of: the engine's and this machine's routes."""
    taken = routed_networks(Path("/proc/net/route").read_text())
    for network in client.networks.list():
        for pool in (network.attrs.get("IPAM") or {}).get("Config") or []:
            with contextlib.suppress(ValueError, KeyError):
                taken.append(ipaddress.IPv4Network(pool["Subnet"]))
    return taken


def free_subnet(client: docker.DockerClient) -> str:
    """Return a /24 for a new lab."""
    with _explained("the engine did not list its networks"):
        return pick_subnet(taken_networks(client))


def labs_found(client: docker.DockerClient) -> set[str]:
    """Return the names of all labs of which the engine holds anything."""
    with _explained("the engine did not list its containers, networks and volumes"):
        containers = client.api.containers(all=True, filters={"label": LABEL})
        networks = client.api.networks(filters={"label": LABEL})
        volumes = client.api.volumes(filters={"label": LABEL})["Volumes"] or []
    return {item["Labels"][LABEL] for item in (*containers, *networks, *volumes)}


def remove_all(client: docker.DockerClient, lab: str) -> int:
    """Remove every container, network and volume of the lab, whatever its state; return how many there were."""
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={lab}"}
    with _explained(f"lab '{lab}' could not be removed entirely"):
        containers = client.containers.list(all=True, filters=mine, ignore_removed=True)
        each(containers, lambda container: _remove(container.remove, force=True, v=True))
        volumes = client.volumes.list(filters=mine)
        each(volumes, lambda volume: _remove(volume.remove, force=True))
        networks = client.networks.list(filters=mine)
        each(networks, lambda network: _remove(network.remove))
    return len(containers) + len(volumes) + len(networks)


def _remove(remove: Callable[..., None], **options: bool) -> None:
    """Removing what is gone already is fine, also when somebody else is about it right now."""
    try:
        remove(**options)
    except NotFound:
        pass
    except APIError as exc:
        if "already in progress" not in str(exc.explanation):
            raise
