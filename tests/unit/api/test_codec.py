import pytest

from api import codec
from api.defaults import completed
from api.errors import BadRequest
from api.kinds.table import TABLE

POD = TABLE.kind("v1", "Pod")


def _pod(**container):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}


def test_unknown_fields_are_reported_with_their_path_and_dropped():
    unknown: list[str] = []
    document = _pod(name="a", bogus=1) | {"extra": True}
    obj = codec.decode(POD, document, unknown=unknown)
    assert sorted(unknown) == ['unknown field "extra"', 'unknown field "spec.containers[0].bogus"']
    assert "bogus" not in codec.to_document(obj)["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({"name": 5}, "cannot unmarshal number into field spec.containers[0].name of type string"),
        ({"ports": {}}, "cannot unmarshal object into field spec.containers[0].ports of type array"),
        ({"resources": {"limits": {"cpu": "much"}}}, "of type quantity"),
        ({"stdin": "yes"}, "cannot unmarshal string into field spec.containers[0].stdin of type boolean"),
    ],
)
def test_wrong_types_are_refused_by_name(container, words):
    with pytest.raises(BadRequest) as refusal:
        codec.decode(POD, _pod(**container))
    assert words in refusal.value.message
    assert refusal.value.message.startswith('Pod in version "v1" cannot be handled as a Pod: ')


def test_null_is_absent_and_quantities_are_canonical():
    document = _pod(name="a", ports=None, resources={"limits": {"cpu": 1, "memory": "1024Mi"}})
    obj = codec.decode(POD, document)
    assert obj.spec.containers[0].ports == ()
    assert obj.spec.containers[0].resources.limits == {"cpu": "1", "memory": "1Gi"}


def test_what_was_encoded_comes_back_equal():
    obj = codec.decode(POD, _pod(name="a", env=[{"name": "A", "value": ""}], resources={}))
    assert codec.from_json(POD, codec.encode(obj)) == obj


def test_integer_or_string_keeps_which_it_was():
    service = TABLE.kind("v1", "Service")
    document = {"spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}]}}
    ports = codec.decode(service, document).spec.ports
    assert [port.target_port for port in ports] == ["http", 8081]


@pytest.mark.parametrize(
    ("kind", "document", "words"),
    [
        ("ReplicationController", {"spec": {"template": "x"}}, "string into field spec.template of type"),
        ("ReplicationController", {"spec": {"template": {"metadata": [1]}}}, "array into field spec.template.metadata"),
        ("PodTemplate", {"template": {"spec": {"containers": 1.5}}}, "number into field template.spec.containers"),
        (
            "Pod",
            {"spec": {"hostNetwork": True, "containers": [{"ports": 5}]}},
            "number into field spec.containers[0].ports",
        ),
        (
            "LimitRange",
            {"spec": {"limits": [{"type": "Container", "max": "x"}]}},
            "string into field spec.limits[0].max",
        ),
        ("Secret", {"data": "x", "stringData": {"a": "b"}}, "string into field data of type map"),
        ("Secret", {"stringData": {"a": 1}}, "number into field stringData.a of type string"),
        ("Secret", {"stringData": "x"}, "string into field stringData of type map"),
        ("Deployment", {"spec": {"replicas": 2**63}}, "number into field spec.replicas of type integer"),
    ],
)
def test_defaults_leave_it_to_decoding_to_refuse_what_has_not_the_kinds_shape(kind, document, words):
    row = next(each for each in TABLE if each.kind == kind)
    with pytest.raises(BadRequest) as refusal:
        codec.decode(row, completed(row, document))
    assert words in refusal.value.message


def test_plain_data_of_a_secret_goes_over_what_is_encoded():
    row = TABLE.kind("v1", "Secret")
    document = {"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"b": "z", "c": ""}}
    made = completed(row, document)
    assert made["data"] == {"a": "eA==", "b": "eg==", "c": ""}
    assert "stringData" not in made
    assert document["data"]["b"] == "eQ==", "the client's document is not changed"
