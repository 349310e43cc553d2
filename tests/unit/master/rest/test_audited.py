"""Of whom and of what the server tells the audit log."""

import asyncio
import json

import aiohttp
import pytest

from master.access.audit import AuditLog
from master.access.authentication import Authenticator
from master.access.authorization import Authorizer
from master.access.default_roles import default_objects
from master.access.gate import Gate
from master.access.policies import RegistryPolicies
from master.rest.server import RestServer
from tests.unit.master.conftest import Tokens
from tests.unit.master.rest.fake_registry import FakeRegistry

PODS = "/api/v1/namespaces/default/pods"


class File:
    def __init__(self):
        self.lines = []

    def write(self, lines):
        self.lines += lines


@pytest.fixture
async def port_and_log(registry):
    audit = AuditLog(File())
    authorizer = Authorizer(RegistryPolicies(FakeRegistry().furnish(default_objects())))
    server = RestServer(registry, Gate(Authenticator([Tokens()]), authorizer, audit=audit))
    yield await server.start("127.0.0.1", 0, None), audit
    await server.stop()


def events(audit):
    return [json.loads(line) for line in audit._take()]


@pytest.mark.parametrize(
    ("headers", "code", "user"),
    [
        ({"Authorization": "Bearer unknown"}, 401, {}),
        (
            {"Authorization": "Bearer alice", "Impersonate-User": "admin"},
            403,
            {"username": "alice", "groups": ["devs"]},
        ),
        ({}, 403, {"username": "system:anonymous", "groups": ["system:unauthenticated"]}),
    ],
)
async def test_who_is_refused_is_told_of(port_and_log, headers, code, user):
    port, audit = port_and_log
    url = f"http://127.0.0.1:{port}{PODS}"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == code
    (event,) = events(audit)
    assert (event["responseStatus"]["code"], event["verb"], event["objectRef"]["resource"]) == (code, "list", "pods")
    assert "impersonatedUser" not in event
    groups = set(event["user"].pop("groups", ())) - {"system:authenticated"}
    assert event["user"] | ({"groups": sorted(groups)} if groups else {}) == user


async def test_no_bytes_of_a_client_hide_what_it_does(port_and_log):
    port, audit = port_and_log
    body = json.dumps({"metadata": {"name": "m"}}).encode()
    head = (
        b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n"
        b"User-Agent: \xff\xfe\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + body)
    async with asyncio.timeout(5):
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")
    writer.close()
    (event,) = events(audit)
    assert (event["verb"], event["objectRef"]["resource"]) == ("create", "configmaps")
