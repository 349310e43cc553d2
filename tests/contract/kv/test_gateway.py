"""The API as JSON over HTTP: the same answers from ours and from a real etcd."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.contract.kv.stores import Store

CORS = {
    "Access-Control-Allow-Headers": "accept, content-type, authorization",
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin": "*",
}
STORE_OWN = ("cluster_id", "member_id", "raft_term", "revision")


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class Http:
    """One member's HTTP door."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.url = f"http://{address}"

    async def call(self, path: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        """Return the answer without what is a store's own."""
        async with self.session.post(self.url + path, json={} if body is None else body, **more) as response:
            assert response.status == status, await response.text()
            assert response.content_type == "application/json"
            answer = json.loads(await response.text())
        if "header" in answer:
            header = answer["header"]
            assert header["member_id"].isdecimal()
            answer["header"] = {name: value for name, value in header.items() if name not in STORE_OWN}
        return answer

    async def lines(self, path: str, body: Any, count: int) -> list[Any]:
        """Return the first lines of a stream."""
        found: list[Any] = []
        async with self.session.post(self.url + path, json=body) as response:
            async for line in response.content:
                if line.strip():
                    found.append(json.loads(line))
                if len(found) == count:
                    return found
        return found


@pytest.fixture
async def http(store: Store) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield Http(session, store.http[-1])


async def test_keys_are_written_and_read(http: Http, prefix: bytes) -> None:
    key, end = b64(prefix + b"a"), b64(prefix + b"b")
    assert await http.call("/v3/kv/put", {"key": key, "value": b64(b"1")}) == {"header": {}}
    put = await http.call("/v3/kv/put", {"key": key, "value": b64(b"2"), "prev_kv": True})
    assert put["prev_kv"]["value"] == b64(b"1")
    found = await http.call("/v3/kv/range", {"key": key, "rangeEnd": end, "limit": "1", "sort_order": "DESCEND"})
    (kv,) = found["kvs"]
    assert found["count"] == "1"
    assert "more" not in found  # what is false, 0 or empty is left out
    assert (kv["key"], kv["value"], kv["version"]) == (key, b64(b"2"), "2")
    assert kv["mod_revision"].isdecimal()
    assert await http.call("/v3/kv/deleterange", {"key": key}) == {"header": {}, "deleted": "1"}
    assert await http.call("/v3beta/kv/range", {"key": key}) == {"header": {}}


async def test_transactions(http: Http, prefix: bytes) -> None:
    key = b64(prefix)
    request = {
        "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": 0}],
        "success": [{"request_put": {"key": key, "value": b64(b"1")}}],
        "failure": [{"requestRange": {"key": key}}],
    }
    first = await http.call("/v3/kv/txn", request)
    assert first["succeeded"] is True
    assert list(first["responses"][0]) == ["response_put"]
    second = await http.call("/v3/kv/txn", request)
    assert "succeeded" not in second
    assert second["responses"][0]["response_range"]["kvs"][0]["value"] == b64(b"1")


async def test_leases(http: Http, prefix: bytes) -> None:
    granted = await http.call("/v3/lease/grant", {"TTL": 60})
    assert granted["TTL"] == "60"
    lease = granted["ID"]
    await http.call("/v3/kv/put", {"key": b64(prefix), "lease": lease})
    for path in ("/v3/lease/timetolive", "/v3/kv/lease/timetolive"):
        look = await http.call(path, {"ID": lease, "keys": True})
        assert (look["grantedTTL"], look["keys"]) == ("60", [b64(prefix)])
    assert {"ID": lease} in (await http.call("/v3/lease/leases"))["leases"]
    (renewed,) = await http.lines("/v3/lease/keepalive", {"ID": lease}, 2)  # then the stream ends
    assert (renewed["result"]["ID"], renewed["result"]["TTL"]) == (lease, "60")
    assert await http.call("/v3/lease/revoke", {"ID": lease}) == {"header": {}}


async def test_watches_go_on_after_the_request_has_ended(http: Http, prefix: bytes) -> None:
    put = {"key": b64(prefix), "value": b64(b"1")}
    watch = {"create_request": {"key": b64(prefix)}}
    lines = asyncio.create_task(http.lines("/v3/watch", watch, 2))
    while not lines.done():
        await http.call("/v3/kv/put", put)
    created, told = await lines
    assert created["result"]["created"] is True
    (event, *_) = told["result"]["events"]
    assert "type" not in event  # PUT is the first of its kind
    assert (event["kv"]["key"], event["kv"]["value"]) == (b64(prefix), b64(b"1"))


