"""Calls that end late: their contexts must not be asked anything any more."""

from types import SimpleNamespace

from master.grpc_calls import refusing_stream
from trireme_pb.cluster import cluster_pb2 as pb


class Context:
    """A call's context. Once the call is over the library's own would crash the process."""

    over = False

    def auth_context(self):
        assert not self.over
        return {"x509_subject": [b"O=system:masters,CN=admin"]}

    def peer(self):
        assert not self.over
        return "ipv4:10.0.0.1:40000"


class Audit:
    def __init__(self):
        self.told = []

    def rule(self, asked):
        return SimpleNamespace(level="Metadata")

    def tell(self, told):
        self.told.append(told)


class Service:
    def __init__(self, audit):
        self.audit = audit

    @refusing_stream
    async def Watch(self, request, context):  # noqa: N802 - the contract's name
        yield pb.WatchEvent()
        yield pb.WatchEvent()


async def test_a_stream_that_ends_after_its_call_is_told_of_all_the_same():
    audit, context = Audit(), Context()
    request = SimpleNamespace(target=pb.Target(resource="pods", version="v1", namespace="default"), field_selector="")
    stream = Service(audit).Watch(request, context)
    await anext(stream)
    context.over = True
    await stream.aclose()
    (told,) = audit.told
    assert (told.real_user.name, told.source, told.stage) == ("admin", "10.0.0.1", "ResponseComplete")
