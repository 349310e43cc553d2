"""Who manages which field: the trees of ``api.apply`` against flat sets of paths with the documented rules alone.

The twin keeps an object as path -> value, where a path is written as people write it, and a manager as a set of paths.
"""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api import apply as ssa
from api import codec, fieldsets
from api.errors import Conflict
from api.kinds.table import TABLE

REPLICA_SET = TABLE.kind("apps/v1", "ReplicaSet")
EMPTY = codec.to_document(REPLICA_SET.model())
NODE = object()  # the value of what has something below it

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"), max_size=3)
CONTAINERS = st.dictionaries(
    st.sampled_from("pq"),
    st.fixed_dictionaries(
        {},
        optional={
            "image": st.sampled_from("ij"),
            "args": st.lists(st.sampled_from("uv"), min_size=1, max_size=2),
            "env": st.dictionaries(st.sampled_from("EF"), st.sampled_from("12"), max_size=2),
        },
    ),
    max_size=2,
)
STATES = st.fixed_dictionaries(
    {"labels": LABELS, "containers": CONTAINERS, "finalizers": st.sets(st.sampled_from(["f/a", "f/b"]))},
    optional={"replicas": st.integers(0, 2)},
)
WRITES = st.lists(
    st.tuples(st.sampled_from(["update", "apply", "force"]), st.sampled_from("mn"), STATES), min_size=1, max_size=8
)


def flat(state: dict[str, Any]) -> dict[str, Any]:
    """Return path -> value of what a state says."""
    found: dict[str, Any] = {}
    if state["labels"]:
        found[".metadata.labels"] = NODE
    found |= {f".metadata.labels.{key}": value for key, value in state["labels"].items()}
    if state["finalizers"]:
        found[".metadata.finalizers"] = NODE
    found |= {f'.metadata.finalizers[="{each}"]': each for each in state["finalizers"]}
    if "replicas" in state:
        found[".spec.replicas"] = state["replicas"]
    for name, container in state["containers"].items():
        at = f'.spec.template.spec.containers[name="{name}"]'
        found |= {at: NODE, f"{at}.name": name}
        found |= {f"{at}.{field}": container[field] for field in ("image", "args") if field in container}
        if container.get("env"):
            found[f"{at}.env"] = NODE
        for key, value in container.get("env", {}).items():
            item = f'{at}.env[name="{key}"]'
            found |= {item: NODE, f"{item}.name": key, f"{item}.value": value}
    return found


def document(state: dict[str, Any]) -> dict[str, Any]:
    """Return the ReplicaSet that a state says."""
    made: dict[str, Any] = json.loads(json.dumps(EMPTY))
    made["metadata"] = {"name": "a"}
    if state["labels"]:
        made["metadata"]["labels"] = dict(state["labels"])
    if state["finalizers"]:
        made["metadata"]["finalizers"] = sorted(state["finalizers"])
    if "replicas" in state:
        made["spec"]["replicas"] = state["replicas"]
    made["spec"]["template"]["spec"]["containers"] = [
        {"name": name}
        | {field: each[field] for field in ("image", "args") if field in each}
        | ({"env": [{"name": key, "value": value} for key, value in each["env"].items()]} if each.get("env") else {})
        for name, each in state["containers"].items()
    ]
    return made


def intent(state: dict[str, Any]) -> dict[str, Any]:
    """Return the same as somebody applies it: without what he says nothing of."""
    whole = document(state)
    spec: dict[str, Any] = {"replicas": state["replicas"]} if "replicas" in state else {}
    if state["containers"]:
        spec["template"] = {"spec": {"containers": whole["spec"]["template"]["spec"]["containers"]}}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": whole["metadata"]} | (
        {"spec": spec} if spec else {}
    )


def paths_of(made: dict[str, Any]) -> dict[str, Any]:
    """Return the paths that a real document holds, without those that every ReplicaSet has."""
    difference = fieldsets.compare(EMPTY, made, fieldsets.root_shape(REPLICA_SET))
    owned = fieldsets.owned_part(difference.changed)
    found = {}
    for path in fieldsets.members(owned):
        value = fieldsets.value_at(made, path)
        has_more = any(other[: len(path)] == path and other != path for other in fieldsets.members(owned))
        found[fieldsets.readable(path)] = NODE if has_more else value
    return found


