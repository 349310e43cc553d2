"""The forms in which answers are written: negotiation, tables, bare metadata."""

import pytest

from api.errors import NotAcceptable
from master.rest.negotiation import JSON, YAML, Form, pick_form

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
OLD_TABLE = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
KUBECTL = f"{TABLE},{OLD_TABLE},application/json"
PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("", Form(JSON)),
        ("*/*", Form(JSON)),
        ("application/*", Form(JSON)),
        (JSON, Form(JSON)),
        (YAML, Form(YAML)),
        ("application/yaml;q=0.5,application/json;q=0.1", Form(YAML)),
        ("application/json;q=0,application/yaml", Form(YAML)),
        ("application/vnd.kubernetes.protobuf,application/json", Form(JSON)),
        ("application/cbor,application/yaml", Form(YAML)),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Form(JSON)),
        (KUBECTL, Form(JSON, "Table", "v1")),
        (f"{OLD_TABLE},{JSON}", Form(JSON, "Table", "v1beta1")),
        (f"application/json;as=Table;v=v9;g=meta.k8s.io,{JSON}", Form(JSON)),
        (f"application/json;as=Table;v=v1;g=other,{JSON}", Form(JSON)),
        (f"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,{JSON}", Form(JSON)),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,*/*", Form(JSON)),
    ],
)
def test_the_first_form_that_we_write_wins(header, form):
    assert pick_form(header, transforms=frozenset({"Table", "PartialObjectMetadata"})) == form


@pytest.mark.parametrize(
    "header", ["text/html", "application/vnd.kubernetes.protobuf", TABLE, "nonsense", ";;;", "application/json;q=0"]
)
def test_what_we_cannot_write_is_refused(header):
    with pytest.raises(NotAcceptable):
        pick_form(header)


async def test_one_object_as_a_table(api):
    made = await api.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}})
    table = await api.json("GET", f"{PODS}/p", headers={"Accept": KUBECTL})
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    names = [column["name"] for column in table["columnDefinitions"]]
    (row,) = table["rows"]
    shown = dict(zip(names, row["cells"], strict=True))
    assert (shown["Name"], shown["Ready"], shown["Restarts"]) == ("p", "0/1", "0")
    assert row["object"]["metadata"] == made["metadata"]


@pytest.mark.parametrize(
    ("include", "kind"), [("None", None), ("Metadata", "PartialObjectMetadata"), ("Object", "Pod")]
)
async def test_what_travels_beside_a_row(api, include, kind):
    await api.create(PODS, {"metadata": {"name": "p"}})
    table = await api.json("GET", f"{PODS}?includeObject={include}", headers={"Accept": KUBECTL})
    assert table["rows"][0].get("object", {}).get("kind") == kind
    await api.json("GET", f"{PODS}?includeObject=Some", headers={"Accept": KUBECTL}, code=400)


async def test_a_list_as_bare_metadata(api):
    made = await api.create(PODS, {"metadata": {"name": "p"}})
    accept = f"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,{JSON}"
    listed = await api.json("GET", PODS, headers={"Accept": accept})
    assert listed["kind"] == "PartialObjectMetadataList"
    assert listed["items"] == [
        {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}
    ]


async def test_of_what_is_only_answered_there_is_no_table(api):
    path, body = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"nonResourceAttributes": {}}}
    await api.json("POST", path, json=body, headers={"Accept": TABLE}, code=406)
    bare = await api.json(
        "POST", path, json=body, headers={"Accept": TABLE.replace("Table", "PartialObjectMetadata")}, code=201
    )
    assert bare["kind"] == "PartialObjectMetadata"


async def test_what_no_client_can_read_is_not_acceptable(api):
    status = await api.json("GET", PODS, headers={"Accept": "text/html"}, code=406)
    assert status["reason"] == "NotAcceptable"
