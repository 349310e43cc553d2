"""The verbs over HTTP against the fake registry: what a client sends, what the registry sees, what comes back."""

import asyncio
import gzip
import io
import json
import threading

import pytest
import yaml

from api import errors
from master.rest import http, yaml_bodies

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name="m", **more):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


async def test_an_object_comes_back_as_it_was_sent(api):
    made = await api.create(MAPS, config_map(data={"a": "b"}))
    assert made["metadata"]["namespace"] == "default"
    assert await api.json("GET", f"{MAPS}/m") == made
    listed = await api.json("GET", MAPS)
    assert listed["kind"] == "ConfigMapList"
    assert listed["items"] == [made]
    assert listed["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_a_body_may_leave_out_what_the_url_says(api):
    made = await api.create(MAPS, {"metadata": {"name": "m"}})
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")


async def test_yaml_goes_in_and_out(api):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {day: '2026-01-01'}\n"
    headers = {"Content-Type": "application/yaml", "Accept": "application/yaml"}
    async with api.ask("POST", MAPS, data=text, headers=headers) as answer:
        assert answer.status == 201
        assert answer.content_type == "application/yaml"
        assert yaml.safe_load(await answer.text())["data"] == {"day": "2026-01-01"}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (
            config_map(apiVersion="v2"),
            'ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2"',
        ),
        (
            config_map(kind="Secret"),
            (
                'Secret in version "v1" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): '
                "unknown conversion"
            ),
        ),
        (
            config_map(kind="Karte"),
            'Karte in version "v1" cannot be handled as a ConfigMap: no kind "Karte" is registered for version "v1"',
        ),
        (config_map(kind=["ConfigMap"]), "cannot unmarshal array into Go struct field .kind of type string"),
        (config_map(apiVersion={}), "cannot unmarshal object into Go struct field .apiVersion of type string"),
        ({"metadata": {"name": "m", "namespace": "other"}}, "the namespace of the provided object does not match"),
        ({"metadata": {"name": 7}}, "cannot unmarshal number"),
        ({"metadata": []}, "metadata must be an object"),
        ({"metadata": {"name": "m"}, "data": {"a": 1}}, "cannot unmarshal number"),
        ([], "must be an object"),
        ("text", "must be an object"),
    ],
)
async def test_bodies_that_disagree_are_refused(api, document, why):
    status = await api.json("POST", MAPS, json=document, code=400)
    assert status["reason"] == "BadRequest"
    assert why in status["message"]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        ('{"kind": "ConfigMap", "metadata": {{}', '({"kind": "ConfigMap", "metadat ...)'),
        ("nothing", "(6e6f7468696e67)"),
    ],
)
async def test_bodies_that_cannot_be_read_are_shown(api, body, shown):
    status = await api.json("POST", MAPS, data=body, headers={"Content-Type": "application/json"}, code=400)
    assert status["message"].startswith("the object provided is unrecognized (must be of type ConfigMap): couldn't get")
    assert status["message"].endswith(shown)


async def test_a_namespace_means_nothing_where_there_are_none(api):
    document = {"metadata": {"name": "n", "namespace": "default"}}
    made = await api.json("POST", "/api/v1/nodes", json=document, code=201)
    assert "namespace" not in made["metadata"]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"name": "m", "namespace": "other"}, "the namespace of the object (other) does not match the namespace on the request (default)"),
        ({}, "the name of the object (m based on URL) was undeterminable: name must be provided"),
    ],
)  # fmt: skip
async def test_what_replaces_an_object_says_which(api, metadata, why):
    await api.create(MAPS, config_map())
    status = await api.json("PUT", f"{MAPS}/m", json={"metadata": metadata}, code=400)
    assert status["message"] == why


async def test_the_name_on_the_url_wins_or_nothing(api):
    await api.create(MAPS, config_map())
    status = await api.json("PUT", f"{MAPS}/m", json=config_map("other"), code=400)
    assert status["message"] == "the name of the object (other) does not match the name on the URL (m)"


