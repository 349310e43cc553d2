"""Every master's own knowledge of the custom kinds: definitions in its watch cache become rows of its table.

Rows change in the very step in which the cache takes in a definition's change. The cache sees all that happens in the
store in one order, so a master that knows an object of a custom kind has known the kind before; and whoever was told by
another master that a kind is established needs to wait only until this one's cache has caught up.
"""

import logging

import msgspec

from api.custom.definitions import PLACE, Rows, is_established, rows_of
from api.custom.objects import CustomObject, make_model
from api.kinds.extensions import CustomResourceDefinition
from api.kinds.table import Table
from master.cache import WatchCache
from master.objects import StoredObject

log = logging.getLogger(__name__)


class _Known(msgspec.Struct, frozen=True):
    """A definition that is served."""

    mark: bytes  # all of the definition that its rows follow from
    model: type[CustomObject]  # stays the same while the definition lives: caches are keyed by it
    uid: str
    rows: Rows


class CustomKinds:
    """Adds and removes rows as definitions come, change and go."""

    def __init__(self, table: Table, cache: WatchCache) -> None:
        self._table = table
        self._cache = cache
        self._known: dict[str, _Known] = {}
        cache.listen(PLACE, self._take)

    def _take(self, name: str, stored: StoredObject | None) -> None:
        """Follow one definition; ``stored`` is None when it is gone."""
        if stored is None:
            self._drop(name)
            return
        definition = stored.obj
        assert isinstance(definition, CustomResourceDefinition), stored
        known = self._known.get(name)
        mark = _mark(definition)
        if known is not None and known.mark == mark:
            return
        if known is not None and known.uid != definition.metadata.uid:
            self._drop(name)
            known = None
        try:
            model = known.model if known is not None else make_model(definition.spec.names.kind)
            rows = rows_of(definition, model)
        except (ValueError, TypeError, AttributeError) as error:
            # Put by hand through the store's own API: no master's validation let it pass.
            log.warning("definition cannot be served name=%s error=%s", name, error)
            return
        if rows is not None:
            self._serve(name, _Known(mark, model, definition.metadata.uid, rows))

    def _serve(self, name: str, new: _Known) -> None:
        old = self._known.pop(name, None)
        if old is not None:
            self._remove(old.rows)
        self._cache.serve_custom(new.rows.owner)
        added = []
        for row in new.rows.served:
            try:
                self._table.add(row)
                added.append(row)
            except ValueError as error:
                log.warning("custom kind cannot be served name=%s error=%s", name, error)
        self._table.know(new.rows.owner)
        rows = msgspec.structs.replace(new.rows, served=tuple(added))
        self._known[name] = msgspec.structs.replace(new, rows=rows)
        if old is None:
            log.info("custom kind served name=%s versions=%s", name, ",".join(row.version for row in added))

    def _remove(self, rows: Rows) -> None:
        for row in rows.served:
            self._table.remove(row)
        self._table.unknow(rows.owner)

    def _drop(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is None:
            return
        self._remove(known.rows)
        self._cache.forget(known.rows.owner)
        log.info("custom kind gone name=%s", name)


def _mark(definition: CustomResourceDefinition) -> bytes:
    """Return everything of a definition that its rows follow from: a heartbeat in its status changes none of it."""
    meta, status = definition.metadata, definition.status
    terminating = bool(meta.deletion_timestamp)
    return msgspec.json.encode(
        (meta.uid, definition.spec, status.accepted_names, is_established(definition), terminating)
    )
