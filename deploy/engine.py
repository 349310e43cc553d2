"""The Docker engine on this machine: reaching it, and offering to install and start one where there is none."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import docker
from docker.errors import DockerException

from deploy import shell
from deploy.errors import CommandFailed, EngineUnavailable
from deploy.state import log_file

DEFAULT_HOST = "unix:///var/run/docker.sock"
START_TIMEOUT_S = 30
APT_LOCK_TIMEOUT_S = 300
# Of engine 20.10, which Debian 12 has. Naming a version spares the SDK the question at every start.
OLDEST_API = "1.41"
CALL_TIMEOUT_S = 600  # loading a large image is one call

Ask = Callable[[str], bool]  # a question -> whether the user said yes


def connect() -> docker.DockerClient:
    """Return a client of the engine that answers; raises EngineUnavailable saying why none does."""
    try:
        _knock()
        client = docker.DockerClient.from_env(version=OLDEST_API, timeout=CALL_TIMEOUT_S)
    except (DockerException, OSError) as exc:
        raise EngineUnavailable(f"no Docker engine answers: {_explain(exc)}", hint=_advice(exc)) from exc
    try:
        client.ping()
    except (DockerException, OSError) as exc:
        client.close()
        raise EngineUnavailable(f"no Docker engine answers: {_explain(exc)}", hint=_advice(exc)) from exc
    return client


def _knock() -> None:
    """Raise the operating system's own error if the engine's socket cannot be reached; the SDK buries it."""
    url = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(url.removeprefix("unix://"))


def _explain(exc: Exception) -> str:
    where = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    match exc:
        case PermissionError():
            return f"permission denied at {where}"
        case FileNotFoundError():
            return f"there is no {where}"
        case ConnectionRefusedError():
            return f"nothing listens at {where}"
        case _:
            return f"{where}: {exc}"


def _advice(exc: Exception) -> str:
    if isinstance(exc, PermissionError):
        return "run trireme as root, or let your user use Docker: adduser $USER docker (then log in again)"
    if os.environ.get("DOCKER_HOST"):
        return "DOCKER_HOST is set: start that engine or unset the variable"
    return "start the engine (systemctl start docker); 'trireme up --yes' installs and starts one"


def ensure(ask: Ask, note: Callable[[str], None]) -> docker.DockerClient:
    """Return a client, installing and starting an engine first if there is none and ``ask`` agrees."""
    try:
        return connect()
    except EngineUnavailable as exc:
        if isinstance(exc.__cause__, PermissionError) or os.environ.get("DOCKER_HOST"):
            raise
        if os.geteuid() != 0:
            hint = "start one, or run trireme as root so that it can install and start one"
            raise EngineUnavailable(str(exc), hint=hint) from exc
        installed = shutil.which("dockerd") is not None
        if not installed and shutil.which("apt-get") is None:
            hint = "this is no Debian-like distribution: install Docker by its own means, then repeat"
            raise EngineUnavailable(str(exc), hint=hint) from exc
        deed = (
            "start the Docker engine" if installed else "install Docker from the distribution (docker.io) and start it"
        )
        if not ask(f"No Docker engine runs here. Shall I {deed}?"):
            raise EngineUnavailable(str(exc), hint=f"repeat with --yes to let trireme {deed}") from exc
        if not installed:
            note("installing docker.io from the distribution")
            install_packages(["docker.io", "iptables"])
        note("starting the Docker engine")
        start()
        return connect()


def install_packages(packages: list[str]) -> None:
    """Install Debian packages; raises CommandFailed with apt's own words."""
    log = log_file("apt")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    known = [name for name in (*packages, "docker-cli") if name != "docker-cli" or "docker.io" in packages]
    # Another installation may be under way, such as a fresh machine's own upgrades.
    apt = ["apt-get", "-q", "-o", f"DPkg::Lock::Timeout={APT_LOCK_TIMEOUT_S}"]
    shell.run([*apt, "update"], env=env, log=log, timeout_s=600)
    # Debian 13 and later put the client into a package of its own.
    wanted = [name for name in known if name != "docker-cli" or _exists(name)]
    shell.run([*apt, "install", "-y", "--no-install-recommends", *wanted], env=env, log=log, timeout_s=1800)


def _exists(package: str) -> bool:
    try:
        return bool(shell.run(["apt-cache", "madison", package]).strip())
    except CommandFailed:
        return False


def start() -> None:
    """Start the installed engine by the machine's init system, or by ourselves where there is none."""
    log = log_file("dockerd")
    if Path("/run/systemd/system").is_dir():
        shell.run(["systemctl", "start", "docker"], log=log)
    else:
        # A pid file left by a crash or a reboot of the container would keep dockerd from starting.
        Path("/var/run/docker.pid").unlink(missing_ok=True)
        with log.open("ab") as output:
            subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            connect().close()
        except EngineUnavailable:
            time.sleep(0.2)
        else:
            return
    raise EngineUnavailable("the Docker engine was started but does not answer", hint=f"its log: {log}")


def ask_on_terminal(*, yes: bool) -> Ask:
    """Return a way to ask: yes to everything, a prompt on a terminal, and no where nobody can answer."""

    def ask(question: str) -> bool:
        if yes:
            return True
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        sys.stderr.write(f"{question} [Y/n] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("", "y", "yes")

    return ask
