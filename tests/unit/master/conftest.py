"""A REST server over the fake registry, on a free port of this machine."""

import asyncio
import contextlib
import typing

import aiohttp
import pytest

from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.default_roles import default_objects
from master.access.gate import Gate
from master.access.policies import RegistryPolicies
from master.access.user import User
from master.rest.node_agents import NodeAgents
from master.rest.server import RestServer
from tests.unit.master.rest.fake_agent import FakeAgent
from tests.unit.master.rest.fake_registry import FakeRegistry

ADMIN = User("admin", ("system:masters",))
ALICE = User("alice", ("devs",))


class Tokens:
    """Bearer tokens that are the names of users."""

    users: typing.ClassVar = {"admin": ADMIN, "alice": ALICE, "node": User("system:node:n1", ("system:nodes",))}

    async def verify(self, token):
        return self.users.get(token)


class Api:
    """A running server and a client that speaks to it as admin unless told otherwise."""

    def __init__(self, registry, server, url, session):
        self.registry = registry
        self.server = server
        self.url = url
        self.session = session

    @contextlib.asynccontextmanager
    async def ask(self, method, path, *, user="admin", headers=None, **more):
        given = {"Authorization": f"Bearer {user}"} if user else {}
        async with self.session.request(
            method, self.url + path, headers={**given, **(headers or {})}, **more
        ) as answer:
            yield answer

    async def json(self, method, path, *, code=200, **more):
        async with self.ask(method, path, **more) as answer:
            document = await answer.json(content_type=None)
            assert answer.status == code, document
            return document

    async def create(self, path, document, *, code=201, **more):
        return await self.json("POST", path, json=document, code=code, **more)


async def until(done):
    """Wait, a little at a time and not for long, for what another task does; nothing there can be awaited."""
    async with asyncio.timeout(5):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def registry():
    return FakeRegistry()


@pytest.fixture
async def agent():
    agent = FakeAgent()
    await agent.start()
    yield agent
    await agent.stop()


@pytest.fixture
async def api(registry, agent):
    agents = NodeAgents(None)
    # The default roles lie apart, so that a test sees only the objects that it makes.
    authorizer = Authorizer(RegistryPolicies(FakeRegistry().furnish(default_objects())))
    server = RestServer(registry, Gate(Authenticator([Tokens()]), authorizer), agents=agents, address="10.0.0.1:6443")
    port = await server.start("127.0.0.1", 0, None)
    async with aiohttp.ClientSession(auto_decompress=True) as session:
        yield Api(registry, server, f"http://127.0.0.1:{port}", session)
    await server.stop()
    await agents.close()


@pytest.fixture
async def pod(api, agent):
    """A pod called web with container a, on a node whose agent is the fake one."""
    node = {
        "metadata": {"name": "n1"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port}},
        },
    }
    await api.create("/api/v1/nodes", node)
    web = {
        "metadata": {"name": "web"},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}]},
        "status": {"phase": "Running"},
    }
    return await api.create("/api/v1/namespaces/default/pods", web)
