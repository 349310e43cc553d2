"""Backups of a lab: its store's whole state, and the keys without which that state says little.

Every master makes backups of its own on schedule (``[backup]`` in store.toml). What leaves the lab is one file: a tar
of the store's snapshot and the lab's keys. The authority's key keeps certificates valid that nodes and users have,
the signing key the tokens of service accounts, and what is encrypted at rest can be read with nothing else. So the file
is as secret as the lab itself. A bare snapshot (``etcdctl snapshot save``) does as well, with new keys.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from deploy import state
from deploy.configs import BACKUPS, SNAPSHOT
from deploy.errors import DeployError, HostFailed, UsageError
from deploy.hosts.base import HostDriver
from deploy.lab import Host, Lab
from deploy.store import TOOL, environment

SUFFIX = ".backup.tar"
_STATE = "store.snapshot"
_KEYS = "pki"
# The administrator's own pair is made anew by the authority.
_LEFT_OUT = ("admin.crt", "admin.key")


class Kept(msgspec.Struct, frozen=True):
    """A backup that lies on a master."""

    host: str
    name: str
    size_bytes: int


def listed(lab: Lab, driver: HostDriver) -> list[Kept]:
    """Return the backups on the running masters, newest first."""
    states = driver.states()
    found: list[Kept] = []
    for host in lab.masters:
        if states[host.name] == "running":
            result = driver.execute(host, ["find", BACKUPS, "-name", "*.snapshot", "-printf", "%f %s\\n"])
            found += _parse(host, result.output) if result.exit_status == 0 else ()
    return sorted(found, key=lambda kept: kept.name, reverse=True)


def _parse(host: Host, output: str) -> Iterator[Kept]:
    for line in output.splitlines():
        name, _, size = line.rpartition(" ")
        if name.endswith(".snapshot") and size.isdecimal():
            yield Kept(host.name, name, int(size))


def make(lab: Lab, target: Path | None) -> Path:
    """Save the state of now and the lab's keys into ``target``; return where."""
    path = target or Path.cwd() / f"{lab.name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{SUFFIX}"
    snapshot = path.with_name(path.name + ".part")
    argv = ["snapshot", "save", str(snapshot)]
    _run_tool(argv, environment(lab.name, argv))
    return _pack(lab, snapshot, path)


def fetch(lab: Lab, driver: HostDriver, name: str, target: Path | None) -> Path:
    """Bring a backup that a master keeps, the newest without ``name``, here, with the lab's keys; return where."""
    kept = next((one for one in listed(lab, driver) if name in ("", one.name)), None)
    if kept is None:
        wanted = f"backup {name}" if name else "backup yet"
        raise UsageError(f"no running master has a {wanted}", hint=f"trireme backup list --name {lab.name}")
    path = target or Path.cwd() / f"{lab.name}-{kept.name.removesuffix('.snapshot')}{SUFFIX}"
    snapshot = path.with_name(path.name + ".part")
    argv = driver.terminal_argv(lab.host(kept.host), ["cat", f"{BACKUPS}/{kept.name}"], tty=False, stdin=False)
    with snapshot.open("wb") as file:
        copied = subprocess.run(argv, stdout=file, stderr=subprocess.PIPE, check=False)
    if copied.returncode != 0:
        snapshot.unlink()
        raise HostFailed(f"{kept.name} could not be read on {kept.host}: {copied.stderr.decode().strip()}")
    _run_tool(["snapshot", "status", str(snapshot)], {})
    return _pack(lab, snapshot, path)


def unpack(source: Path, lab: Lab) -> None:
    """Put what a lab begins with where its masters look for it; raises UsageError for a file that is no backup."""
    if not source.is_file():
        raise UsageError(f"there is no file {source}")
    snapshot = state.lab_folder(lab.name) / SNAPSHOT
    snapshot.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if tarfile.is_tarfile(source):
        _unpack_tar(source, lab, snapshot)
    else:
        shutil.copyfile(source, snapshot)
    snapshot.chmod(0o600)
    try:
        _run_tool(["snapshot", "status", str(snapshot)], {})
    except DeployError as exc:
        snapshot.unlink()
        raise UsageError(f"{source} is no backup that a lab can begin with: {exc}") from exc
    for host in lab.masters:
        folder = state.host_folder(lab.name, host.name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(snapshot, folder / SNAPSHOT)
        (folder / SNAPSHOT).chmod(0o600)
    snapshot.unlink()


def _pack(lab: Lab, snapshot: Path, path: Path) -> Path:
    """Make one file of a snapshot and the lab's keys; the snapshot goes."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    with tarfile.open(fresh, "w") as archive:
        archive.add(snapshot, _STATE)
        for key in sorted((state.lab_folder(lab.name) / "pki").iterdir()):
            if key.is_file() and key.name not in _LEFT_OUT:
                archive.add(key, f"{_KEYS}/{key.name}")
    fresh.rename(path)
    snapshot.unlink()
    return path


def _unpack_tar(source: Path, lab: Lab, snapshot: Path) -> None:
    pki = state.lab_folder(lab.name) / "pki"
    with tarfile.open(source) as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            content = archive.extractfile(member)
            if content is None or ".." in member.name:
                continue
            if member.name == _STATE:
                with snapshot.open("wb") as file:
                    shutil.copyfileobj(content, file)
            elif folder == _KEYS:
                state.write(pki / name, content.read(), mode=0o600)
    if not snapshot.exists():
        raise UsageError(f"{source} holds no {_STATE}", hint="trireme backup now makes such files")


def _run_tool(argv: Sequence[str], variables: Mapping[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, *TOOL, *argv], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise DeployError(result.stderr.strip().removeprefix("error: ") or result.stdout.strip())
