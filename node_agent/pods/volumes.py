"""Volumes on this node's disk: directories that containers mount. Everything here blocks; call it in a thread.

Files of a volume that follows an object are never written in place. They lie in a directory with a time in its name,
``..data`` is a symlink to it, and every visible name is a symlink through ``..data``; an update makes a new directory
and renames one symlink over the other, so a reader sees all files old or all files new.
"""

import logging
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from api import quantity
from api.kinds.pods import Container, Pod, VolumeMount
from api.kinds.volumes import EmptyDirVolumeSource, HostPathVolumeSource, Volume
from node_agent.errors import CommandFailed, NodeError
from node_agent.pods.environment import expand, unknown_references
from node_agent.pods.volume_files import File
from node_agent.runtime.base import Mount

log = logging.getLogger(__name__)

_DATA = "..data"
_PROPAGATION = {"": "", "None": "", "HostToContainer": "rslave", "Bidirectional": "rshared"}
_SHARED_MODE = 0o777
_TMPFS_MODE = 0o1777  # the kernel's own for a new one


class VolumeFailed(NodeError):
    """A volume cannot be set up: FailedMount."""


class MountRefused(NodeError):
    """A container cannot mount a volume the way it asks: its configuration is at fault, not the volume."""


class Mounted(msgspec.Struct, frozen=True):
    """A volume that is ready. read_only: whatever the container asks for."""

    path: Path
    read_only: bool = False


def follows_objects(volume: Volume) -> bool:
    """Whether the volume's files are rendered from objects of the API."""
    return bool(volume.config_map or volume.secret or volume.downward_api or volume.projected)


class PodVolumes:
    """The directory of one pod under ``root``."""

    def __init__(self, root: Path, uid: str) -> None:
        self.directory = root / "pods" / uid

    def set_up(self, pod: Pod, files: Mapping[str, Mapping[str, File]]) -> dict[str, Mounted]:
        """Make every volume ready and return volume name -> where it is.

        files: volume name -> its rendered files, for volumes that follow objects. Raises VolumeFailed.
        """
        context = pod.spec.security_context
        group = context.fs_group if context else None
        mounted = {}
        for volume in pod.spec.volumes:
            try:
                mounted[volume.name] = self._set_up(volume, files.get(volume.name), group)
            except (OSError, NodeError) as exc:
                raise VolumeFailed(f'MountVolume.SetUp failed for volume "{volume.name}" : {exc}') from exc
        return mounted

    def _set_up(self, volume: Volume, files: Mapping[str, File] | None, group: int | None) -> Mounted:
        if follows_objects(volume):
            path = self._path("projected", volume.name)
            write_files(path, files or {}, group=group)
            return Mounted(path, read_only=True)
        if volume.host_path:
            return Mounted(_host_path(volume.host_path))
        # A volume without a source is an emptyDir.
        if volume.empty_dir or msgspec.structs.replace(volume, name="") == Volume():
            return Mounted(self._empty_dir(volume.name, volume.empty_dir or EmptyDirVolumeSource(), group))
        raise VolumeFailed("this node has no driver for its source")

    def _path(self, kind: str, name: str) -> Path:
        return self.directory / "volumes" / kind / name

    def _empty_dir(self, name: str, source: EmptyDirVolumeSource, group: int | None) -> Path:
        path = self._path("empty-dir", name)
        fresh = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        if source.medium == "Memory" and not os.path.ismount(path):
            size = f",size={quantity.whole(source.size_limit)}" if source.size_limit else ""
            _run("mount", "-t", "tmpfs", "-o", f"mode={_TMPFS_MODE:o}{size}", "tmpfs", str(path))
        elif source.medium not in {"", "Memory"}:
            raise VolumeFailed(f"medium {source.medium!r} is not supported on this node")
        if fresh:
            mode = _TMPFS_MODE if source.medium == "Memory" else _SHARED_MODE
            if group is not None:
                os.chown(path, -1, group)
            path.chmod(mode if group is None else mode | stat.S_ISGID)
        return path

    def termination_log(self, container: str, attempt: int) -> Path:
        """Make the file that takes the container's last words, and return it."""
        path = self.directory / "containers" / container / str(attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o666)
        path.chmod(0o666)
        return path

    def read_termination_log(self, container: str, attempt: int, limit: int = 4096) -> str:
        """Return the container's last words, the last ``limit`` bytes of them; "" if there are none."""
        path = self.directory / "containers" / container / str(attempt)
        try:
            return path.read_bytes()[-limit:].decode(errors="replace")
        except OSError:
            return ""

    def write_etc(self, name: str, content: str) -> Path:
        """Write ``hosts`` or ``resolv.conf`` and return the file.

        In place: containers have the file itself mounted, and would keep an old one if it were replaced.
        """
        path = self.directory / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        return path

    def tear_down(self) -> None:
        """Unmount and remove everything of the pod; nothing is left of a hostPath but the path itself."""
        for mount in _mounts_below(self.directory):
            _run("umount", mount)
        if self.directory.exists():
            shutil.rmtree(self.directory)


def leftover_pods(root: Path) -> list[str]:
    """Return the UIDs of pods that have a directory."""
    pods = root / "pods"
    return sorted(each.name for each in pods.iterdir()) if pods.is_dir() else []


