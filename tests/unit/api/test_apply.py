"""Server-side apply, case by case as the documentation tells it."""

import json

import pytest

from api import apply as ssa
from api import codec, fieldsets
from api.errors import BadRequest, Conflict, Invalid
from api.kinds.table import TABLE

DEPLOYMENT = TABLE.kind("apps/v1", "Deployment")
CONFIG_MAP = TABLE.kind("v1", "ConfigMap")
NOW = "2026-01-01T00:00:00Z"


def _config(**data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def _deployment(replicas=None, **containers):
    template = {"spec": {"containers": [{"name": name, "image": image} for name, image in containers.items()]}}
    spec = {"template": template} | ({"replicas": replicas} if replicas is not None else {})
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


def _apply(kind, live, intent, manager, **more):
    return ssa.apply(kind, live, intent, manager=manager, now=NOW, **more)


def _update(kind, live, changed, manager, **more):
    """Return ``changed`` with the account of an update by ``manager``."""
    before = live or codec.to_document(kind.model())
    entries = ssa.track_update(
        kind, before, changed, entries=ssa.entries_of(live or {}), manager=manager, now=more.pop("now", NOW), **more
    )
    return changed | {"metadata": changed["metadata"] | {"managedFields": entries}}


def _owners(document):
    return {
        entry["manager"]: list(fieldsets.members(entry["fieldsV1"])) for entry in document["metadata"]["managedFields"]
    }


def test_the_first_apply_creates_and_owns_what_it_lists():
    made = _apply(CONFIG_MAP, None, _config(x="1"), "me")
    assert made["data"] == {"x": "1"}
    assert _owners(made) == {"me": [("f:data", "f:x")]}


def test_what_is_listed_no_more_goes_unless_somebody_else_owns_it():
    live = _apply(CONFIG_MAP, None, _config(x="1", y="2"), "me")
    live = _apply(CONFIG_MAP, live, _config(y="2"), "you")
    live = _apply(CONFIG_MAP, live, _config(), "me")
    assert live["data"] == {"y": "2"}
    assert _owners(live) == {"you": [("f:data", "f:y")], "me": [("f:data",)]}


def test_another_managers_value_is_a_conflict_and_force_takes_it_over():
    live = _apply(DEPLOYMENT, None, _deployment(replicas=1, a="i:1"), "me")
    with pytest.raises(Conflict) as refusal:
        _apply(DEPLOYMENT, live, _deployment(replicas=2, a="i:2"), "you")
    fields = {cause.field for cause in refusal.value.causes}
    assert fields == {".spec.replicas", '.spec.template.spec.containers[name="a"].image'}
    assert {cause.reason for cause in refusal.value.causes} == {"FieldManagerConflict"}
    taken = _apply(DEPLOYMENT, live, _deployment(replicas=2, a="i:2"), "you", force=True)
    assert taken["spec"]["replicas"] == 2
    assert ("f:spec", "f:replicas") not in _owners(taken)["me"]


def test_the_same_value_is_shared_without_conflict():
    live = _apply(CONFIG_MAP, None, _config(x="1"), "me")
    live = _apply(CONFIG_MAP, live, _config(x="1"), "you")
    assert _owners(live) == {"me": [("f:data", "f:x")], "you": [("f:data", "f:x")]}


def test_keyed_lists_merge_item_by_item():
    live = _apply(DEPLOYMENT, None, _deployment(a="i:1"), "me")
    live = _apply(DEPLOYMENT, live, _deployment(b="j:1"), "you")
    images = {each["name"]: each["image"] for each in live["spec"]["template"]["spec"]["containers"]}
    assert images == {"a": "i:1", "b": "j:1"}
    live = _apply(DEPLOYMENT, live, _deployment(c="k:1"), "me")
    names = [each["name"] for each in live["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["b", "c"]


def test_an_update_takes_over_what_it_changes():
    live = _apply(DEPLOYMENT, None, _deployment(replicas=1, a="i:1"), "me")
    scaled = json.loads(json.dumps(live))
    scaled["spec"]["replicas"] = 5
    scaled = _update(DEPLOYMENT, live, scaled, "hpa")
    assert _owners(scaled)["hpa"] == [("f:spec", "f:replicas")]
    with pytest.raises(Conflict, match=r'conflict with "hpa" using apps/v1: \.spec\.replicas'):
        _apply(DEPLOYMENT, scaled, _deployment(replicas=1, a="i:1"), "me")
    released = _apply(DEPLOYMENT, scaled, _deployment(a="i:1"), "me")
    assert released["spec"]["replicas"] == 5


def test_applying_the_same_again_changes_nothing():
    live = _apply(DEPLOYMENT, None, _deployment(replicas=1, a="i:1"), "me")
    again = ssa.apply(DEPLOYMENT, live, _deployment(replicas=1, a="i:1"), manager="me", now="later")
    assert again == live


def test_what_an_apply_must_not_do():
    with pytest.raises(Invalid, match="fieldManager: Required value"):
        _apply(CONFIG_MAP, None, _config(), "")
    with pytest.raises(BadRequest, match="managedFields must be nil"):
        _apply(CONFIG_MAP, None, {"metadata": {"managedFields": [{"manager": "x"}]}}, "me")


def test_an_update_owns_the_nodes_that_it_made():
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "labels": {"app": "a"}},
        "spec": {
            "replicas": 1,
            "strategy": {"rollingUpdate": {"maxSurge": 1}},
            "template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}},
        },
    }
    (entry,) = _update(DEPLOYMENT, None, made, "kubectl-create")["metadata"]["managedFields"]
    port = {".": {}, "f:containerPort": {}, "f:protocol": {}}
    container = {".": {}, "f:name": {}, "f:ports": {".": {}, 'k:{"containerPort":80,"protocol":"TCP"}': port}}
    assert entry["fieldsV1"] == {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:strategy": {".": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': container}}},
        },
    }