@pytest.mark.parametrize(
    ("data", "content_type", "code"),
    [
        (b"{", "application/json", 400),
        (b"{} {}", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"a: &x [1]\nb: *x", "application/yaml", 400),
        (b"? [a]\n: b", "application/yaml", 400),
        (b"!!python/object:os.system {}", "application/yaml", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[" * 100_000, "application/yaml", 400),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "application/json", 400),
        (b"k8s\x00", "application/vnd.kubernetes.protobuf", 415),
        (b"x", "application/cbor", 415),
        (b"x", "text/plain", 415),
    ],
)  # fmt: skip
async def test_unreadable_bodies_are_refused(api, data, content_type, code):
    status = await api.json("POST", MAPS, data=data, headers={"Content-Type": content_type}, code=code)
    assert status["kind"] == "Status"
    assert status["code"] == code


async def test_too_large_bodies_are_refused_announced_or_not(api):
    async def chunks():
        for _ in range(4):
            yield b" " * 2**20

    for data in (io.BytesIO(b" " * (http.MAX_BODY_BYTES + 1)), chunks()):
        status = await api.json("POST", MAPS, data=data, headers={"Content-Type": "application/json"}, code=413)
        assert status["reason"] == "RequestEntityTooLarge"


async def test_unknown_and_repeated_fields(api):
    text = '{"metadata": {"name": "m"}, "data": {"a": "1", "a": "2"}, "dota": {}}'
    headers = {"Content-Type": "application/json"}
    status = await api.json("POST", f"{MAPS}?fieldValidation=Strict", data=text, headers=headers, code=400)
    assert status["message"] == (
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a", '
        'unknown field "dota"'
    )
    both = (
        '{"bogus": {"x": 1, "x": 2}, "bogus": 3, "metadata": {"name": "m"}, "spec": {"paused": true, "paused": false, '
        '"selector": {"odd": 1}, "template": {"spec": {"containers": [{"name": "a", "name": "b", "un": 1}]}}}}'
    )
    path = "/apis/apps/v1/namespaces/default/deployments?fieldValidation=Strict"
    status = await api.json("POST", path, data=both, headers=headers, code=400)
    assert status["message"].partition("error: ")[2] == (
        'unknown field "bogus", duplicate field "spec.paused", unknown field "spec.selector.odd", '
        'duplicate field "spec.template.spec.containers[0].name", unknown field "spec.template.spec.containers[0].un"'
    )
    async with api.ask("POST", f"{MAPS}?fieldValidation=Warn", data=text, headers=headers) as answer:
        assert answer.status == 201
        assert answer.headers.getall("Warning") == [
            '299 - "duplicate field \\"data.a\\""',
            '299 - "unknown field \\"dota\\""',
        ]
    async with api.ask("PUT", f"{MAPS}/m?fieldValidation=Ignore", data=text, headers=headers) as answer:
        assert "Warning" not in answer.headers
    text = "metadata: {name: m}\ndata:\n  a: '1'\n  a: '2'\n"
    async with api.ask("PUT", f"{MAPS}/m", data=text, headers={"Content-Type": "application/yaml"}) as answer:
        assert answer.headers.getall("Warning") == ['299 - "line 4: key \\"a\\" already set in map"']


@pytest.mark.parametrize(
    ("how", "patch", "shown", "told"),
    [
        (
            "merge-patch",
            '{"data": {"a": "1", "a": "2"}, "dota": 1}',
            "{",
            'duplicate field "data.a", unknown field "dota"',
        ),
        (
            "strategic-merge-patch",
            '{"data": {"a": "1", "a": "2"}, "dota": 1}',
            "map[data:map[a:2] dota:1]",
            'duplicate field "data.a", unknown field "dota"',
        ),
        (
            "json-patch",
            '[{"op": "test", "op": "add", "path": "/dota", "value": 1, "why": "x"}]',
            "{",
            'json patch duplicate field "[0].op", json patch unknown field "[0].why", unknown field "dota"',
        ),
    ],
)
async def test_unknown_and_repeated_fields_of_patches(api, how, patch, shown, told):
    await api.create(MAPS, {"metadata": {"name": "m"}})
    headers = {"Content-Type": f"application/{how}+json"}
    status = await api.json("PATCH", f"{MAPS}/m?fieldValidation=Strict", data=patch, headers=headers, code=422)
    assert status["message"].startswith(f' "" is invalid: patch: Invalid value: "{shown}')
    assert status["message"].partition(": strict decoding error: ")[2] == told
    async with api.ask("PATCH", f"{MAPS}/m", data=patch, headers=headers) as answer:
        assert answer.status == 200
        quoted = [text.removeprefix('299 - "').removesuffix('"') for text in answer.headers.getall("Warning")]
    assert ", ".join(each.replace('\\"', '"') for each in quoted) == told
    async with api.ask("PATCH", f"{MAPS}/m?fieldValidation=Ignore", data=patch, headers=headers) as answer:
        assert (answer.status, "Warning" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    "query",
    [
        "limit=x", "limit=1.5", "limit=99999999999999999999", "resourceVersion=abc", "resourceVersion=-1",
        "fieldSelector=a=b", "labelSelector=a%20b", "timeoutSeconds=x&watch=1",
        "watch=1&labelSelector=!!", "watch=1&fieldSelector=x",
        "watch=1&fieldSelector=bogus%3Dx",
    ],
)  # fmt: skip
async def test_query_parameters_that_cannot_be_read_are_refused(api, query):
    status = await api.json("GET", f"{PODS}?{query}", code=400)
    assert status["reason"] == "BadRequest"


MATCH = "resourceVersionMatch: "


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("resourceVersionMatch=Exact", f"{MATCH}Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (
            "resourceVersionMatch=Nearly&resourceVersion=1",
            f'{MATCH}Unsupported value: "Nearly": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            f'{MATCH}Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
            f"{MATCH}Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        ("sendInitialEvents=true", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        (
            "watch=1&sendInitialEvents=true",
            f"{MATCH}Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            f"{MATCH}Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ],
)  # fmt: skip
async def test_list_options_that_do_not_go_together_are_refused(api, query, why):
    status = await api.json("GET", f"{PODS}?{query}", code=422)
    assert status["message"] == f'ListOptions.meta.k8s.io "" is invalid: {why}'


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("dryRun=Some", 'dryRun: Unsupported value: []string{"Some"}: supported values: "All"'),
        (
            "fieldValidation=Sometimes",
            'fieldValidation: Unsupported value: "Sometimes": supported values: "", "Ignore", "Strict", "Warn"',
        ),
        (f"fieldManager={'x' * 129}", "fieldManager: Too long: may not be more than 128 bytes"),
        ("fieldManager=%07", r'fieldManager: Invalid value: "\a": invalid character U+0007 (at position 0)'),
    ],
)
async def test_write_options_that_make_no_sense_are_refused(api, query, why):
    status = await api.json("POST", f"{MAPS}?{query}", json=config_map(), code=422)
    assert status["message"] == f'CreateOptions.meta.k8s.io "" is invalid: {why}'
    assert not api.registry.rows


