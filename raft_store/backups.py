"""Backups on schedule: the whole state as a file beside the data, every so often, the newest few kept.

Every member makes its own, at another time than the others: any one of them is enough to begin a new cluster, and
whoever loses two machines has the third one's. A backup that fails is told and tried again the next time; unlike the
log's, its disk owes nothing to anybody.

A file is named after the time and the revision: ``20261126T154500Z-r000000012345.snapshot``. It takes its name once it
is whole and synced, and is what ``snapshot save`` gives.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

PART = ".part"
_NAME = re.compile(r"(\d{8}T\d{6}Z)-r(\d{12,})\.snapshot")
_TIME = "%Y%m%dT%H%M%SZ"


class BackupPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[backup]``: where, how often, and how many are kept."""

    dir: Path
    every_s: float = 3600.0
    keep: int = 24


def name_of(*, at_s: float, revision: int) -> str:
    """Return the name of a backup that was begun at ``at_s`` (Unix time)."""
    return f"{datetime.fromtimestamp(at_s, UTC).strftime(_TIME)}-r{revision:012}.snapshot"


def made_at(name: str) -> float | None:
    """Return when the backup called ``name`` was begun, in Unix time; None if it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return datetime.strptime(match[1], _TIME).replace(tzinfo=UTC).timestamp()


def pick_surplus(names: Sequence[str], *, keep: int) -> list[str]:
    """Return the backups that are more than ``keep``, oldest first; other files are nobody's business."""
    backups = sorted(name for name in names if made_at(name) is not None)
    return backups[: max(0, len(backups) - keep)]


def due_in_s(names: Sequence[str], *, now_s: float, every_s: float, share: float) -> float:
    """Return how long to wait for the next backup.

    share: from 0 up to 1, another one for each member: their first backups lie so far apart, and later ones with them.
    """
    times = [at_s for name in names if (at_s := made_at(name)) is not None and at_s <= now_s]
    if not times:
        return every_s * share
    return max(0.0, max(times) + every_s - now_s)


async def keep_backups(
    plan: BackupPlan,
    *,
    state: Callable[[], AsyncGenerator[bytes, None]],
    revision: Callable[[], int],
    share: float,
    now: Callable[[], float] = time.time,
) -> None:
    """Make backups until cancelled. state: yields a saved snapshot's bytes; see ``due_in_s`` for share."""
    while True:
        names = await asyncio.to_thread(_names, plan.dir)
        await asyncio.sleep(due_in_s(names, now_s=now(), every_s=plan.every_s, share=share))
        try:
            path = await make_backup(plan, state=state(), name=name_of(at_s=now(), revision=revision()))
            size = (await asyncio.to_thread(path.stat)).st_size
            log.info("made a backup file=%s bytes=%d", path, size)
        except OSError as exc:
            log.warning("no backup this time dir=%s reason=%s", plan.dir, exc)
            await asyncio.sleep(plan.every_s)


async def make_backup(plan: BackupPlan, *, state: AsyncGenerator[bytes, None], name: str) -> Path:
    """Write one backup and remove those that are too many; raises OSError, and then leaves nothing half-made."""
    path = plan.dir / name
    growing = plan.dir / (name + PART)
    await asyncio.to_thread(plan.dir.mkdir, parents=True, exist_ok=True, mode=0o700)
    descriptor = await asyncio.to_thread(os.open, growing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        async with aclosing(state) as portions:
            async for portion in portions:
                await asyncio.to_thread(_write, descriptor, portion)
        await asyncio.to_thread(os.fsync, descriptor)
        await asyncio.to_thread(growing.rename, path)
    except BaseException:
        growing.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    await asyncio.to_thread(_tidy, plan)
    return path


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _tidy(plan: BackupPlan) -> None:
    names = _names(plan.dir)
    # Half-made ones are of an earlier life.
    half_made = [name for name in names if name.endswith(PART) and made_at(name.removesuffix(PART)) is not None]
    for name in (*pick_surplus(names, keep=plan.keep), *half_made):
        (plan.dir / name).unlink(missing_ok=True)
    directory = os.open(plan.dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
