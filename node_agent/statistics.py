"""What node and containers use, read from cgroup files (version 1 and 2) and psutil. Everything here blocks.

The engine's own statistics cost it a second a container; these are two small files. A node may itself be a container:
then the top of the cgroup tree that it sees is its own cgroup, and limits set on it are the node's size.
"""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import psutil

from node_agent.runtime.base import Container

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60


class Usage(msgspec.Struct, frozen=True):
    """Cumulative CPU time and memory in use without what can be dropped at once.

    memory_bytes: with that. rss_bytes: of the processes themselves. page_faults, major_page_faults: ever.
    """

    cpu_s: float
    working_set_bytes: int
    memory_bytes: int = 0
    rss_bytes: int = 0
    page_faults: int = 0
    major_page_faults: int = 0


class Sample(msgspec.Struct, frozen=True):
    """Everything at one moment. containers: container id -> usage."""

    at: float  # Unix seconds
    node: Usage
    containers: Mapping[str, Usage]


class Size(msgspec.Struct, frozen=True):
    """How large the node is."""

    cpus: int
    memory_bytes: int
    disk_bytes: int


class Pressure(msgspec.Struct, frozen=True):
    """What is left of what runs out."""

    memory_available_bytes: int
    disk_available_bytes: int
    disk_bytes: int
    pids_used: int
    pids_limit: int


class Cgroups:
    """The cgroup tree as this process sees it."""

    def __init__(self, root: Path = _ROOT, proc: Path = Path("/proc")) -> None:
        self._root = root
        self._proc = proc
        self.unified = (root / "cgroup.controllers").exists()
        self._mount_roots = _mount_roots(proc)

    def node(self) -> Usage | None:
        """Return what the whole tree uses; None if it does not say (the real root of version 2)."""
        return self._usage(self._root, self._root) if self.unified else self._usage(*self._v1_paths({}))

    def container(self, pid: int) -> Usage | None:
        """Return what the cgroup of a process uses; None if it has ended."""
        try:
            text = (self._proc / str(pid) / "cgroup").read_text()
        except OSError:
            return None
        paths = {}
        for line in text.splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
        if self.unified:
            directory = self._below("", paths.get("", "/"))
            return self._usage(directory, directory)
        return self._usage(*self._v1_paths(paths))

    def _v1_paths(self, paths: Mapping[str, str]) -> tuple[Path, Path]:
        return tuple(self._below(each, paths.get(each, "/")) for each in ("cpuacct", "memory"))  # type: ignore[return-value]

    def _below(self, controller: str, path: str) -> Path:
        """Return the directory of a cgroup; its path counts from the real root, our mount may begin deeper."""
        root = self._mount_roots.get(controller, "/").rstrip("/")
        inside = path.removeprefix(root) if root and path.startswith(root) else path
        base = self._root / controller if controller else self._root
        return base / inside.strip("/")

    def _usage(self, cpu: Path, memory: Path) -> Usage | None:
        try:
            table = _table(memory / "memory.stat")
            if self.unified:
                used_s = _table(cpu / "cpu.stat")["usage_usec"] / 1e6
                used, prefix, rss = _number(memory / "memory.current"), "", "anon"
            else:
                used_s = _number(cpu / "cpuacct.usage") / 1e9
                used, prefix, rss = _number(memory / "memory.usage_in_bytes"), "total_", "total_rss"
            idle = table[f"{prefix}inactive_file"]
        except (OSError, KeyError, ValueError):
            return None
        return Usage(
            cpu_s=used_s,
            working_set_bytes=max(used - idle, 0),
            memory_bytes=used,
            rss_bytes=table.get(rss, 0),
            page_faults=table.get(f"{prefix}pgfault", 0),
            major_page_faults=table.get(f"{prefix}pgmajfault", 0),
        )

    def memory_limit_bytes(self) -> int | None:
        """Return the limit on the whole tree, None without one."""
        name = "memory.max" if self.unified else "memory/memory.limit_in_bytes"
        try:
            limit = _number(self._root / name)
        except (OSError, ValueError):
            return None
        return limit if limit < _NO_LIMIT else None

    def cpu_limit(self) -> float | None:
        """Return how many CPUs the whole tree may use, None without a limit."""
        try:
            if self.unified:
                quota, period = (self._root / "cpu.max").read_text().split()
            else:
                quota, period = ((self._root / "cpu" / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
            return float(quota) / float(period) if float(quota) > 0 else None
        except (OSError, ValueError):
            return None


def _mount_roots(proc: Path) -> dict[str, str]:
    """Return controller ("" for version 2) -> which cgroup its mount shows as its top."""
    roots = {}
    for line in (proc / "self" / "mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ")[:3]
        root = fields.split(" ")[3]
        if kind == "cgroup2":
            roots[""] = root
        elif kind == "cgroup":
            for option in options.split(","):
                roots[option] = root
    return roots


def _number(path: Path) -> int:
    return int(path.read_text())


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {name: int(value) for name, value in pairs}


class Statistics:
    """Samples the node; keeps the last two, so that a rate has a window."""

    def __init__(self, data_dir: Path, cgroups: Cgroups | None = None) -> None:
        self._data_dir = data_dir
        self._cgroups = cgroups or Cgroups()
        self._samples: tuple[Sample, ...] = ()

    def sample(self, running: Iterable[Container]) -> Sample:
        """Take a sample and remember it."""
        sample = self.measure(running)
        self._samples = (*self._samples[-1:], sample)
        return sample

    def measure(self, running: Iterable[Container]) -> Sample:
        """Take a sample."""
        found = {each.id: self._cgroups.container(each.pid) for each in running if each.pid}
        containers = {key: usage for key, usage in found.items() if usage is not None}
        return Sample(time.time(), self._node(), containers)

    @property
    def window(self) -> tuple[Sample, Sample] | None:
        """The last two samples, older first."""
        return (self._samples[0], self._samples[1]) if len(self._samples) == 2 else None

    def _node(self) -> Usage:
        usage = self._cgroups.node()
        if usage is not None:
            return usage
        times, memory = psutil.cpu_times(), psutil.virtual_memory()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        used = memory.total - memory.available
        return Usage(busy, used, memory_bytes=memory.total - memory.free, rss_bytes=memory.used)

    def size(self, disk: Path) -> Size:
        """Return the node's size; limits on its cgroup count. disk: where the engine keeps its data."""
        cpus = float(len(os.sched_getaffinity(0)))
        limit = self._cgroups.cpu_limit()
        memory = psutil.virtual_memory().total
        memory_limit = self._cgroups.memory_limit_bytes()
        return Size(
            cpus=max(int(min(cpus, limit) if limit else cpus), 1),
            memory_bytes=min(memory, memory_limit) if memory_limit else memory,
            disk_bytes=psutil.disk_usage(str(_existing(disk))).total,
        )

    def pressure(self, size: Size) -> Pressure:
        """Return what is left now."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(_existing(self._data_dir)))
        available = min(memory.available, size.memory_bytes - self._node().working_set_bytes)
        threads = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        limit = int(Path("/proc/sys/kernel/pid_max").read_text())
        return Pressure(max(available, 0), disk.free, disk.total, threads, limit)


def _existing(path: Path) -> Path:
    """Return the path or its first ancestor that is there."""
    return path if path.exists() or path == path.parent else _existing(path.parent)


def cores_used(before: Usage | None, after: Usage, window_s: float) -> float:
    """Return the average number of CPUs used between two samples; 0.0 for one that was not there before."""
    if before is None or window_s <= 0:
        return 0.0
    return max(after.cpu_s - before.cpu_s, 0.0) / window_s