async def test_write_options_reach_the_registry(api):
    await api.create(f"{MAPS}?dryRun=All&fieldManager=me", config_map())
    options = api.registry.calls[-1][-1]
    assert (options.dry_run, options.field_manager, options.user.name) == (True, "me", "admin")
    await api.create(MAPS, config_map(), headers={"User-Agent": "kubectl/v1.32 (linux)"})
    assert api.registry.calls[-1][-1].field_manager == "kubectl"


async def test_refusals_of_the_registry_become_statuses(api):
    await api.create(MAPS, config_map())
    status = await api.json("POST", MAPS, json=config_map(), code=409)
    assert (status["reason"], status["details"]) == ("AlreadyExists", {"name": "m", "kind": "configmaps"})
    old = {"metadata": {"name": "m", "resourceVersion": "1"}}
    assert (await api.json("PUT", f"{MAPS}/m", json=old, code=409))["reason"] == "Conflict"
    status = await api.json("GET", f"{MAPS}/nope", code=404)
    assert status["message"] == 'configmaps "nope" not found'


@pytest.mark.parametrize(
    ("error", "code", "after"),
    [
        (errors.Unavailable("the store has no quorum", retry_after_s=3), 503, "3"),
        (errors.Timeout("nobody knows"), 504, "1"),
        (errors.TooManyRequests("later"), 429, None),
        (errors.TooManyRequests("later", retry_after_s=10), 429, "10"),
        (errors.InternalError("our fault"), 500, None),
    ],
)
async def test_clients_are_told_when_to_come_back(api, error, code, after):
    api.registry.refusal = error
    async with api.ask("GET", PODS) as answer:
        assert answer.status == code
        assert answer.headers.get("Retry-After") == after


