"""``./trireme test``: installs what the tests need from the distribution, then runs every check and sums up."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy import engine, shell
from deploy.errors import DeployError
from deploy.state import home, log_file

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
KUBERNETES_CLIENT = "kubernetes-client"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that tests use, the Debian package that has it, and what it is for."""

    program: str
    package: str
    purpose: str


TOOLS = (
    Tool("etcd", "etcd-server", "the reference of the store's contract tests"),
    Tool("etcdctl", "etcd-client", "a client of the store that is not ours"),
    Tool("iptables", "iptables", "network rules of pods and faults"),
    Tool("ip", "iproute2", "network namespaces of the network tests"),
    Tool("busybox", "busybox-static", "the lab's own small image"),
    Tool("debootstrap", "debootstrap", "Debian's image where no registry answers"),
    Tool("vagrant", "vagrant", "checking the Vagrantfile"),
)
VAGRANT_LIBVIRT = "vagrant-libvirt"  # a plug-in without a program of its own


@dataclass(frozen=True, slots=True)
class Check:
    """One command of the checks."""

    title: str
    argv: tuple[str, ...]


STATIC = (
    Check("ruff check", (str(BIN / "ruff"), "check", ".")),
    Check("ruff format", (str(BIN / "ruff"), "format", "--check", ".")),
    Check("mypy --strict", (str(BIN / "mypy"),)),
    Check("import-linter", (str(BIN / "lint-imports"),)),
)
LIGHT_TESTS = Check(
    "pytest, without Docker", (str(BIN / "pytest"), "-n", "auto", "-ra", "-m", "not docker and not e2e")
)
# One after another: they share this machine's engine, its addresses and its two cores.
HEAVY_TESTS = Check("pytest, Docker and end to end", (str(BIN / "pytest"), "-ra", "-m", "docker or e2e"))


def plan_checks(*, quick: bool, pytest_arguments: Sequence[str]) -> list[Check]:
    """Return what to run: only pytest if the caller passes it arguments, else everything."""
    if pytest_arguments:
        return [Check("pytest", (str(BIN / "pytest"), "-ra", *pytest_arguments))]
    return [*STATIC, LIGHT_TESTS] if quick else [*STATIC, LIGHT_TESTS, HEAVY_TESTS]


def run_checks(*, ask: engine.Ask, quick: bool, pytest_arguments: Sequence[str], console: Console) -> bool:
    """Run every check, also after one has failed; return whether all passed."""
    env = dict(os.environ)
    if not quick:
        env |= prepare(ask, console)
    outcomes = []
    for check in plan_checks(quick=quick, pytest_arguments=pytest_arguments):
        console.rule(check.title, align="left")
        began = time.monotonic()
        status = subprocess.run(check.argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode
        outcomes.append((check.title, status, time.monotonic() - began))
    console.rule("summary", align="left")
    for title, status, took_s in outcomes:
        mark = "[green]passed[/]" if status == 0 else f"[red]FAILED[/] (exit status {status})"
        console.print(f"{title:<32} {took_s:7.1f} s  {mark}")
    return all(status == 0 for _, status, _ in outcomes)


def prepare(ask: engine.Ask, console: Console) -> Mapping[str, str]:
    """Install what is missing and see that a Docker engine runs; return the environment that tests get on top."""
    missing = missing_packages()
    if missing:
        _install(missing, ask, console)
    engine.ensure(ask, lambda note: console.print(note, markup=False)).close()
    kubectl = debian_kubectl(console)
    debian_victoria_metrics(console)
    paths = [os.environ["PATH"]] if shutil.which("kubectl") else [os.environ["PATH"], str(kubectl.parent)]
    return {"TRIREME_DEBIAN_KUBECTL": str(kubectl), "PATH": ":".join(paths)}


def missing_packages() -> list[str]:
    """Return the Debian packages to install so that every test finds what it needs."""
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [tool.package for tool in TOOLS if shutil.which(tool.program, path=search) is None]
    if not _installed(VAGRANT_LIBVIRT):
        missing.append(VAGRANT_LIBVIRT)
    return missing


def _installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout == "installed"


def _install(packages: Sequence[str], ask: engine.Ask, console: Console) -> None:
    names = " ".join(packages)
    hint = f"apt-get install {names} (as root), or repeat with --yes as root"
    if shutil.which("apt-get") is None:
        raise DeployError(f"the tests need these Debian packages: {names}", hint="run them on a Debian-like machine")
    if os.geteuid() != 0 or not ask(f"The tests need these packages: {names}. Shall I install them?"):
        raise DeployError(f"the tests need packages that are not installed: {names}", hint=hint)
    console.print(f"installing {names}", markup=False)
    engine.install_packages(list(packages))


def debian_kubectl(console: Console) -> Path:
    """Return Debian's kubectl: its package conflicts with others that bring a kubectl."""
    return _unpacked(KUBERNETES_CLIENT, "kubectl", console)


def debian_victoria_metrics(console: Console) -> Path:
    """Return Debian's victoria-metrics: installed its package would start a service.

    It scrapes by prometheus's configuration. Debian builds prometheus itself without Kubernetes discovery.
    """
    return _unpacked("victoria-metrics", "victoria-metrics", console)


def _unpacked(package: str, program: str, console: Console) -> Path:
    """Return a program of a Debian package that is unpacked into our cache, not installed."""
    folder = home() / "cache" / package
    found = folder / "usr" / "bin" / program
    if found.exists():
        return found
    console.print(f"unpacking Debian's {package}", markup=False)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log = log_file("apt")
    # The sandboxed user of apt cannot write into root's folders and would warn.
    shell.run(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], cwd=folder, log=log)
    archive = next(folder.glob("*.deb"))
    shell.run(["dpkg", "-x", str(archive), str(folder)], log=log)
    archive.unlink()
    return found
