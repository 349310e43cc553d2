"""Pods from files: each manifest in a directory is a pod of this node, whatever the masters say or know.

The UID is made from the file's content and the node's name, so a restarted agent finds the same pod, and a changed
file is another one.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import UUID

import msgspec
import yaml

from api.codec import decode, to_document
from api.errors import ApiError, Fault
from api.kinds.pods import Pod
from api.kinds.table import TABLE
from node_agent.pods.api_pods import HASH, SOURCE

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_SUFFIXES = (".yaml", ".yml", ".json")
_SIZE_LIMIT = 1 << 20


def read_manifest(text: bytes, node: str) -> Pod:
    """Return the pod that a manifest describes, bound to ``node``; raises ValueError with the reason."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(f"no YAML: {exc}") from exc
    if not isinstance(document, dict) or document.get("kind") != "Pod":
        raise ValueError("a static pod's manifest holds one object of kind Pod")
    try:
        pod = decode(TABLE.of(Pod), document)
    except ApiError as exc:
        raise ValueError(exc.message) from exc
    assert isinstance(pod, Pod), pod
    if not pod.metadata.name or not pod.spec.containers:
        raise ValueError("metadata.name and spec.containers are required")
    if faults := _faults(pod):
        raise ValueError("; ".join(f"{each.field}: {each.message}" for each in faults))
    digest = hashlib.sha256(node.encode() + b"\0" + text).digest()
    meta = msgspec.structs.replace(
        pod.metadata,
        name=f"{pod.metadata.name}-{node}",
        namespace=pod.metadata.namespace or "default",
        uid=str(UUID(bytes=digest[:16], version=5)),
        annotations=pod.metadata.annotations | {HASH: digest.hex()[:32], SOURCE: "file"},
    )
    spec = msgspec.structs.replace(pod.spec, node_name=node)
    return msgspec.structs.replace(pod, metadata=meta, spec=spec)


def _faults(pod: Pod) -> list[Fault]:
    """Return why the masters would refuse the pod; what it leaves open is theirs to fill."""
    from api.defaults import completed  # noqa: PLC0415 - most nodes have no such pod
    from api.validation.pods import new_pod_faults, pod_faults  # noqa: PLC0415 - neither

    kind = TABLE.of(Pod)
    whole = decode(kind, completed(kind, to_document(pod)))
    assert isinstance(whole, Pod), whole
    return [*pod_faults(whole), *new_pod_faults(whole)]


def read_manifests(directory: Path, node: str) -> list[Pod]:
    """Return the pods of all readable manifests; the others are named in the log. Blocks."""
    pods = []
    for path in _manifests(directory):
        try:
            pods.append(read_manifest(path.read_bytes()[:_SIZE_LIMIT], node))
        except (OSError, ValueError) as exc:
            log.warning("static pod left out file=%s error=%s", path, exc)
    return pods


def _manifests(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return sorted(p for p in directory.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith("."))


def _stamps(directory: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in _manifests(directory):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size))
    return found


async def follow_manifests(directory: Path, node: str, receive: Callable[[Iterable[Pod]], None]) -> None:
    """Hand ``receive`` all static pods whenever a file changed, until cancelled."""
    seen: list[tuple[str, int, int]] | None = None
    while True:
        stamps = await asyncio.to_thread(_stamps, directory)
        if stamps != seen:
            seen = stamps
            receive(await asyncio.to_thread(read_manifests, directory, node))
        # The kernel's notifications are not in the standard library; one directory's listing is cheap.
        await asyncio.sleep(_LOOK_S)