def test_what_an_update_removes_belongs_to_nobody():
    live = _update(CONFIG_MAP, None, _config(x="1", y="1"), "one")
    live = _update(CONFIG_MAP, live, _config(y="2") | {"metadata": live["metadata"]}, "two", now="later")
    assert _owners(live) == {"one": [("f:data",)], "two": [("f:data", "f:y")]}


def test_an_update_that_changes_nothing_leaves_the_account_alone():
    live = _update(CONFIG_MAP, None, _config(x="1"), "one")
    assert _update(CONFIG_MAP, live, _config(x="1"), "two", now="later") == live


def test_several_conflicts_are_told_manager_by_manager():
    live = _apply(CONFIG_MAP, None, _config(x="1"), "b")
    live = _update(CONFIG_MAP, live, live | {"data": {"x": "1", "y": "1", "z": "1"}}, "a")
    with pytest.raises(Conflict) as refusal:
        _apply(CONFIG_MAP, live, _config(x="2", y="2", z="2"), "c")
    assert refusal.value.message == (
        'Apply failed with 3 conflicts: conflicts with "a" using v1:\n- .data.y\n- .data.z\nconflicts with "b":\n- .data.x'
    )


def test_old_updaters_are_folded_together():
    live = None
    for number in range(13):
        data = {f"k{each}": "1" for each in range(number + 1)}
        live = _update(CONFIG_MAP, live, _config(**data), f"m{number:02}", now=f"2026-01-01T00:00:{number:02}Z")
    managers = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert managers == ["ancient-changes", *(f"m{number:02}" for number in range(4, 13))]
    assert ("f:data", "f:k0") in _owners(live)["ancient-changes"]


def test_what_kubectl_applied_on_the_client_is_no_conflict_to_it_on_the_server():
    applied = _config(x="1")
    annotated = {"metadata": {"name": "a", "annotations": {ssa.LAST_APPLIED: json.dumps(applied)}}}
    live = _update(CONFIG_MAP, None, applied | annotated, "kubectl-client-side-apply")
    assert _apply(CONFIG_MAP, live, _config(x="2"), "kubectl")["data"] == {"x": "2"}
    with pytest.raises(Conflict):
        _apply(CONFIG_MAP, live, _config(x="2"), "me")


def test_defaults_under_an_abandoned_item_go_with_it():
    live = _apply(DEPLOYMENT, None, _deployment(a="i:1", b="j:1"), "me")
    for container in live["spec"]["template"]["spec"]["containers"]:
        container["imagePullPolicy"] = "Always"
    live = _apply(DEPLOYMENT, live, _deployment(a="i:1"), "me")
    assert [each["name"] for each in live["spec"]["template"]["spec"]["containers"]] == ["a"]
