"""Server-side apply, case by case as the documentation tells it."""

import json

import pytest

from api import apply as ssa
from api.errors import BadRequest, Conflict
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


def _owners(document):
    return {entry["manager"]: sorted(ssa.leaves(entry["fieldsV1"])) for entry in document["metadata"]["managedFields"]}


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
    scaled = ssa.track_update(DEPLOYMENT, live, scaled, manager="hpa", now=NOW)
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
    with pytest.raises(BadRequest, match="fieldManager"):
        _apply(CONFIG_MAP, None, _config(), "")
    with pytest.raises(BadRequest, match="managedFields must be nil"):
        _apply(CONFIG_MAP, None, {"metadata": {"managedFields": [{"manager": "x"}]}}, "me")


def test_clearing_managed_fields():
    live = _apply(CONFIG_MAP, None, _config(x="1"), "me")
    cleared = json.loads(json.dumps(live))
    cleared["metadata"]["managedFields"] = [{}]
    assert "me" not in {
        e["manager"]
        for e in ssa.track_update(CONFIG_MAP, live, cleared, manager="you", now=NOW)["metadata"].get(
            "managedFields", []
        )
    }
