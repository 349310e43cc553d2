"""Whatever the published OpenAPI documents let a client send, a master answers in order: no 5xx, no traceback.

Goal: what a stub registry cannot show: admission, defaults, validation, allocation, patches and printing of every
built-in kind, on objects that came the same way. Method: requests drawn from the documents that the server itself
publishes, sent to the real registry over the memory engine; the seed that fails draws the same requests again.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from api.kinds.table import ROWS
from client.etcd import EtcdClient
from master.access.authentication import Authenticator
from master.access.gate import Gate
from master.rest.node_agents import NodeAgents
from master.rest.routes import CONNECTED
from master.rest.server import RestServer
from tests.contract.kv.stores import Store, ours
from tests.contract.storage.conftest import Cluster, running_core
from tests.property.openapi_requests import Drawn, Requests
from tests.property.protobuf_bodies import any_kind, body
from tests.unit.master.conftest import Tokens

REQUESTS = 250  # of each seed
OFTEN = 12  # the core's document has most of the kinds that matter to others


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with ours(tmp_path_factory.mktemp("memory"), members=1, engine="memory") as running:
        yield running


@pytest.fixture
async def session(store: Store) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a master with an empty store."""
    async with EtcdClient(store.endpoints) as client:
        await client.delete(b"\0", b"\0")
        async with running_core(client) as core:
            for name in ("default", "kube-system"):
                await Cluster(core).create("namespaces", {"metadata": {"name": name}})
                await Cluster(core).create("serviceaccounts", {"metadata": {"name": "default"}}, namespace=name)
            agents = NodeAgents(None)
            server = RestServer(
                core.registry, Gate(Authenticator([Tokens()]), core.authorizer), agents=agents, address="10.0.0.1:6443"
            )
            port = await server.start("127.0.0.1", 0, None)
            headers = {"Authorization": "Bearer admin"}
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
                yield session
            await server.stop()
            await agents.close()


@pytest.mark.parametrize("odd", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("seed", range(2))
async def test_no_request_is_too_much(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, *, seed: int, odd: float
) -> None:
    rng = random.Random(seed)
    documents = await _documents(session)
    roots = [*documents, *["api/v1"] * OFTEN]
    made = 0
    for _ in range(REQUESTS):
        drawn = Requests(documents[rng.choice(roots)], rng, odd=odd).draw()
        code, text = await _ask(session, drawn)
        behind = drawn.path.rpartition("/")[2] in CONNECTED  # there is no node that could answer
        assert code < 500 or (behind and code in (502, 503)), (drawn, text)
        told = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not told, (drawn, told[0].exc_info)
        made += code == 201
    assert made > 5, "hardly anything was accepted: what comes after the first check was not tried"


async def _documents(session: aiohttp.ClientSession) -> dict[str, Any]:
    """Return group version -> its OpenAPI document."""
    async with session.get("/openapi/v3") as answer:
        roots = sorted((await answer.json())["paths"])
    found = {}
    for root in roots:
        async with session.get(f"/openapi/v3/{root}") as answer:
            found[root] = await answer.json()
    return found


async def _ask(session: aiohttp.ClientSession, drawn: Drawn) -> tuple[int, str]:
    query = {"params": drawn.query, "headers": drawn.headers, "data": drawn.body}
    async with asyncio.timeout(20), session.request(drawn.method, drawn.path, **query) as answer:
        return answer.status, await answer.text(errors="replace")


@pytest.mark.parametrize("odd", [0.0, 0.05])
async def test_no_object_in_protobuf_is_too_much(
    session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, *, odd: float
) -> None:
    """Goal: the same for what Go clients send. Method: messages by the published field numbers, of every kind."""
    rng = random.Random(7)
    read = 0
    for _ in range(300):
        kind = any_kind(ROWS, rng)
        root = f"/apis/{kind.group_version}" if kind.group else "/api/v1"
        path = f"{root}/namespaces/default/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
        name = rng.choice("abc")
        method, where = rng.choice((("POST", path), ("PUT", f"{path}/{name}")))
        headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
        code, text = await _ask(session, Drawn(method, where, [], headers, body(kind, name, rng, odd=odd)))
        assert code < 500, (kind, text)
        told = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not told, (kind, told[0].exc_info)
        read += code in (200, 201, 404, 409, 422)
    assert read > 100, "hardly anything could be read"
