"""Bodies in YAML, read as what JSON could say and written from it. Imported with the first one."""

from typing import Any

import msgspec
import yaml

from api.errors import BadRequest
from master.rest.http import MAX_DEPTH, too_deep

_Parser = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader


class _PlainLoader(_Parser):  # type: ignore[misc,valid-type]  # one of two classes
    """YAML as JSON knows it: dates stay text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _check_events(body: bytes, duplicates: list[str] | None) -> None:
    """Note repeated keys, and refuse what must not be composed.

    The C composer recurses without a limit and crashes on deep nesting, and a few lines of aliases expand to gigabytes.
    The parser beneath it does not recurse.
    """
    depth = 0
    keys = _Keys(duplicates)
    for event in yaml.parse(body, _PlainLoader):
        keys.see(event)
        if isinstance(event, yaml.AliasEvent):
            raise BadRequest("error converting YAML to JSON: aliases are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise too_deep()
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Keys:
    """Follows the events of a document and notes the keys that stand in their map already."""

    def __init__(self, duplicates: list[str] | None) -> None:
        self._duplicates = duplicates
        self._open: list[tuple[set[str] | None, bool]] = []  # (keys so far, or None for a list; a key comes next)

    def see(self, event: yaml.Event) -> None:
        """Take the next event."""
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent):
            self._node(event)
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append((set() if isinstance(event, yaml.MappingStartEvent) else None, True))

    def _node(self, event: yaml.CollectionStartEvent | yaml.ScalarEvent) -> None:
        if not self._open:
            return
        keys, is_key = self._open[-1]
        if keys is None:
            return
        if is_key and isinstance(event, yaml.ScalarEvent):
            if event.value in keys and self._duplicates is not None:
                line = event.start_mark.line + 1 if event.start_mark is not None else 0
                self._duplicates.append(f'line {line}: key "{event.value}" already set in map')
            keys.add(event.value)
        self._open[-1] = (keys, not is_key)


def parse(body: bytes, duplicates: list[str] | None = None) -> Any:
    """Return the value; ``duplicates`` receives a text for every repeated key. Raises BadRequest."""
    try:
        _check_events(body, duplicates)
        value = yaml.load(body, _PlainLoader)  # noqa: S506 - a safe loader, only plainer
        # Through JSON: what JSON cannot say (sets, bytes, non-text keys) is refused here and not deep in the registry.
        return msgspec.json.decode(msgspec.json.encode(value))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise BadRequest(f"error converting YAML to JSON: {' '.join(str(error).split())}") from None


_Dumper = yaml.CSafeDumper if hasattr(yaml, "CSafeDumper") else yaml.SafeDumper


def dump(data: bytes) -> bytes:
    """Return a document, given in JSON."""
    document = msgspec.json.decode(data)
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return bytes(text, "utf-8")
