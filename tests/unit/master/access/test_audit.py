"""The audit log: what a policy lets be told of whom, what is never told, and files that do not grow for ever."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from master.access.audit import (
    DEFAULT_POLICY,
    AuditFile,
    AuditLog,
    Policy,
    PolicyRule,
    Told,
    load_policy,
    pick_rule,
    render,
)
from master.access.rules import Request
from master.access.user import AUTHENTICATED, User

ALICE = User("alice", ("devs", AUTHENTICATED))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))


def policy(*rules):
    return msgspec.convert({"rules": list(rules)}, Policy)


GET_POD = Request(ALICE, "get", "", "pods", "", "shop", "p")
LOG = Request(ALICE, "get", "", "pods", "log", "shop", "p")
PATH = Request(ALICE, "get", path="/metrics/x")


@pytest.mark.parametrize(
    ("rule", "request_", "matches"),
    [
        ({}, GET_POD, True),
        ({}, PATH, True),
        ({"users": ["bob"]}, GET_POD, False),
        ({"userGroups": ["devs"]}, GET_POD, True),
        ({"userGroups": ["ops"]}, GET_POD, False),
        ({"verbs": ["list"]}, GET_POD, False),
        ({"namespaces": ["shop"]}, GET_POD, True),
        ({"namespaces": ["kube-system"]}, GET_POD, False),
        ({"namespaces": ["shop"]}, PATH, False),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, GET_POD, True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, LOG, False),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, LOG, True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, GET_POD, False),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, LOG, True),
        ({"resources": [{"group": ""}]}, LOG, True),
        ({"resources": [{"group": "apps"}]}, GET_POD, False),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["q"]}]}, GET_POD, False),
        ({"nonResourceURLs": ["/metrics*"]}, PATH, True),
        ({"nonResourceURLs": ["/metrics"]}, PATH, False),
        ({"nonResourceURLs": ["/metrics*"]}, GET_POD, False),
    ],
)
def test_rules(rule, request_, matches):
    found = pick_rule(policy({"level": "Metadata", **rule}), request_)
    assert (found.level == "Metadata") is matches


def test_the_first_rule_counts():
    rules = policy({"level": "None", "users": ["alice"]}, {"level": "Request"})
    assert pick_rule(rules, GET_POD).level == "None"
    assert pick_rule(rules, GET_POD._replace(user=NODE)).level == "Request"


@pytest.mark.parametrize(
    ("request_", "level"),
    [
        (GET_POD, "Metadata"),
        (Request(NODE, "patch", "", "nodes", "status", "", "n1"), "None"),
        (Request(NODE, "update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n1"), "None"),
        (Request(NODE, "watch", "", "pods"), "None"),
        (Request(NODE, "create", "", "serviceaccounts", "token", "shop", "default"), "Metadata"),
        (Request(ALICE, "get", path="/readyz"), "None"),
    ],
)
def test_the_default_policy(request_, level):
    assert pick_rule(DEFAULT_POLICY, request_).level == level


def told(request, **more):
    fields = {
        "real_user": request.user, "audit_id": "id", "uri": "/x?y", "code": 200, "received": 1.5, "done": 2.25,
        "version": "v1", "source": "10.0.0.1", "agent": "kubectl", **more,
    }  # fmt: skip
    return Told(request=request, **fields)


def test_an_event():
    event = render(
        told(GET_POD, real_user=NODE, annotations={"authorization.k8s.io/decision": "allow"}),
        PolicyRule(level="Metadata"),
    )
    assert event == {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "id",
        "stage": "ResponseComplete", "requestURI": "/x?y", "verb": "get",
        "user": {"username": "system:node:n1", "groups": ["system:nodes", AUTHENTICATED]},
        "impersonatedUser": {"username": "alice", "groups": ["devs", AUTHENTICATED]},
        "sourceIPs": ["10.0.0.1"], "userAgent": "kubectl",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": "p", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "1970-01-01T00:00:01.500000Z",
        "stageTimestamp": "1970-01-01T00:00:02.250000Z",
        "annotations": {"authorization.k8s.io/decision": "allow"},
    }  # fmt: skip


BODY = json.dumps({"metadata": {"name": "x", "managedFields": [1]}, "data": {"k": "c2VjcmV0"}}).encode()


@pytest.mark.parametrize(
    ("level", "shown"),
    [("Metadata", ()), ("Request", ("requestObject",)), ("RequestResponse", ("requestObject", "responseObject"))],
)
def test_contents(level, shown):
    asked = Request(ALICE, "create", "apps", "deployments", "", "shop", "d")
    event = render(
        told(asked, request_body=BODY, response_body=BODY), PolicyRule(level=level), omit_managed_fields=True
    )
    assert tuple(each for each in ("requestObject", "responseObject") if each in event) == shown
    assert all("managedFields" not in event[each]["metadata"] for each in shown)


@pytest.mark.parametrize(
    ("group", "resource", "subresource"),
    [
        ("", "secrets", ""),
        ("", "configmaps", ""),
        ("", "serviceaccounts", "token"),
        ("authentication.k8s.io", "tokenreviews", ""),
    ],
)
def test_what_is_never_told(group, resource, subresource):
    asked = Request(ALICE, "create", group, resource, subresource, "shop", "x")
    event = render(told(asked, request_body=BODY, response_body=BODY), PolicyRule(level="RequestResponse"))
    assert event["level"] == "Metadata"
    assert "c2VjcmV0" not in json.dumps(event)


def test_a_policy_file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n"
        "rules:\n- level: RequestResponse\n  nonResourceURLs: [/x]\n"
    )
    found = load_policy(path)
    assert (found.omit_stages, found.rules[0].non_resource_urls) == (("RequestReceived",), ("/x",))
    for text in ("rules: [{level: Everything}]", "rules: [", "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"policy\.yaml"):
            load_policy(path)


def test_files_are_rotated_and_only_so_many_stay(tmp_path):
    path = tmp_path / "audit" / "audit.log"
    file = AuditFile(path, max_bytes=10, kept=3)
    for number in range(6):
        file.write([b"%06d\n" % number])
    assert path.stat().st_mode & 0o777 == 0o600
    found = {each.name: each.read_text() for each in path.parent.iterdir()}
    assert found == {"audit.log": "000005\n", "audit.log.1": "000004\n", "audit.log.2": "000003\n"}


async def test_what_was_told_is_written_before_the_end(tmp_path):
    path = tmp_path / "audit.log"
    audit = AuditLog(AuditFile(path))
    task = asyncio.create_task(audit.run())
    await asyncio.sleep(0)
    for request in (GET_POD, Request(ALICE, "get", path="/readyz"), LOG):
        audit.tell(told(request))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["objectRef"].get("subresource") for line in lines] == [None, "log"]


async def test_a_disk_that_stalls_costs_lines_and_no_memory(tmp_path, monkeypatch):
    from master.access import audit as module

    monkeypatch.setattr(module, "QUEUED", 3)
    audit = AuditLog(AuditFile(tmp_path / "audit.log"))
    for _ in range(5):
        audit.tell(told(GET_POD))
    task = asyncio.create_task(audit.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len((tmp_path / "audit.log").read_text().splitlines()) == 3


async def test_lines_that_are_being_written_when_the_end_comes_are_written_first(tmp_path, monkeypatch):
    """Goal: none is lost, nor told before an older one. Method: the only thread is busy until the end has come."""
    from master.access import audit as module

    monkeypatch.setattr(module, "FLUSH_S", 0.0)
    path, go_on = tmp_path / "audit.log", threading.Event()
    loop, threads = asyncio.get_running_loop(), ThreadPoolExecutor(1)
    loop.set_default_executor(threads)
    busy = loop.run_in_executor(None, go_on.wait, 30)
    audit = AuditLog(AuditFile(path))
    audit.tell(told(GET_POD))
    task = asyncio.create_task(audit.run())
    while audit._lines:  # noqa: ASYNC110 - until it has begun to write
        await asyncio.sleep(0)
    audit.tell(told(LOG))
    task.cancel()
    await asyncio.sleep(0)
    loop.call_soon(go_on.set)
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["objectRef"].get("subresource") for line in lines] == [None, "log"]
    await busy


async def test_lines_that_were_lost_last_are_told_of(tmp_path, monkeypatch, caplog):
    from master.access import audit as module

    monkeypatch.setattr(module, "QUEUED", 1)
    audit = AuditLog(AuditFile(tmp_path / "audit.log"))
    for _ in range(3):
        audit.tell(told(GET_POD))
    audit.close()
    assert "audit lines lost, the disk is too slow count=2" in caplog.text


async def test_large_lines_count_by_their_size(tmp_path, monkeypatch):
    from master.access import audit as module

    monkeypatch.setattr(module, "QUEUED_BYTES", 1500)
    audit = AuditLog(AuditFile(tmp_path / "audit.log"), Policy(rules=(PolicyRule(level="Request"),)))
    for size in (100, 5000, 100):
        audit.tell(told(GET_POD, request_body=b'{"x":"%b"}' % (b"x" * size)))
    lines = audit._take()
    assert [len(line) > 5000 for line in lines] == [False, False]
    audit.tell(told(GET_POD, request_body=b'{"x":"%b"}' % (b"x" * 800)))
    assert len(audit._take()) == 1, "what was taken counts no more"
