"""Whatever a client sends, the REST server answers in order: never a 5xx, never a traceback, never silence."""

import asyncio
import json
import logging

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.kinds.table import ROWS
from master.rest.http import parse_document

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "BREW"])
CONTENT_TYPES = st.sampled_from([
    "application/json", "application/yaml", "application/merge-patch+json", "application/json-patch+json",
    "application/strategic-merge-patch+json", "application/apply-patch+yaml", "text/plain", "application/json; charset=x",
    "", ";", "application/vnd.kubernetes.protobuf",
])  # fmt: skip
KEYS = st.sampled_from(
    ["metadata", "name", "namespace", "spec", "status", "labels", "kind", "apiVersion", "containers", "x"]
) | st.text(max_size=5)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
PATHS = st.builds(
    lambda row, words: "/".join(["", *(("apis", row.group) if row.group else ("api",)), row.version, *words]),
    st.sampled_from(ROWS),
    st.lists(
        st.sampled_from(
            [
                "namespaces",
                "default",
                "pods",
                "m",
                "status",
                "scale",
                "log",
                "exec",
                "..",
                ".",
                "%2e",
                "%00",
                "%ff",
                "a%2Fb",
                "",
            ]
        )
        | st.sampled_from([row.plural for row in ROWS]),
        max_size=6,
    ),
)
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "watch",
                "limit",
                "continue",
                "resourceVersion",
                "labelSelector",
                "fieldSelector",
                "dryRun",
                "pretty",
                "force",
                "fieldManager",
                "gracePeriodSeconds",
                "timeoutSeconds",
            ]
        ),
        st.sampled_from(["", "1", "0", "-1", "true", "x", "!", "a=b", "All", "99999999999999999999", "%00", "%f0"]),
    ),
    max_size=3,
).map(lambda pairs: [pair for pair in pairs if pair[0] != "watch" or pair[1] == "0"])


async def ask(api, method, path, *, body=b"", content_type="application/json", query=()):
    """One request on a connection of its own, written byte by byte as given; returns (status, body)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    target = path + ("?" + "&".join(f"{key}={value}" for key, value in query) if query else "")
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\nConnection: close\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode("latin-1", "replace") + body)
    try:
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    status_line, _, rest = answer.partition(b"\r\n")
    return int(status_line.split()[1]), rest.partition(b"\r\n\r\n")[2]


def check(status, body, caplog):
    assert status < 500, body
    if status >= 400 and body.startswith(b"{"):
        assert json.loads(body)["code"] == status
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@SETTINGS
@given(method=METHODS, path=PATHS, query=QUERIES, content_type=CONTENT_TYPES, document=JSON)
async def test_any_document_anywhere(api, caplog, method, path, query, content_type, document):
    body = json.dumps(document).encode()
    check(*await ask(api, method, path, body=body, content_type=content_type, query=query), caplog)


@SETTINGS
@given(method=METHODS, path=PATHS, content_type=CONTENT_TYPES, body=st.binary(max_size=60))
async def test_any_bytes_anywhere(api, caplog, method, path, content_type, body):
    check(*await ask(api, method, path, body=body, content_type=content_type), caplog)


@SETTINGS
@given(row=st.sampled_from(ROWS), document=JSON, yaml_=st.booleans())
async def test_any_object_of_any_kind(api, caplog, row, document, yaml_):
    root = f"/apis/{row.group_version}" if row.group else "/api/v1"
    path = f"{root}/namespaces/default/{row.plural}" if row.namespaced else f"{root}/{row.plural}"
    full = {"metadata": {"name": "m"}, "spec": document, "status": document, "data": document}
    body = yaml.safe_dump(full).encode() if yaml_ else json.dumps(full).encode()
    content_type = "application/yaml" if yaml_ else "application/json"
    check(*await ask(api, "POST", path, body=body, content_type=content_type), caplog)
    check(*await ask(api, "GET", path, query=[("pretty", "1")]), caplog)


@SETTINGS
@given(request=st.binary(min_size=1, max_size=200))
@example(request=b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n")
@example(request=b"GET / HTTP/9.9\r\n\r\n")
@example(request=b"POST /api/v1/nodes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
@example(request=b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
@example(request=b"GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\n\x80\x03")
async def test_any_bytes_instead_of_http(api, caplog, request):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(request)
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert not answer or b" 5" not in answer[:13], answer
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (await ask(api, "GET", "/healthz"))[0] == 200


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_what_is_parsed_is_json(content_type, data):
    from api.errors import BadRequest

    try:
        value = parse_document(data, content_type, [])
    except BadRequest:
        return
    msgspec.json.encode(value)
