"""What a target of the gRPC face lets one do."""

from types import SimpleNamespace

import pytest

from api.errors import BadRequest, MethodNotAllowed, NotFound
from api.kinds.table import TABLE
from master.grpc_api import ResourcesService
from trireme_pb.cluster import cluster_pb2 as pb


class Registry:
    table = TABLE

    async def catch_up(self):
        pass


async def admit(service, method, **target):
    request = SimpleNamespace(target=pb.Target(**target))
    return await service._kind(request, SimpleNamespace(verb=method.lower()))


@pytest.mark.parametrize("resource", ["tokenreviews", "subjectaccessreviews"])
async def test_a_review_is_not_stored(resource):
    service = ResourcesService(Registry())
    group = "authentication.k8s.io" if resource == "tokenreviews" else "authorization.k8s.io"
    for method in ("Get", "Create"):
        with pytest.raises(MethodNotAllowed):
            await admit(service, method, group=group, resource=resource, name="x")
    assert (await admit(service, "Get", resource="nodes", name="x")).plural == "nodes"


@pytest.mark.parametrize(
    ("method", "target", "refusal"),
    [
        ("Get", {"subresource": "status"}, None),
        ("Get", {"subresource": "log"}, MethodNotAllowed),  # would be the pod itself, to who may only read its log
        ("Get", {"subresource": "exec"}, MethodNotAllowed),
        ("Get", {"subresource": "binding"}, MethodNotAllowed),
        ("Update", {"subresource": "binding"}, MethodNotAllowed),
        ("Patch", {"subresource": "eviction"}, MethodNotAllowed),
        ("Delete", {"subresource": "status"}, MethodNotAllowed),  # would be the pod itself
        ("Create", {"subresource": "binding"}, None),
        ("Create", {"subresource": "status"}, MethodNotAllowed),
        ("Create", {}, None),
        ("List", {"subresource": "status"}, MethodNotAllowed),
        ("List", {}, BadRequest),  # would be all of them, to who names one
        ("Get", {"name": ""}, BadRequest),
        ("Get", {"namespace": ""}, BadRequest),
        ("Create", {"namespace": ""}, BadRequest),
        ("Get", {"subresource": "scale"}, NotFound),
    ],
)
async def test_a_target_lets_one_do_what_its_path_would(method, target, refusal):
    service = ResourcesService(Registry())
    wanted = {"resource": "pods", "namespace": "default", "name": "p"} | target
    if refusal is None:
        await admit(service, method, **wanted)
        return
    with pytest.raises(refusal):
        await admit(service, method, **wanted)
