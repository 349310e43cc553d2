"""Who is let in by the gRPC face, and to what."""

import pytest

from api.errors import MethodNotAllowed
from api.kinds.table import TABLE
from master.access.authorization import Authorizer
from master.grpc_api import ResourcesService
from tests.unit.master.access.test_authorization import Policies
from trireme_pb.cluster import cluster_pb2 as pb


class Registry:
    table = TABLE


class Context:
    def auth_context(self):
        return {"x509_subject": [b"O=system:masters,CN=admin"]}


@pytest.mark.parametrize("resource", ["tokenreviews", "subjectaccessreviews"])
async def test_a_review_is_not_stored(resource):
    service = ResourcesService(Registry(), Authorizer(Policies()))
    group = "authentication.k8s.io" if resource == "tokenreviews" else "authorization.k8s.io"
    for verb in ("get", "create"):
        with pytest.raises(MethodNotAllowed):
            await service._admit(Context(), verb, pb.Target(group=group, resource=resource, name="x"))
    kind, user = await service._admit(Context(), "get", pb.Target(resource="nodes", name="x"))
    assert (kind.plural, user.name) == ("nodes", "admin")
