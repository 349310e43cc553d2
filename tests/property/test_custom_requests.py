"""Whatever definitions and custom objects clients send, a master answers in order: never a 5xx, never a traceback."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client.etcd import EtcdClient
from master.access.authentication import Authenticator
from master.access.gate import Gate
from master.rest.server import RestServer
from tests.contract.kv.stores import Store, ours
from tests.contract.storage.conftest import Cluster, running_core
from tests.contract.storage.test_custom import DEFINITIONS, controllers, define, definition
from tests.property.test_custom_values import SCHEMAS, VALUES
from tests.property.test_rest_requests import JSON, ask
from tests.unit.master.conftest import Api, Tokens

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYWORDS = st.sampled_from([
    "type", "properties", "items", "additionalProperties", "required", "enum", "default", "pattern", "format", "anyOf", "allOf", "oneOf",
    "not", "nullable", "minimum", "maximum", "multipleOf", "minLength", "maxItems", "$ref", "definitions", "uniqueItems", "description",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations", "exclusiveMinimum", "title",
])  # fmt: skip
WORDS = st.sampled_from(
    ["object", "array", "string", "integer", "map", "set", "atomic", "a", "(", "^a$", "date-time", "self.a > 1", "rule"]
)
WILD_SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | WORDS, inner, max_size=5),
    max_leaves=20,
)
PATHS = st.sampled_from(["", "/a", "/a/status", "/a/scale", "/b"])
TYPES = {"PATCH": ["application/merge-patch+json", "application/json-patch+json", "application/apply-patch+yaml"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with ours(tmp_path_factory.mktemp("memory"), members=1, engine="memory") as running:
        yield running


@pytest.fixture
async def real(store: Store, tmp_path: Path) -> AsyncIterator[tuple[Cluster, Api]]:
    """A master's core behind a REST server, with controllers, that serves widgets."""
    async with EtcdClient(store.endpoints) as client:
        await client.delete(b"\0", b"\0")
        async with running_core(client) as core:
            cluster = Cluster(core)
            await cluster.create("namespaces", {"metadata": {"name": "default"}})
            server = RestServer(
                core.registry, Gate(Authenticator([Tokens()]), core.authorizer), address="10.0.0.1:6443"
            )
            port = await server.start("127.0.0.1", 0, None)
            async with controllers(cluster):
                await define(cluster, definition())
                yield cluster, Api(core.registry, server, f"http://127.0.0.1:{port}", None)
            await server.stop()


def check(status: int, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert status < 500, body
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@SETTINGS
@given(schema=WILD_SCHEMAS, spec=JSON, wild=st.booleans())
async def test_any_definition(
    real: tuple[Cluster, Api], caplog: pytest.LogCaptureFixture, *, schema: Any, spec: Any, wild: bool
) -> None:
    _, api = real
    document: dict[str, Any] = definition(plural="anythings", kind="Anything")
    document["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    if wild and isinstance(spec, dict):
        document["spec"] |= spec
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for query in ((), (("fieldValidation", "Strict"),)):
        status, body = await ask(api, "POST", path, body=json.dumps(document).encode(), query=query)
        check(status, body, caplog)
    if status == 201:
        check(*await ask(api, "GET", "/openapi/v3/apis/example.com/v1"), caplog)
        check(*await ask(api, "DELETE", f"{path}/anythings.example.com"), caplog)


@SETTINGS
@given(
    method=st.sampled_from(["POST", "PUT", "PATCH"]),
    where=PATHS,
    content=st.integers(0, 2),
    document=JSON,
    field=st.booleans(),
)
@example(method="PATCH", where="/a/scale", content=2, document=[0], field=True)
@example(method="PATCH", where="/a", content=2, document={"metadata": [1]}, field=False)
async def test_any_object(
    real: tuple[Cluster, Api],
    caplog: pytest.LogCaptureFixture,
    *,
    method: str,
    where: str,
    content: int,
    document: Any,
    field: bool,
) -> None:
    _, api = real
    path = f"/apis/example.com/v1/namespaces/default/widgets{where}"
    whole = {"metadata": {"name": "a"}, "spec": document, "status": document} if field else document
    types = TYPES.get(method, ["application/json"])
    body = json.dumps(whole).encode()
    query = [("fieldManager", "me")] if method == "PATCH" else []
    check(*await ask(api, method, path, body=body, content_type=types[content % len(types)], query=query), caplog)
    accept = "/apis/example.com/v1/widgets"
    check(*await ask(api, "GET", accept, query=[("fieldSelector", "spec.color%3Dred")]), caplog)


@SETTINGS
@given(schema=SCHEMAS, value=VALUES, other=VALUES)
async def test_any_object_of_any_schema(
    real: tuple[Cluster, Api], caplog: pytest.LogCaptureFixture, schema: dict[str, Any], value: Any, other: Any
) -> None:
    """Goal: what a schema accepted when it was written stays readable and writable. Method: a kind for each schema."""
    cluster, api = real
    document = definition(plural="anythings", kind="Anything")
    version = document["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": schema}}
    for name in ("subresources", "selectableFields"):
        del version[name]
    await define(cluster, document)
    path = "/apis/example.com/v1/namespaces/default/anythings"
    try:
        for method, where, spec in (
            ("POST", "", value),
            ("GET", "/a", None),
            ("PATCH", "/a", other),
            ("GET", "/a", None),
        ):
            body = b"" if method == "GET" else json.dumps({"metadata": {"name": "a"}, "spec": spec}).encode()
            content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
            check(*await ask(api, method, path + where, body=body, content_type=content_type), caplog)
    finally:
        await cluster.delete(DEFINITIONS, "anythings.example.com")
        from tests.contract.storage.test_custom import until

        await until(lambda: cluster.registry.table.defined_by("anythings.example.com") is None)