async def test_several_requests_on_one_stream(http: Http, prefix: bytes) -> None:
    creates = [json.dumps({"create_request": {"key": b64(prefix), "watch_id": i}}) for i in (7, 8)]
    async with http.session.post(http.url + "/v3/watch", data="".join(creates)) as response:
        created = [json.loads(await response.content.readline())["result"] for _ in creates]
    assert [(one["watch_id"], one["created"]) for one in created] == [("7", True), ("8", True)]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "text"),
    [
        pytest.param("/v3/kv/range", {}, 400, 3, "etcdserver: key is not provided", id="invalid"),
        pytest.param(
            "/v3/kv/range",
            {"key": "YQ==", "revision": str(1 << 40)},
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
            id="out of range",
        ),
        pytest.param(
            "/v3/lease/revoke", {"ID": 12345}, 404, 5, "etcdserver: requested lease not found", id="not found"
        ),
        pytest.param("/v3/auth/enable", {}, 412, 9, "etcdserver: root user does not exist", id="precondition"),
        pytest.param("/v3/election/leader", {"name": "YQ=="}, 500, 2, "election: no leader", id="unknown"),
    ],
)
async def test_refusals(http: Http, path: str, body: Any, status: int, code: int, text: str) -> None:
    answer = await http.call(path, body, status=status)
    assert answer == {"error": text, "message": text, "code": code}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        pytest.param(
            "/v3/kv/put", {"key": "ag==", "value": "hello world!"}, "illegal base64 data at input byte 5", id="base64"
        ),
        pytest.param("/v3/kv/put", {"key": "ag", "value": "YQ=="}, "illegal base64 data at input byte 0", id="padding"),
        pytest.param(
            "/v3/kv/txn",
            {"compare": [{"key": "YQ==", "target": "VALUES"}]},
            'unknown value "VALUES" for enum etcdserverpb.Compare_CompareTarget',
            id="compare",
        ),
        pytest.param(
            "/v3/auth/role/grant",
            {"name": "none", "perm": {"permType": "WRITEONLY", "key": "YQ=="}},
            'unknown value "WRITEONLY" for enum authpb.Permission_Type',
            id="permission",
        ),
        pytest.param(
            "/v3/maintenance/alarm",
            {"action": "DISARM"},
            'unknown value "DISARM" for enum etcdserverpb.AlarmRequest_AlarmAction',
            id="alarm",
        ),
        pytest.param(
            "/v3/auth/role/grant",
            {"perm": "READ"},
            "json: cannot unmarshal string into Go value of type map[string]json.RawMessage",
            id="no object",
        ),
    ],
)
async def test_what_is_no_value_of_a_field_is_not_taken_for_another(
    http: Http, path: str, body: Any, text: str
) -> None:
    assert await http.call(path, body, status=400) == {"error": text, "message": text, "code": 3}


async def test_what_is_no_json(http: Http) -> None:
    async with http.session.post(http.url + "/v3/kv/range", data="nojson") as response:
        assert response.status == 400
        assert json.loads(await response.text())["code"] == 3


@pytest.mark.parametrize("body", ["[" * 5000, "[" * 5000 + "]" * 5000], ids=["open", "closed"])
async def test_what_is_nested_too_deep(http: Http, body: str) -> None:
    async with http.session.post(http.url + "/v3/kv/range", data=body) as response:
        assert response.status == 400
        assert json.loads(await response.text())["code"] == 3


@pytest.mark.parametrize(
    "body", ["nojson", "{", '{"ID": "x', "[" * 5000, "[" * 5000 + "]" * 5000, '"text"'], ids=lambda body: body[:9]
)
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/v3/watch", 500, 2, id="watch"),
        pytest.param("/v3/lease/keepalive", 500, 2, id="keepalive"),
        pytest.param("/v3/maintenance/snapshot", 400, 3, id="snapshot"),
        pytest.param("/v3/election/observe", 400, 3, id="observe"),
    ],
)
async def test_a_stream_that_begins_with_no_request(http: Http, path: str, body: str, status: int, code: int) -> None:
    async with http.session.post(http.url + path, data=body) as response:
        assert (response.status, response.content_type) == (status, "application/json")
        answer = json.loads(await response.text())
    assert answer["error"] == answer["message"] != ""
    assert answer["code"] == code


async def test_a_watch_of_what_is_no_filter(http: Http) -> None:
    watch = {"create_request": {"key": "YQ==", "filters": ["X"]}}
    text = 'unknown value "X" for enum etcdserverpb.WatchCreateRequest_FilterType'
    assert await http.call("/v3/watch", watch, status=500) == {"error": text, "message": text, "code": 2}


async def test_the_head_of_metrics(http: Http) -> None:
    async with http.session.head(http.url + "/metrics") as response:
        assert (response.status, response.content_type) == (200, "text/plain")


async def test_hashes(http: Http) -> None:
    """One is of the whole state, which is of no revision; the other one of the keys, and 3.4 gives it no path."""
    assert (await http.call("/v3/maintenance/hash", {"revision": str(1 << 40)}))["hash"] > 0


async def test_a_stream_without_requests(http: Http) -> None:
    async with http.session.post(http.url + "/v3/lease/keepalive") as response:
        assert (response.status, await response.text()) == (200, "")