class Twin:
    """The rules, path by path."""

    def __init__(self) -> None:
        self.object: dict[str, Any] = {}
        self.managers: dict[tuple[str, str], set[str]] = {}

    def _others(self, who: tuple[str, str]) -> set[str]:
        return set().union(*(owned for name, owned in self.managers.items() if name != who))

    def _settle(self, after: dict[str, Any]) -> None:
        """Nobody keeps what has changed or has gone; nobody without fields is kept."""
        touched = {path for path in {*self.object, *after} if self.object.get(path) is not after.get(path)}
        touched = {path for path in touched if self.object.get(path) != after.get(path)}
        self.managers = {name: owned - touched for name, owned in self.managers.items()}
        self.object = after

    def update(self, manager: str, state: dict[str, Any]) -> None:
        after = flat(state)
        changed = {path for path, value in after.items() if path not in self.object or self.object[path] != value}
        self._settle(after)
        if changed:
            self.managers.setdefault((manager, "Update"), set()).update(changed)
        self.managers = {name: owned for name, owned in self.managers.items() if owned}

    def apply(self, manager: str, state: dict[str, Any], *, force: bool) -> None:
        who = (manager, "Apply")
        said = flat(state)
        # Of a list's or map's own node nobody who applies becomes the owner, only of what is in it.
        wanted = {path for path in said if not (said[path] is NODE and not path.endswith("]"))}
        others = self._others(who)
        former = self.managers.get(who, set())
        after = self.object | said
        for path in former - wanted - others:
            after = {other: value for other, value in after.items() if not below(other, path)}
        # A list or map that holds nothing any more is not written.
        empty = {
            path
            for path, value in after.items()
            if value is NODE and not path.endswith("]") and not any(below(each, path) for each in after if each != path)
        }
        after = {path: value for path, value in after.items() if path not in empty}
        changed = {path for path, value in after.items() if path not in self.object or self.object[path] != value}
        if not force and changed & others:
            raise Conflict("contested")
        self.managers.pop(who, None)
        self._settle(after)
        if wanted:
            self.managers[who] = wanted
        self.managers = {name: owned for name, owned in self.managers.items() if owned}


def below(path: str, parent: str) -> bool:
    return path == parent or path.startswith((f"{parent}.", f"{parent}["))


def labels(**values: str) -> dict[str, Any]:
    return {"labels": values, "containers": {}, "finalizers": set()}


@settings(max_examples=300, deadline=None)
@given(WRITES)
@example(  # who makes labels anew wants nothing of whoever made the first ones
    [
        ("update", "m", labels(a="x")),
        ("apply", "m", labels(a="x", b="x")),
        ("update", "m", labels(b="x")),
        ("apply", "m", labels()),
        ("apply", "m", labels(a="x")),
    ]
)
def test_managers_own_what_the_rules_say(writes: list[tuple[str, str, dict[str, Any]]]) -> None:
    twin, live = Twin(), json.loads(json.dumps(EMPTY | {"metadata": {"name": "a"}}))
    for number, (how, manager, state) in enumerate(writes):
        now = f"2026-01-01T00:00:{number:02}Z"
        if how == "update":
            twin.update(manager, state)
            made = document(state)
            entries = ssa.track_update(REPLICA_SET, live, made, entries=ssa.entries_of(live), manager=manager, now=now)
            live = made | {"metadata": made["metadata"] | {"managedFields": entries}}
        else:
            force = how == "force"
            try:
                twin.apply(manager, state, force=force)
            except Conflict:
                with pytest.raises(Conflict):
                    ssa.apply(REPLICA_SET, live, intent(state), manager=manager, now=now, force=force)
                continue
            live = ssa.apply(REPLICA_SET, live, intent(state), manager=manager, now=now, force=force)
            # As the server goes on: an object always has what every object of its kind has.
            live = codec.to_document(codec.decode(REPLICA_SET, live))
        assert paths_of(live) == twin.object
        owned = {
            (entry["manager"], entry["operation"]): {
                path
                for each in fieldsets.members(entry["fieldsV1"])
                # Who owned a list that has become empty, and is not written, still has it on his account.
                if (path := fieldsets.readable(each)) in twin.object
                or not path.endswith((".env", "labels", "finalizers"))
            }
            for entry in ssa.entries_of(live)
        }
        assert {who: paths for who, paths in owned.items() if paths} == twin.managers
