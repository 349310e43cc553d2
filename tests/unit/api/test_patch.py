import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import BadRequest, Invalid, RequestTooLarge
from api.kinds.apps import Deployment
from api.kinds.pods import Pod
from api.patch import apply_json_patch, apply_merge_patch, apply_strategic_merge


def _containers(*items):
    return {"spec": {"containers": list(items)}}


STRATEGIC = [
    ("items merge by name", _containers({"name": "a", "image": "1"}), _containers({"name": "a", "image": "2"}),
     _containers({"name": "a", "image": "2"})),
    ("others are added at the end", _containers({"name": "a"}), _containers({"name": "b"}),
     _containers({"name": "a"}, {"name": "b"})),
    ("an item is deleted", _containers({"name": "a"}, {"name": "b"}), _containers({"name": "a", "$patch": "delete"}),
     _containers({"name": "b"})),
    ("a list is replaced", _containers({"name": "a"}), _containers({"$patch": "replace"}, {"name": "b"}),
     _containers({"name": "b"})),
    ("null deletes", {"spec": {"nodeName": "x"}}, {"spec": {"nodeName": None}}, {"spec": {}}),
    ("a map is replaced", {"metadata": {"labels": {"a": "1"}}}, {"metadata": {"labels": {"$patch": "replace", "b": "2"}}},
     {"metadata": {"labels": {"b": "2"}}}),
    ("a map is deleted", {"spec": {"affinity": {"x": 1}}}, {"spec": {"affinity": {"$patch": "delete"}}}, {"spec": {}}),
    ("scalars merge", {"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": ["b", "a"]}},
     {"metadata": {"finalizers": ["a", "b"]}}),
    ("scalars are deleted", {"metadata": {"finalizers": ["a", "b"]}},
     {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, {"metadata": {"finalizers": ["b"]}}),
    ("lists without a key are replaced", _containers({"name": "a", "command": ["x", "y"]}),
     _containers({"name": "a", "command": ["z"]}), _containers({"name": "a", "command": ["z"]})),
    ("order is set", _containers({"name": "a"}, {"name": "b"}),
     {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "n"}]}},
     _containers({"name": "b", "image": "n"}, {"name": "a"})),
    ("keys are retained", {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}}},
     {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}, {"spec": {"strategy": {"type": "Recreate"}}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "patch", "expected"), [row[1:] for row in STRATEGIC], ids=[row[0] for row in STRATEGIC]
)
def test_strategic_merge(document, patch, expected):
    model = Deployment if "strategy" in str(document) else Pod
    assert apply_strategic_merge(document, patch, model) == expected


def test_an_item_without_its_merge_key_is_refused():
    with pytest.raises(BadRequest, match="merge key: name"):
        apply_strategic_merge(_containers({"name": "a"}), _containers({"image": "x"}), Pod)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def _slow_merge(target, patch):
    """RFC 7386, section 2, to the letter."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = _slow_merge(target.get(name), value)
    return target


@given(OBJECTS, OBJECTS)
def test_merge_patch_is_the_rfc(document, patch):
    assert apply_merge_patch(document, patch) == _slow_merge(document, patch)


def test_json_patch_says_what_does_not_apply():
    assert apply_json_patch({"a": 1}, [{"op": "replace", "path": "/a", "value": 2}]) == {"a": 2}
    with pytest.raises(Invalid):
        apply_json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 3}])
    with pytest.raises(Invalid, match="does not apply"):
        apply_json_patch({}, [{"op": "remove", "path": "/a/b"}])
    with pytest.raises(BadRequest):
        apply_json_patch({}, {"op": "remove"})


def test_a_json_patch_of_copies_does_not_grow_without_end():
    copy_itself = {"op": "copy", "from": "/data", "path": "/data/again"}
    document = {"data": {"a": "x" * 1000}}
    assert apply_json_patch(document, [copy_itself]) == {"data": {"a": "x" * 1000, "again": document["data"]}}
    doubling = [{"op": "copy", "from": "/data", "path": f"/data/{number}"} for number in range(24)]
    with pytest.raises(RequestTooLarge):
        apply_json_patch(document, doubling)
    with pytest.raises(RequestTooLarge):
        apply_json_patch(document, [{"op": "test", "path": "/data/a", "value": "x"}] * 10_001)
    with pytest.raises(Invalid):
        apply_json_patch(document, [{"op": "copy", "path": "/data/b"}])
    with pytest.raises(Invalid):
        apply_json_patch(document, [{"op": "copy", "from": "/none", "path": "/data/b"}])
    assert document == {"data": {"a": "x" * 1000}}