@pytest.mark.parametrize("body", ["null", " ", '{"made_up": 1} and more'])
async def test_what_says_nothing_is_an_empty_message(http: Http, body: str) -> None:
    async with http.session.post(http.url + "/v3/maintenance/status", data=body) as response:
        assert json.loads(await response.text())["version"].startswith("3.")


async def test_a_body_may_be_missing_and_unknown_fields_are_ignored(http: Http) -> None:
    async with http.session.post(http.url + "/v3/maintenance/status") as response:
        assert json.loads(await response.text())["version"].startswith("3.")
    assert "header" in await http.call("/v3/kv/range", {"key": "YQ==", "made_up": 1})


@asynccontextmanager
async def callers_asked(http: Http) -> AsyncIterator[dict[str, str]]:
    """Let the store ask callers who they are; give the headers of root."""
    root = {"name": "root", "password": "secret"}
    await http.call("/v3/auth/user/add", root)
    await http.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
    await http.call("/v3/auth/enable")
    headers = {"Authorization": (await http.call("/v3/auth/authenticate", root))["token"]}
    try:
        yield headers
    finally:
        await http.call("/v3/auth/disable", headers=headers)
        await http.call("/v3/auth/user/delete", {"name": "root"})


async def test_a_wrong_token_is_refused(http: Http) -> None:
    async with callers_asked(http) as headers:
        for token in ("abcdefghijklmnop.1", ""):
            for name in ("Authorization", "Grpc-Metadata-Token"):
                answer = await http.call("/v3/kv/range", {"key": "YQ=="}, status=401, headers={name: token})
                assert answer["message"] == "etcdserver: invalid auth token"
        await http.call("/v3/kv/range", {"key": "YQ=="}, headers=headers)


async def test_a_stream_that_fails_before_its_first_answer_has_a_status(http: Http) -> None:
    async with callers_asked(http), http.session.post(http.url + "/v3/maintenance/snapshot", json={}) as response:
        error = json.loads(await response.text())["error"]
    assert response.status == error["http_code"] >= 400  # which of them, 3.4 knows less well
    assert error["message"].endswith(": user name is empty")


@pytest.mark.parametrize("path", ["/v3/nothing", "/"])
async def test_other_paths(http: Http, path: str) -> None:
    async with http.session.post(http.url + path) as response:
        assert response.status == 404


async def test_only_post(http: Http) -> None:
    async with http.session.get(http.url + "/v3/kv/range") as response:
        assert response.status == 405


async def test_health_version_and_metrics(http: Http, store: Store) -> None:
    async with http.session.get(http.url + "/health") as response:
        assert (response.status, json.loads(await response.text())["health"]) == (200, "true")
    async with http.session.get(http.url + "/version") as response:
        versions = json.loads(await response.text())
        assert versions["etcdcluster"].startswith("3.")
        assert versions["etcdserver"].startswith("3.")
    async with http.session.get(http.url + "/metrics") as response:
        assert "etcd_server_has_leader 1" in await response.text()
    async with http.session.put(http.url + "/version") as response:
        assert response.status == 405


@pytest.mark.parametrize("path", ["/v3/kv/range", "/health", "/nothing"])
async def test_browsers_ask_whether_they_may(http: Http, path: str) -> None:
    headers = {"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"}
    async with http.session.options(http.url + path, headers=headers) as response:
        assert (response.status, await response.text()) == (200, "")
        assert {name: response.headers[name] for name in CORS} == CORS


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v3/kv/range", {"key": "YQ=="}, id="answer"),
        pytest.param("/v3/kv/range", {}, id="refusal"),
        pytest.param("/v3/lease/keepalive", {"ID": 7}, id="stream"),
        pytest.param("/v3/lease/keepalive", 7, id="stream that begins with no request"),
        pytest.param("/health", {}, id="wrong method"),
        pytest.param("/nothing", {}, id="no such path"),
    ],
)
async def test_browsers_may_read_every_answer(http: Http, path: str, body: Any) -> None:
    async with http.session.post(http.url + path, json=body, headers={"Origin": "http://elsewhere"}) as response:
        assert {name: response.headers[name] for name in CORS} == CORS


async def test_an_alarm_is_no_health(http: Http) -> None:
    member = (await http.session.post(http.url + "/v3/maintenance/status", json={})).json(content_type=None)
    alarm = {"memberID": (await member)["header"]["member_id"], "alarm": "NOSPACE"}
    await http.call("/v3/maintenance/alarm", alarm | {"action": "ACTIVATE"})
    try:
        async with http.session.get(http.url + "/health") as response:
            assert (response.status, json.loads(await response.text())["health"]) == (503, "false")
        async with http.session.get(http.url + "/health?exclude=NOSPACE") as response:
            assert (response.status, json.loads(await response.text())["health"]) == (200, "true")
    finally:
        await http.call("/v3/maintenance/alarm", alarm | {"action": "DEACTIVATE"})
