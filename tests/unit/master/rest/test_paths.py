"""Discovery, OpenAPI, version, health and metrics."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import yaml

from api import codec
from api.custom.definitions import rows_of
from api.custom.objects import make_model
from api.defaults import apply_defaults
from api.kinds.table import ROWS, TABLE, Table
from master.rest.openapi import Documents
from trireme_pb.openapi import openapi_v2_pb2

EXAMPLE = Path(__file__).parents[4] / "examples" / "crontab.yaml"


def cron_tabs(change=lambda spec: None):
    """The row of the example's kind, as if it had been established."""
    kind = TABLE.kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    document = yaml.safe_load(EXAMPLE.read_text())
    change(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    document["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    apply_defaults(kind, document)
    return rows_of(codec.decode(kind, document), make_model("CronTab")).owner


CRON_TABS = cron_tabs()
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


async def test_what_is_stored_as_one_has_one_hash(api):
    async def told(root, name):
        resources = (await api.json("GET", root))["resources"]
        return next(each["storageVersionHash"] for each in resources if each["name"] == name)

    # The first eight bytes of the SHA-256 of "/v1/Pod", as servers everywhere give them.
    assert await told("/api/v1", "pods") == "xPOwRZ+Yhw8="
    assert await told("/apis/batch/v1beta1", "cronjobs") == await told("/apis/batch/v1", "cronjobs")
    assert await told("/apis/events.k8s.io/v1", "events") == await told("/api/v1", "events")


async def test_old_discovery_leads_to_every_resource(api):
    found = set()
    roots = ["/api/v1"]
    assert (await api.json("GET", "/api"))["versions"] == ["v1"]
    for group in (await api.json("GET", "/apis"))["groups"]:
        assert group == {
            key: value
            for key, value in (await api.json("GET", f"/apis/{group['name']}")).items()
            if key not in ("kind", "apiVersion")
        }
        roots += [f"/apis/{each['groupVersion']}" for each in group["versions"]]
    for root in roots:
        listed = await api.json("GET", root)
        assert listed["groupVersion"] == root.removeprefix("/apis/").removeprefix("/api/")
        found |= {(root, each["name"]) for each in listed["resources"]}
    for row in ROWS:
        root = f"/apis/{row.group_version}" if row.group else "/api/v1"
        assert {(root, row.plural), *((root, f"{row.plural}/{each}") for each in row.subresources)} <= found


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
@pytest.mark.parametrize("root", ["/api", "/apis"])
async def test_aggregated_discovery_echoes_what_was_asked(api, root, version):
    wanted = AGGREGATED.format(version=version)
    async with api.ask("GET", root, headers={"Accept": f"{wanted},application/json"}) as answer:
        assert answer.headers["Content-Type"] == wanted
        document = await answer.json(content_type=None)
    assert document["apiVersion"] == f"apidiscovery.k8s.io/{version}"
    names = [item["metadata"]["name"] for item in document["items"]]
    assert names == [""] if root == "/api" else "" not in names and "apps" in names
    if root == "/apis":
        apps = document["items"][names.index("apps")]["versions"][0]["resources"]
        deployments = next(each for each in apps if each["resource"] == "deployments")
        assert deployments["scope"] == "Namespaced"
        assert deployments["shortNames"] == ["deploy"]
        scale = next(each for each in deployments["subresources"] if each["subresource"] == "scale")
        assert scale["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


async def test_aggregated_discovery_is_not_sent_twice(api):
    headers = {"Accept": AGGREGATED.format(version="v2")}
    async with api.ask("GET", "/apis", headers=headers) as answer:
        etag = answer.headers["Etag"]
    async with api.ask("GET", "/apis", headers={**headers, "If-None-Match": etag}) as answer:
        assert answer.status == 304
    api.registry.table = Table([*ROWS, CRON_TABS])
    async with api.ask("GET", "/apis", headers={**headers, "If-None-Match": etag}) as answer:
        assert answer.status == 200
        groups = {each["metadata"]["name"]: each for each in (await answer.json(content_type=None))["items"]}
    (version,) = groups["stable.example.com"]["versions"]
    (resource,) = version["resources"]
    assert (resource["resource"], resource["shortNames"], resource["scope"]) == ("crontabs", ["ct"], "Namespaced")
    assert {each["subresource"]: each["responseKind"]["kind"] for each in resource["subresources"]} == {
        "status": "CronTab",
        "scale": "Scale",
    }


async def test_a_client_that_prefers_plain_discovery_gets_it(api):
    accept = f"application/json,{AGGREGATED.format(version='v2')}"
    assert (await api.json("GET", "/apis", headers={"Accept": accept}))["kind"] == "APIGroupList"
    accept = f"{AGGREGATED.format(version='v9')},application/json"
    assert (await api.json("GET", "/apis", headers={"Accept": accept}))["kind"] == "APIGroupList"


async def test_version(api):
    version = await api.json("GET", "/version", user=None)
    assert (version["major"], version["minor"]) == ("1", "32")
    assert version["gitVersion"].endswith("+trireme")
    assert re.fullmatch("[0-9a-f]{40}", version["gitCommit"]), "kubectl's own tests expect a commit"


async def test_health_needs_no_user_and_readiness_needs_the_cache(api):
    for path in ("/healthz", "/livez", "/readyz"):
        async with api.ask("GET", path, user=None) as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
    api.registry.trouble = {"cache": "not filled yet", "store": ""}
    async with api.ask("GET", "/readyz?verbose", user=None) as answer:
        assert answer.status == 500
        assert "[-]cache failed: not filled yet\n[+]store ok\nreadyz check failed" in await answer.text()
    async with api.ask("GET", "/readyz/store") as answer:
        assert answer.status == 200
    async with api.ask("GET", "/readyz/nope") as answer:
        assert answer.status == 404
    async with api.ask("GET", "/livez", user=None) as answer:
        assert answer.status == 200


async def test_metrics_count_what_was_served(api):
    await api.json("GET", "/api/v1/pods")
    await api.json("GET", "/api/v1/namespaces/a/pods/b", code=404)
    async with api.ask("GET", "/metrics") as answer:
        text = await answer.text()
    assert 'apiserver_request_total{verb="LIST",resource="pods",code="200"} 1' in text
    assert 'apiserver_request_total{verb="GET",resource="pods",code="404"} 1' in text
    assert 'apiserver_request_duration_seconds_count{verb="LIST",resource="pods"} 1' in text
    assert "process_resident_memory_bytes" in text


async def test_openapi_v2_is_the_same_in_both_forms(api):
    document = await api.json("GET", "/openapi/v2")
    async with api.ask("GET", "/openapi/v2", headers={"Accept": PROTOBUF}) as answer:
        # The @ of what was asked is no legal part of a media type in an answer.
        assert "@" not in answer.headers["Content-Type"]
        message = openapi_v2_pb2.Document.FromString(await answer.read())
    definitions = {each.name: each.value for each in message.definitions.additional_properties}
    assert set(definitions) == set(document["definitions"])
    assert {each.name for each in message.paths.path} == set(document["paths"])
    for name, schema in document["definitions"].items():
        found = definitions[name]
        assert list(found.required) == schema.get("required", [])
        assert {each.name for each in found.properties.additional_properties} == set(schema.get("properties", {}))
        extensions = {each.name: json.loads(each.value.yaml) for each in found.vendor_extension}
        assert extensions == {key: value for key, value in schema.items() if key.startswith("x-")}


async def test_openapi_v3_is_found_through_its_index_and_never_changes_under_a_hash(api):
    index = (await api.json("GET", "/openapi/v3"))["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1"} <= set(index)
    url = index["apis/apps/v1"]["serverRelativeURL"]
    async with api.ask("GET", url) as answer:
        assert "immutable" in answer.headers["Cache-Control"]
        etag = answer.headers["Etag"]
        document = await answer.json()
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {"fieldValidation", "dryRun"} <= {each["name"] for each in patch["parameters"]}
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    async with api.ask("GET", url, headers={"If-None-Match": etag}) as answer:
        assert answer.status == 304
    async with api.ask("GET", "/openapi/v3/apis/apps/v1?hash=OLD", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, url)
    await api.json("GET", "/openapi/v3/apis/nope/v1", code=404)


class Asked:
    """As much of a request as documents look at."""

    def __init__(self, accept="", query=()):
        self.headers = {"Accept": accept}
        self.rel_url = SimpleNamespace(query=dict(query))


async def test_a_custom_kind_is_described_at_once_and_changes_no_other_group():
    table = Table()
    documents = Documents(table)
    index = json.loads((await documents.serve(Asked(), "v3", "")).body)["paths"]
    whole = await documents.serve(Asked(), "v2", "")
    table.add(CRON_TABS)
    then = json.loads((await documents.serve(Asked(), "v3", "")).body)["paths"]
    assert {name: url for name, url in then.items() if name in index} == index
    assert set(then) - set(index) == {"apis/stable.example.com/v1"}
    v3 = json.loads((await documents.serve(Asked(), "v3", "apis/stable.example.com/v1")).body)
    spec = v3["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"]
    assert spec["properties"]["image"]["default"] == "busybox"
    assert spec["x-kubernetes-validations"]
    metadata = v3["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["metadata"]
    assert metadata["description"].startswith("Standard object's metadata")
    path = v3["paths"]["/apis/stable.example.com/v1/namespaces/{namespace}/crontabs/{name}"]
    assert path["put"]["x-kubernetes-group-version-kind"]["kind"] == "CronTab"
    for accept in ("", PROTOBUF):
        grown = await documents.serve(Asked(accept), "v2", "")
        assert b"com.example.stable.v1.CronTab" in grown.body
    second = msgspec.structs.replace(CRON_TABS, kind="CronTwo", plural="crontwos")
    table.add(second)
    for version, root in (("v2", ""), ("v3", "apis/stable.example.com/v1")):
        assert b"stable.v1.CronTwo" in (await documents.serve(Asked(), version, root)).body
    table.remove(second)
    table.remove(CRON_TABS)
    assert (await documents.serve(Asked(), "v2", "")).body == whole.body


async def test_old_clients_are_told_only_what_they_can_read():
    def change(schema):
        schema["properties"]["spec"]["properties"] |= {
            "maybe": {"type": "string", "nullable": True, "description": "perhaps"},
            "either": {"x-kubernetes-int-or-string": True},
            "free": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"a": {"type": "string"}},
            },
            "one": {"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"required": ["a"]}]},
        }

    table = Table([cron_tabs(change)])
    document = json.loads((await Documents(table).serve(Asked(), "v2", "")).body)
    fields = document["definitions"]["com.example.stable.v1.CronTab"]["properties"]["spec"]["properties"]
    assert fields["maybe"] == {"description": "perhaps"}
    assert "type" not in fields["either"]
    assert "properties" not in fields["free"]
    assert set(fields["one"]) == {"type", "properties"}
    assert "default" not in fields["image"]


async def test_only_reading_is_allowed_here(api):
    await api.json("POST", "/version", code=405)
