"""Read from the Go sources of kubernetes/api how lists, maps and structs merge, and write it down for the tests.

Facts are struct tags (``patchStrategy``, ``patchMergeKey``) and comments (``+listType=map``). Lists without any are
taken as a whole and not written down. ``tests/unit/api/test_merge_keys.py`` holds ``api.merge_keys`` against the file.

Run: ``python tools/read_merge_facts.py DIRECTORY``, which has a checkout of kubernetes/api and, as ``meta/v1``,
kubernetes/apimachinery's ``pkg/apis/meta/v1``.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PATH = Path(__file__).resolve().parent.parent / "tests" / "data" / "merge_facts.json"
_STRUCT = re.compile(r"type (\w+) struct\s*\{")
_FIELD = re.compile(r'`.*?json:"([^",]+).*?`')
_TAGS = re.compile(r'(patchStrategy|patchMergeKey):"([^"]*)"')
_MARKER = re.compile(r"//\s*\+(patchStrategy|patchMergeKey|listType|listMapKey|mapType|structType)=(\S+)")
_PLAIN = {"listType": ["atomic"]}
Facts = dict[str, list[str]]


def facts_of(source: str) -> Iterator[tuple[str, Facts]]:
    """Yield ``Struct`` or ``Struct.field`` and its facts, of everything that has any."""
    struct, facts = "", Facts()
    for line in map(str.strip, source.splitlines()):
        if found := _MARKER.match(line):
            facts.setdefault(found[1], [])
            if found[2] not in facts[found[1]]:
                facts[found[1]].append(found[2])
        elif line.startswith("//"):
            continue
        elif found := _STRUCT.match(line):
            struct = found[1]
            yield struct, facts
            facts = {}
        elif struct and (found := _FIELD.search(line)):
            yield f"{struct}.{found[1]}", facts | {name: [value] for name, value in _TAGS.findall(line)}
            facts = {}
        elif line == "}":
            struct, facts = "", {}
        elif not struct and not line:
            facts = {}


def main(directory: Path) -> None:
    """Write the facts of every version 1 and 2 below ``directory``."""
    found = {}
    for file in sorted(directory.glob("*/v[12]/types.go")):
        package = f"{file.parent.parent.name}.{file.parent.name}"
        for name, facts in facts_of(file.read_text()):
            if facts and facts != _PLAIN:
                found[f"{package}.{name}"] = dict(sorted(facts.items()))
    PATH.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
