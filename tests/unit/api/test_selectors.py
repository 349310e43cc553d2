import pytest

from api import codec, fields, selectors
from api.errors import BadRequest
from api.kinds.table import ROWS
from api.meta import LabelSelector, LabelSelectorRequirement


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("!a", {}, True),
        ("a in (b, c)", {"a": "c"}, True),
        ("a in (b)", {}, False),
        ("a notin (b,c)", {}, True),
        ("a notin (b,c)", {"a": "b"}, False),
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "x"}, False),
        ("a=b,c", {"a": "b"}, False),
        ("a=b,c", {"a": "b", "c": "1"}, True),
        ("x.io/a=b", {"x.io/a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("in in (in)", {"in": "in"}, True),
    ],
)
def test_label_queries(text, labels, expected):
    assert selectors.parse_labels(text).matches(labels) is expected


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "a in (b", ",", "a,", "=b", "a b", "a>x", "-a", "a=b c", "a=-"])
def test_unreadable_label_queries_are_the_callers_fault(text):
    with pytest.raises(BadRequest, match="label selector"):
        selectors.parse_labels(text)


def test_an_absent_selector_matches_nothing_and_an_empty_one_everything():
    assert not selectors.of_struct(None).matches({})
    assert selectors.of_struct(LabelSelector()).matches({"a": "b"})
    both = LabelSelector(
        match_labels={"a": "b"}, match_expressions=(LabelSelectorRequirement(key="c", operator="DoesNotExist"),)
    )
    assert selectors.of_struct(both).matches({"a": "b"})
    assert not selectors.of_struct(both).matches({"a": "b", "c": ""})


def test_field_queries():
    query = selectors.parse_fields(r"a.b=c,d!=e\,f,g==h\=")
    assert query.requirements == (("a.b", "c", True), ("d", "e,f", False), ("g", "h=", True))
    assert query.exact("a.b") == "c"
    assert query.exact("d") is None
    assert query.matches({"a.b": "c", "d": "", "g": "h="}.__getitem__)
    with pytest.raises(BadRequest, match="invalid field selector"):
        selectors.parse_fields("a")


# Source: the conversions of field labels in the real server's packages, kind by kind.
SELECTABLE = {
    "Pod": "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase "
    "status.podIP status.podIPs status.nominatedNodeName",
    "Node": "spec.unschedulable",
    "Namespace": "status.phase",
    "Secret": "type",
    "Service": "spec.clusterIP spec.type",
    "ReplicationController": "status.replicas",
    "ReplicaSet": "status.replicas",
    "Job": "status.successful",
    "CertificateSigningRequest": "spec.signerName",
    "Event": "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion "
    "involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type",
    "ConfigMap": "",
}  # fmt: skip


@pytest.mark.parametrize("kind", SELECTABLE)
def test_every_kind_is_selected_by_the_fields_that_clients_name(kind):
    row = next(each for each in ROWS if each.kind == kind)
    wanted = {"metadata.name", *(["metadata.namespace"] if row.namespaced else []), *SELECTABLE[kind].split()}
    assert wanted <= set(fields.selectable(row))
    empty = row.model()
    for label, get in fields.selectable(row).items():
        assert isinstance(get(empty), str), label


@pytest.mark.parametrize(
    ("kind", "document", "label", "value"),
    [
        ("Pod", {"spec": {"containers": []}}, "spec.hostNetwork", "false"),
        ("Pod", {"spec": {"containers": [], "hostNetwork": True}}, "spec.hostNetwork", "true"),
        ("Pod", {"spec": {"containers": [], "nodeName": "n"}}, "spec.host", "n"),
        ("Node", {}, "spec.unschedulable", "false"),
        ("Node", {"spec": {"unschedulable": True}}, "spec.unschedulable", "true"),
        ("Event", {"source": {"component": "a"}, "reportingComponent": "b"}, "source", "a"),
        ("Event", {"reportingComponent": "b"}, "source", "b"),
    ],
)
def test_what_a_field_reads_as(kind, document, label, value):
    row = next(each for each in ROWS if each.kind == kind)
    assert fields.selectable(row)[label](codec.decode(row, document)) == value
