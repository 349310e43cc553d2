"""A snapshot outside of a member: what ``snapshot save`` and backups give.

It is a snapshot file (``disk.snapshot``), filled up with zeros to whole pages, and the SHA-256 of all that: clients of
etcd accept a snapshot only if its size is a multiple of 512 bytes and the 32 of a SHA-256. What lies within is ours,
not a bbolt file: only our own tools restore it.
"""

import hashlib
from collections.abc import Iterator

from raft_store.disk.directory import Source
from raft_store.disk.snapshot import READ_BYTES, FrameReader, NotASnapshot, SnapshotHead

PAGE_BYTES = 512
DIGEST_BYTES = hashlib.sha256().digest_size


class Seal:
    """Sees a snapshot file's bytes pass, and makes what has to follow them."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> bytes:
        """Take the next bytes of the file, and return them."""
        self._digest.update(data)
        self.size_bytes += len(data)
        return data

    def end(self) -> bytes:
        """Return the zeros and the checksum."""
        padding = self.add(bytes(-self.size_bytes % PAGE_BYTES))
        return padding + self._digest.digest()


class SavedSnapshot:
    """Reads a saved snapshot; every byte is checked before the last chunk is given."""

    def __init__(self, source: Source, name: str) -> None:
        """name: for messages. The source is closed when all is read, or when something is wrong."""
        self.head: SnapshotHead | None = None  # known before the first chunk is given
        self._source = source
        self._name = name

    def chunks(self) -> Iterator[bytes]:
        """Yield the machine's chunks; raises NotASnapshot, DiskError."""
        reader, digest, held = FrameReader(self._name), hashlib.sha256(), b""
        size = 0
        try:
            while data := self._source.read(READ_BYTES):
                size += len(data)
                held += data
                # The last bytes may be the checksum, which is not part of what it is over.
                data, held = held[:-DIGEST_BYTES], held[-DIGEST_BYTES:]
                digest.update(data)
                for chunk in reader.feed(data):
                    self.head = reader.head
                    yield chunk
        finally:
            self._source.close()
        self.head = reader.check_ended()
        if size % PAGE_BYTES != DIGEST_BYTES or digest.digest() != held or reader.rest.strip(b"\0"):
            raise NotASnapshot(
                f"{self._name}: the checksum at its end, byte {size - DIGEST_BYTES}, is not of this file"
            )
