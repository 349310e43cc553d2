"""What a watch is asked for, and what its listener is told."""

from collections.abc import Sequence

import msgspec

from .model import Event, Revision

NO_WATCH = -1


class WatchSpec(msgspec.Struct, frozen=True):
    """What a watcher wants to hear; ``start_revision`` 0 means from now on."""

    key: bytes
    end: bytes = b""
    start_revision: Revision = Revision(0)
    puts: bool = True
    deletes: bool = True
    progress_notify: bool = False


class Created(msgspec.Struct, frozen=True):
    """The watch stands; changes after ``revision``, or from its start, follow."""

    watch_id: int
    revision: Revision


class Canceled(msgspec.Struct, frozen=True):
    """The watch has ended: by its listener, or because its history is compacted (``compact_revision``)."""

    watch_id: int
    revision: Revision
    reason: str = ""
    compact_revision: Revision = Revision(0)
    refused: bool = False  # it never stood


class Changes(msgspec.Struct, frozen=True):
    """Whole revisions, oldest first."""

    watch_id: int
    revision: Revision
    events: Sequence[Event]


class Progress(msgspec.Struct, frozen=True):
    """The watch, or the whole stream (NO_WATCH), has heard of every change up to ``revision``."""

    watch_id: int
    revision: Revision


Notice = Created | Canceled | Changes | Progress
