"""How lists, maps and structs merge, against what the real types say of themselves (``tools/read_merge_facts.py``)."""

import json
from pathlib import Path
from typing import Any

import pytest

from api import schema
from api.kinds.table import ROWS
from api.merge_keys import ATOMIC_MAPS, ATOMIC_STRUCTS, GRANULAR, RETAIN_KEYS, ListRule, list_rule
from api.shapes import ListOf, MapOf, StructOf, fields_of
from api.struct import ApiStruct
from tests.unit.api.test_schema import STRUCTS

FACTS: dict[str, dict[str, list[str]]] = json.loads(
    (Path(__file__).parents[2] / "data" / "merge_facts.json").read_text()
)
# Packages whose sources the file was made from.
READ = {".".join(name.split(".")[:2]) for name in FACTS}


def name_of(struct: type[ApiStruct]) -> str:
    """Return ``core.v1.PodSpec``."""
    return ".".join(schema.definition_name(struct).split(".")[-3:])


# Structs whose fields lie flat in another one.
FLAT = {"core.v1.EphemeralContainer": "core.v1.EphemeralContainerCommon"}
KNOWN = [struct for struct in STRUCTS if name_of(struct).rpartition(".")[0] in READ]


def rule_of(facts: dict[str, list[str]]) -> ListRule | None:
    """Return the rule that the facts of a list make; None for a list that is taken as a whole."""
    strategy = facts.get("patchStrategy", [""])[0].split(",")
    merge, key = "merge" in strategy, facts.get("patchMergeKey", [""])[0]
    kind, keys = facts.get("listType", [""])[0], tuple(facts.get("listMapKey", ()))
    if not kind and merge:  # what only strategic merge was told, server-side apply makes the best of
        kind, keys = ("map", (key,)) if key else ("set", ())
    rule = ListRule(
        key if merge else "",
        merge=merge,
        map_keys=keys if kind == "map" else (),
        set_=kind == "set",
        retain_keys="retainKeys" in strategy,
    )
    return None if rule == ListRule(merge=False) else rule


@pytest.mark.parametrize("struct", KNOWN, ids=name_of)
def test_structs_merge_as_the_real_ones_do(struct: type[ApiStruct]) -> None:
    name = name_of(struct)
    assert (struct.__name__ in ATOMIC_STRUCTS) == ("structType" in FACTS.get(name, {}))
    for field in fields_of(struct).values():
        facts = FACTS.get(f"{FLAT.get(name, name)}.{field.name}", {})
        place = (struct.__name__, field.attribute)
        match field.shape:
            case ListOf():
                rule = list_rule(*place)
                bare = None if rule is None else rule._replace(key_defaults=())
                assert (None if bare == ListRule(merge=False) else bare) == rule_of(facts), field
            case MapOf():
                assert (place in ATOMIC_MAPS) == (facts.get("mapType") == ["atomic"]), field
            case StructOf():
                assert (place in GRANULAR) == (facts.get("structType") == ["granular"]), field
                assert (place in RETAIN_KEYS) == ("retainKeys" in facts.get("patchStrategy", [""])[0]), field


def published(name: str, *way: str) -> Any:
    found: Any = schema.definitions(ROWS, version=2)[name]
    for step in way:
        found = found[step]
    return found


def test_all_of_it_is_published() -> None:
    core = "io.k8s.api.core.v1."
    assert published(f"{core}ObjectReference", "x-kubernetes-map-type") == "atomic"
    assert published(f"{core}ServiceSpec", "properties", "selector", "x-kubernetes-map-type") == "atomic"
    assert published(f"{core}PersistentVolumeSpec", "properties", "claimRef", "x-kubernetes-map-type") == "granular"
    addresses = published("io.k8s.api.discovery.v1.Endpoint", "properties", "addresses")
    assert addresses["x-kubernetes-list-type"] == "set"
    host_ips = published(f"{core}PodStatus", "properties", "hostIPs")
    assert (host_ips["x-kubernetes-list-type"], host_ips["x-kubernetes-patch-merge-key"]) == ("atomic", "ip")
