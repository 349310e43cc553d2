"""A disk that forgets what was not synced, tears what was being written, and rots."""

import io
from random import Random

from raft_store.disk.directory import DiskError, File, Source
from raft_store.disk.snapshot import SUFFIX as SNAPSHOT_SUFFIX
from raft_store.disk.wal import SUFFIX as LOG_SUFFIX

SECTOR_BYTES = 64  # a real one has 512; small ones tear small records


class SimulatedFile:
    """A file whose tail is in the cache until it is synced."""

    descriptor = None

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.durable_bytes = len(content)

    def append(self, data: bytes) -> None:
        """See ``File``."""
        self.content += data

    def sync(self) -> None:
        """See ``File``."""
        self.durable_bytes = len(self.content)

    def close(self) -> None:
        """See ``File``."""

    def crash(self, random: Random) -> None:
        """Lose a random part of what was not synced: sectors reach the disk in any order."""
        start = self.durable_bytes
        while start < len(self.content):
            end = min(start - start % SECTOR_BYTES + SECTOR_BYTES, len(self.content))
            if random.random() < 0.5:
                self.content[start:end] = bytes(end - start)
            start = end
        if random.random() < 0.5:
            del self.content[random.randint(self.durable_bytes, len(self.content)) :]


class SimulatedDirectory:
    """A ``Directory`` in memory; names are durable at once, removals once a later name is."""

    sector_bytes = SECTOR_BYTES

    def __init__(self) -> None:
        self.files: dict[str, SimulatedFile] = {}
        self.rotten: tuple[str, int] | None = None  # (file, byte) that changed although it was synced
        self._removed: list[tuple[str, SimulatedFile]] = []

    def names(self) -> list[str]:
        """See ``Directory``."""
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        """See ``Directory``."""
        if name not in self.files:
            raise DiskError(f"cannot read {name}: no such file")
        return bytes(self.files[name].content)

    def open(self, name: str) -> Source:
        """See ``Directory``."""
        return io.BytesIO(self.read(name))

    def create(self, name: str, *, expected_bytes: int) -> File:
        """See ``Directory``."""
        del expected_bytes
        self._removed.clear()
        self.files[name] = SimulatedFile()
        return self.files[name]

    def reopen(self, name: str, *, size: int, expected_bytes: int) -> File:
        """See ``Directory``."""
        del expected_bytes
        self.files[name] = SimulatedFile(self.read(name)[:size])
        return self.files[name]

    def replace(self, name: str, data: bytes) -> None:
        """See ``Directory``."""
        self._removed.clear()
        self.files[name] = SimulatedFile(data)

    def rename(self, old: str, new: str) -> None:
        """See ``Directory``."""
        self._removed.clear()
        self.files[new] = self.files.pop(old)

    def remove(self, name: str) -> None:
        """See ``Directory``."""
        self._removed.append((name, self.files.pop(name)))

    def crash(self, random: Random) -> None:
        """Lose what was not synced: bytes, and the latest removals."""
        for name, file in self._removed[random.randint(0, len(self._removed)) :]:
            self.files.setdefault(name, file)
        self._removed.clear()
        for file in self.files.values():
            file.crash(random)

    def rot(self, random: Random) -> bool:
        """Flip one bit of what a crash cannot have touched; return False if there is nothing of the kind."""
        logs = [name for name in self.names() if name.endswith(LOG_SUFFIX)]
        snapshots = [name for name in self.names() if name.endswith(SNAPSHOT_SUFFIX)]
        ends = {name: self.files[name].durable_bytes for name in (*logs, *snapshots[-1:])}
        places = [(name, end) for name, end in ends.items() if end]
        if not places:
            return False
        name, end = places[random.randrange(len(places))]
        byte = random.randrange(end)
        self.files[name].content[byte] ^= 1 << random.randrange(8)
        self.rotten = (name, byte)
        return True