async def test_our_own_faults_are_answered_and_logged_once(api, caplog):
    api.registry.refusal = ZeroDivisionError("deep down")
    status = await api.json("GET", PODS, code=500)
    assert status["reason"] == "InternalError"
    assert "deep down" not in status["message"]
    (logged,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert logged.startswith("request failed")


@pytest.mark.parametrize(
    ("content_type", "patch", "labels"),
    [
        ("application/merge-patch+json", {"metadata": {"labels": {"a": None, "b": "2"}}}, {"b": "2"}),
        ("application/strategic-merge-patch+json", {"metadata": {"labels": {"b": "2"}}}, {"a": "1", "b": "2"}),
        (
            "application/json-patch+json",
            [{"op": "add", "path": "/metadata/labels/b", "value": "2"}],
            {"a": "1", "b": "2"},
        ),
    ],
)
async def test_patches(api, content_type, patch, labels):
    await api.create(MAPS, {"metadata": {"name": "m", "labels": {"a": "1"}}})
    headers = {"Content-Type": content_type}
    made = await api.json("PATCH", f"{MAPS}/m", data=json.dumps(patch), headers=headers)
    assert made["metadata"]["labels"] == labels


@pytest.mark.parametrize(
    ("content_type", "query", "body", "code"),
    [
        ("application/json", "", "{}", 415),
        ("text/plain", "", "{}", 415),
        ("application/merge-patch+json", "", "[]", 400),
        ("application/json-patch+json", "", "{}", 400),
        ("application/merge-patch+json", "", "{", 400),
        ("application/merge-patch+json", "?force=true", "{}", 422),
        ("application/apply-patch+yaml", "", "{}", 422),
    ],
)
async def test_patches_that_cannot_be_read_are_refused(api, content_type, query, body, code):
    await api.create(MAPS, config_map())
    await api.json("PATCH", f"{MAPS}/m{query}", data=body, headers={"Content-Type": content_type}, code=code)


async def test_apply_reaches_the_registry_with_its_manager(api):
    await api.create(MAPS, config_map())
    headers = {"Content-Type": "application/apply-patch+yaml"}
    await api.json("PATCH", f"{MAPS}/m?fieldManager=me&force=true", data="data: {a: b}", headers=headers, code=415)
    *_, patch, patch_type, options = api.registry.calls[-1]
    assert (patch["data"], patch_type, options.field_manager, options.force) == ({"a": "b"}, "apply", "me", True)


async def test_delete_answers_a_status_or_the_object(api):
    await api.create(MAPS, config_map())
    status = await api.json("DELETE", f"{MAPS}/m")
    assert status["status"] == "Success"
    assert status["details"]["name"] == "m"
    await api.create(MAPS, {"metadata": {"name": "held", "finalizers": ["a/b"]}})
    assert (await api.json("DELETE", f"{MAPS}/held"))["kind"] == "ConfigMap"
    await api.create(PODS, {"metadata": {"name": "p"}})
    assert (await api.json("DELETE", f"{PODS}/p"))["kind"] == "Pod"


async def test_delete_options_come_from_body_or_query(api):
    for number in (0, 1):
        await api.create(MAPS, config_map(f"m{number}"))
    body = {"gracePeriodSeconds": 5, "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}, "dryRun": None}
    await api.json("DELETE", f"{MAPS}/m0", json=body)
    first = api.registry.calls[-1][-2]
    assert (first.grace_period_seconds, first.propagation_policy, first.preconditions.uid) == (5, "Orphan", "u")
    await api.json("DELETE", f"{MAPS}/m1?gracePeriodSeconds=0&propagationPolicy=Foreground")
    second = api.registry.calls[-1][-2]
    assert (second.grace_period_seconds, second.propagation_policy) == (0, "Foreground")


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ("propagationPolicy=Sideways", None, 422), ("gracePeriodSeconds=x", None, 400), ("dryRun=Maybe", None, 422),
        ("", {"propagationPolicy": "Sideways"}, 422), ("", {"gracePeriodSeconds": "x"}, 400), ("", [], 400),
        ("", {"kind": "Pod"}, 400), ("", {"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
    ],
)  # fmt: skip
async def test_delete_options_that_make_no_sense_are_refused(api, query, body, code):
    await api.create(MAPS, config_map())
    await api.json("DELETE", f"{MAPS}/m?{query}", json=body, code=code)
    assert api.registry.rows


async def test_delete_collection(api):
    for number in range(3):
        await api.create(MAPS, {"metadata": {"name": f"m{number}", "labels": {"n": str(number)}}})
    listed = await api.json("DELETE", f"{MAPS}?labelSelector=n!=1")
    assert [each["metadata"]["name"] for each in listed["items"]] == ["m0", "m2"]
    assert [each["metadata"]["name"] for each in (await api.json("GET", MAPS))["items"]] == ["m1"]


async def test_lists_come_in_chunks(api):
    for number in range(5):
        await api.create(MAPS, config_map(f"m{number}"))
    first = await api.json("GET", f"{MAPS}?limit=2")
    assert first["metadata"]["remainingItemCount"] == 3
    rest = await api.json("GET", f"{MAPS}?limit=10&continue={first['metadata']['continue']}")
    assert len(first["items"]) + len(rest["items"]) == 5


async def test_posting_to_an_action_answers_success(api):
    await api.create(PODS, {"metadata": {"name": "p"}})
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"},
    }
    status = await api.create(f"{PODS}/p/binding", binding)
    assert status["status"] == "Success"
    _, _, namespace, name, subresource, document, _ = api.registry.calls[-1]
    assert (namespace, name, subresource, document["target"]["name"]) == ("default", "p", "binding", "n1")


async def test_large_answers_are_compressed_when_asked(api):
    await api.create(MAPS, config_map(data={"a": "x" * 200_000}))
    async with api.ask("GET", f"{MAPS}/m", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert int(answer.headers["Content-Length"]) < 10_000
        assert (await answer.json())["data"]["a"] == "x" * 200_000
    async with api.ask("GET", f"{MAPS}/m", headers={"Accept-Encoding": "identity"}) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_a_compressed_body_is_read_within_the_same_limit(api):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    await api.json("POST", MAPS, data=gzip.compress(json.dumps(config_map()).encode()), headers=headers, code=201)
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 100_000
    await api.json("POST", MAPS, data=bomb, headers=headers, code=413)


@pytest.mark.parametrize("more", [{}, {"Upgrade": "h2c", "Connection": "Upgrade"}], ids=["plain", "handed over"])
async def test_bodies_that_wait_or_are_not_what_they_say(api, more):
    """Goal: connections that may become something else than HTTP take bodies as all others do."""
    headers = {"Content-Type": "application/json", **more}
    async with asyncio.timeout(5):
        await api.json("POST", MAPS, data=json.dumps(config_map()), headers=headers, expect100=True, code=201)
    for encoding in ("gzip", "deflate"):
        lying = {**headers, "Content-Encoding": encoding}
        async with api.ask("POST", MAPS, data=b"{}", headers=lying) as answer:
            assert answer.status == 400


async def test_pretty_answers_are_for_people(api):
    await api.create(MAPS, config_map())
    async with api.ask("GET", f"{MAPS}/m?pretty=true") as answer:
        assert "\n  " in await answer.text()
    async with api.ask("GET", f"{MAPS}/m") as answer:
        assert "\n" not in await answer.text()


async def test_every_answer_carries_its_headers(api):
    async with api.ask("GET", PODS, headers={"Audit-Id": "mine"}) as answer:
        assert answer.headers["Audit-Id"] == "mine"
        assert {"X-Kubernetes-PF-FlowSchema-UID", "X-Kubernetes-PF-PriorityLevel-UID"} <= set(answer.headers)
    async with api.ask("GET", "/nope") as answer:
        assert len(answer.headers["Audit-Id"]) == 36


async def test_unknown_things_are_not_found(api):
    for path in ("/nope", "/api/v2/pods", "/api/v1/foos", "/apis/apps/v9/deployments", f"{PODS}/x/nope"):
        status = await api.json("GET", path, code=404)
        assert status["message"] == "the server could not find the requested resource"
    await api.json("PUT", PODS, json={}, code=405)
    status = await api.json("DELETE", "/api/v1/namespaces", code=405)
    assert status["message"] == "the server does not allow this method on the requested resource"


async def test_many_requests_share_a_connection(api):
    await api.create(MAPS, config_map())
    answers = await asyncio.gather(*(api.json("GET", f"{MAPS}/m") for _ in range(50)))
    assert len({json.dumps(each) for each in answers}) == 1


async def test_an_eviction_is_read_in_the_version_of_old_clients_too(api):
    await api.create(PODS, {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    for version, code in (("policy/v1beta1", 201), ("policy/v1", 201), ("policy/v2", 400)):
        eviction = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}}
        await api.json("POST", f"{PODS}/p/eviction", json=eviction, code=code)


async def test_a_namespace_is_asked_for_in_itself(api):
    """A role that is bound in a namespace counts for the namespace, as its administrators' tools expect."""
    status = await api.json("GET", "/api/v1/namespaces/a", user="alice", code=403)
    assert status["message"] == (
        'namespaces "a" is forbidden: User "alice" cannot get resource "namespaces" in API group "" in the namespace "a"'
    )


async def test_a_body_that_does_not_come_is_not_waited_for(api, monkeypatch):
    monkeypatch.setattr(http, "BODY_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(
        f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nContent-Length: 9\r\n\r\n{{".encode()
    )
    async with asyncio.timeout(5):
        assert b" 504 " in await reader.readline()
    writer.close()


async def test_bytes_that_are_no_utf8_are_answered(api):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(f"GET {MAPS}/a".encode() + b"\xff HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n")
    writer.write(b"Connection: close\r\n\r\n")
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert b" 404 " in head.partition(b"\r\n")[0]
    assert json.loads(body)["message"] == 'configmaps "a?" not found'
    writer.close()


async def test_a_large_body_is_read_beside_the_event_loop(api, monkeypatch):
    threads, parse = [], http.parse_document

    def noting(*args):
        threads.append(threading.current_thread())
        return parse(*args)

    monkeypatch.setattr(http, "parse_document", noting)
    await api.create(MAPS, config_map("small"))
    await api.create(MAPS, config_map("large", data={"a": "x" * http.LARGE_BYTES}))
    assert [each is threading.main_thread() for each in threads] == [True, False]


def test_json_that_is_called_yaml_is_read_as_json(monkeypatch):
    apply = "application/apply-patch+yaml"
    told: list[str] = []
    assert http.parse_document(b"{a: 1}", apply, told) == {"a": 1}
    assert http.parse_document(b'{"a": 1,\n"a": 2}', apply, told) == {"a": 2}
    assert told == ['line 2: key "a" already set in map'], "what YAML's reader says is said"
    monkeypatch.setattr(yaml_bodies, "_check_events", None)
    assert http.parse_document(b' {"a": [1, "1", 1.5, null]}', apply, told) == {"a": [1, "1", 1.5, None]}