def render_mounts(
    container: Container, mounted: Mapping[str, Mounted], environment: Mapping[str, str]
) -> tuple[Mount, ...]:
    """Return the container's volume mounts, outer paths before those inside them. Makes missing sub-paths.

    Raises MountRefused.
    """
    mounts = []
    for each in container.volume_mounts:
        volume = mounted.get(each.name)
        if volume is None:
            raise MountRefused(f'volumeMount "{each.name}" of container {container.name}: the pod has no such volume')
        mounts.append(
            Mount(
                source=str(_sub_path(volume.path, _wanted_sub_path(each, environment))),
                target=each.mount_path if each.mount_path.startswith("/") else f"/{each.mount_path}",
                read_only=bool(each.read_only) or volume.read_only,
                propagation=_PROPAGATION[each.mount_propagation],
            )
        )
    return tuple(sorted(mounts, key=lambda mount: mount.target.count("/")))


def _wanted_sub_path(mount: VolumeMount, environment: Mapping[str, str]) -> str:
    if not mount.sub_path_expr:
        return mount.sub_path
    # A directory called "$(POD)" is what nobody wants; in a command such text may mean something to a shell.
    if unknown := unknown_references(mount.sub_path_expr, environment):
        raise MountRefused(f"subPathExpr {mount.sub_path_expr!r}: there is no variable {', '.join(unknown)}")
    return expand(mount.sub_path_expr, environment)


def _sub_path(root: Path, sub_path: str) -> Path:
    if not sub_path:
        return root
    if sub_path.startswith("/") or ".." in sub_path.split("/"):
        raise MountRefused(f"subPath {sub_path!r} leads out of the volume")
    # A container may have put a symlink there that points anywhere on the host.
    path = Path(os.path.realpath(root / sub_path))
    if not path.is_relative_to(os.path.realpath(root)):
        raise MountRefused(f"subPath {sub_path!r} leads out of the volume through a symlink")
    try:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(stat.S_IMODE(root.stat().st_mode))
    except OSError as exc:
        raise MountRefused(f"failed to create subPath directory {sub_path!r}: {exc}") from exc
    return path


_HOST_PATH_TESTS = {
    "Directory": ("is not a directory", Path.is_dir),
    "File": ("is not a file", Path.is_file),
    "Socket": ("is not a socket", Path.is_socket),
    "CharDevice": ("is not a character device", Path.is_char_device),
    "BlockDevice": ("is not a block device", Path.is_block_device),
}


def _host_path(source: HostPathVolumeSource) -> Path:
    path = Path(source.path)
    match source.type:
        case "" | "DirectoryOrCreate":
            # The engine mounts only what exists; without a type Kubernetes leaves making it to the engine.
            if not path.exists():
                path.mkdir(parents=True, mode=0o755)
            if source.type and not path.is_dir():
                raise VolumeFailed(f"hostPath type check failed: {path} is not a directory")
        case "FileOrCreate":
            path.touch(mode=0o644, exist_ok=True)
            if not path.is_file():
                raise VolumeFailed(f"hostPath type check failed: {path} is not a file")
        case kind if kind in _HOST_PATH_TESTS:
            complaint, test = _HOST_PATH_TESTS[kind]
            if not test(path):
                raise VolumeFailed(f"hostPath type check failed: {path} {complaint}")
        case kind:
            raise VolumeFailed(f"hostPath type {kind!r} is unknown")
    return path


def write_files(directory: Path, files: Mapping[str, File], *, group: int | None = None) -> bool:
    """Bring the directory to ``files`` in one step; whether anything changed."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    files = {name: _as_written(file, group) for name, file in files.items()}
    if (directory / _DATA).exists() and _read_files(directory / _DATA) == dict(files):
        return False
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    fresh.chmod(0o755)
    for name, file in files.items():
        _write_file(fresh / name, file, group)
    old = (directory / _DATA).readlink() if (directory / _DATA).is_symlink() else None
    draft = directory / "..data_tmp"
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    draft.rename(directory / _DATA)
    _link_names(directory, files)
    if old:
        shutil.rmtree(directory / old)
    return True


def _as_written(file: File, group: int | None) -> File:
    """Return the file with what it gets on disk: the pod's group may read it, what we write is ours already."""
    return msgspec.structs.replace(
        file,
        mode=file.mode if group is None else file.mode | 0o040,
        owner=None if file.owner == os.geteuid() else file.owner,
    )


def _write_file(path: Path, file: File, group: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(file.content)
    os.chown(path, -1 if file.owner is None else file.owner, -1 if group is None else group)
    path.chmod(file.mode)


def _link_names(directory: Path, files: Mapping[str, File]) -> None:
    """Make the visible names equal to the first parts of the files' paths."""
    wanted = {name.split("/")[0] for name in files}
    present = {each.name for each in directory.iterdir() if not each.name.startswith("..")}
    for name in present - wanted:
        (directory / name).unlink()
    for name in wanted - present:
        (directory / name).symlink_to(f"{_DATA}/{name}")


def _read_files(directory: Path) -> dict[str, File]:
    found = {}
    for path in directory.rglob("*"):
        if path.is_file():
            status = path.stat()
            owner = None if status.st_uid == os.geteuid() else status.st_uid
            found[str(path.relative_to(directory))] = File(path.read_bytes(), stat.S_IMODE(status.st_mode), owner)
    return found


def _mounts_below(directory: Path) -> list[str]:
    """Return mount points below ``directory``, the innermost first."""
    prefix = f"{directory}/"
    found = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in found if point.startswith(prefix)), key=len, reverse=True)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise CommandFailed(argv, done.returncode, done.stderr)
