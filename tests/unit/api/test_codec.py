import pytest

from api import codec
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
