"""What deleting does to an object, decided without a store."""

import random
from typing import Any

import pytest

from api import codec
from api.errors import BadRequest
from api.kinds.table import TABLE, Kind
from api.meta import DeleteOptions, Resource
from master import lifecycle
from master.lifecycle import (
    Gone,
    Surroundings,
    generated_name,
    is_released,
    plan_delete,
    prepare_change,
    prepare_new,
    prepare_status,
)

NOW = 1_800_000_000.0
WORLD = Surroundings(now=lambda: NOW, new_uid=lambda: "u1", rng=random.Random(0))


def kind(plural: str, group: str = "") -> Kind:
    found = TABLE.preferred(group, plural)
    assert found is not None
    return found


def pod(**document: Any) -> Resource:
    return codec.decode(kind("pods"), {"metadata": {"name": "p", "namespace": "n"}, **document})


def config_map(**metadata: Any) -> Resource:
    return codec.decode(kind("configmaps"), {"metadata": {"name": "c", "namespace": "n", **metadata}})


@pytest.mark.parametrize(
    ("document", "asked", "grace"),
    [
        pytest.param({}, None, None, id="unscheduled goes at once"),
        pytest.param({"spec": {"nodeName": "n1"}}, None, 30, id="default"),
        pytest.param({"spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 7}}, None, 7, id="the pod's own"),
        pytest.param({"spec": {"nodeName": "n1"}}, 3, 3, id="as asked"),
        pytest.param({"spec": {"nodeName": "n1"}}, -5, 1, id="negative means a second"),
        pytest.param({"spec": {"nodeName": "n1"}}, 0, None, id="forced"),
        pytest.param({"spec": {"nodeName": "n1"}, "status": {"phase": "Failed"}}, None, None, id="finished"),
    ],
)
def test_grace_of_pods(document: dict[str, Any], asked: int | None, grace: int | None) -> None:
    outcome = plan_delete(kind("pods"), pod(**document), DeleteOptions(grace_period_seconds=asked), NOW)
    if grace is None:
        assert isinstance(outcome, Gone)
    else:
        assert not isinstance(outcome, Gone)
        assert outcome.metadata.deletion_grace_period_seconds == grace
        assert lifecycle.seconds(outcome.metadata.deletion_timestamp) == NOW + grace


def test_finalizers_hold_without_grace() -> None:
    outcome = plan_delete(kind("configmaps"), config_map(finalizers=["x/y"]), DeleteOptions(), NOW)
    assert not isinstance(outcome, Gone)
    assert outcome.metadata.deletion_grace_period_seconds == 0
    assert plan_delete(kind("configmaps"), outcome, DeleteOptions(), NOW + 9) == outcome
    assert not is_released(kind("configmaps"), outcome)


def test_pod_with_finalizer_stays_after_its_agent_is_done() -> None:
    held = pod(spec={"nodeName": "n1"}, metadata={"name": "p", "namespace": "n", "finalizers": ["x/y"]})
    marked = plan_delete(kind("pods"), held, DeleteOptions(), NOW)
    assert not isinstance(marked, Gone)
    done = plan_delete(kind("pods"), marked, DeleteOptions(grace_period_seconds=0), NOW + 1)
    assert not isinstance(done, Gone)
    assert done.metadata.deletion_grace_period_seconds == 0


@pytest.mark.parametrize(
    ("present", "options", "left"),
    [
        (["a/b"], {"propagation_policy": "Foreground"}, ("a/b", "foregroundDeletion")),
        (["orphan"], {"propagation_policy": "Background"}, None),
        (["orphan"], {}, ("orphan",)),
        ([], {"orphan_dependents": True}, ("orphan",)),
        ([], {"orphan_dependents": False}, None),
        (["foregroundDeletion"], {"propagation_policy": "Orphan"}, ("orphan",)),
    ],
)
def test_propagation(present: list[str], options: dict[str, Any], left: tuple[str, ...] | None) -> None:
    outcome = plan_delete(kind("configmaps"), config_map(finalizers=present), DeleteOptions(**options), NOW)
    assert (None if isinstance(outcome, Gone) else outcome.metadata.finalizers) == left


def test_grace_that_is_shortened_does_not_end_before_it_was_asked_for() -> None:
    leaving = pod(
        metadata={"name": "p", "deletionTimestamp": lifecycle.timestamp(NOW + 1), "deletionGracePeriodSeconds": 60},
        spec={"nodeName": "n1"},
    )
    outcome: Any = plan_delete(kind("pods"), leaving, DeleteOptions(grace_period_seconds=5), NOW)
    meta = outcome.metadata
    assert (meta.deletion_timestamp, meta.deletion_grace_period_seconds) == (lifecycle.timestamp(NOW), 1)


def test_new_object_gets_what_the_server_owns() -> None:
    then = "2001-01-01T00:00:00Z"
    forged = {"uid": "forged", "creationTimestamp": then, "deletionTimestamp": then, "selfLink": "x", "generation": 9}
    made = prepare_new(kind("configmaps"), config_map(**forged), "n", WORLD).metadata
    assert (made.uid, made.creation_timestamp, made.deletion_timestamp) == ("u1", lifecycle.timestamp(NOW), "")
    assert made.generation is None


def test_new_object_with_a_version_is_refused() -> None:
    with pytest.raises(BadRequest):
        prepare_new(kind("configmaps"), config_map(resourceVersion="3"), "n", WORLD)


def test_change_keeps_identity_and_status() -> None:
    old = prepare_new(kind("pods"), pod(spec={"nodeName": "n1"}), "n", WORLD)
    forged = pod(
        metadata={"name": "p", "namespace": "n", "uid": "forged", "labels": {"a": "b"}}, status={"phase": "Running"}
    )
    new: Any = prepare_change(kind("pods"), old, forged)
    assert (new.metadata.uid, new.metadata.labels, new.status.phase) == ("u1", {"a": "b"}, "Pending")


@pytest.mark.parametrize(
    ("plural", "group", "carried"),
    [
        ("services", "", {"labels", "annotations", "owner_references"}),
        ("pods", "", {"labels", "annotations"}),
        ("deployments", "apps", {"annotations", "owner_references"}),
        ("customresourcedefinitions", "apiextensions.k8s.io", set()),
    ],
)
def test_a_write_to_the_status_carries_metadata_as_far_as_its_kind_says(
    plural: str, group: str, carried: set[str]
) -> None:
    row = kind(plural, group)
    old = codec.decode(row, {"metadata": {"name": "a", "uid": "u1", "generation": 3}})
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u2"}
    wanted = {
        "uid": "forged",
        "generation": 9,
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "ownerReferences": [owner],
    }
    meta = prepare_status(row, old, codec.decode(row, {"metadata": wanted})).metadata
    assert {name for name in ("labels", "annotations", "owner_references") if getattr(meta, name)} == carried
    assert (meta.name, meta.uid, meta.generation) == ("a", "u1", 3)


def test_generated_names_fit() -> None:
    rng = random.Random(1)
    assert len(generated_name("x" * 100, rng)) == 63
    assert generated_name("a-", rng) != generated_name("a-", rng)
