import itertools
from collections.abc import AsyncIterator, Callable, Iterator

import grpc.aio
import pytest

from tests.contract.kv.pair import Pair, agreeing_pairs
from tests.contract.kv.stores import Store, ours, real_etcd
from trireme_pb.etcdserverpb import rpc_pb2_grpc
from trireme_pb.v3electionpb import v3election_pb2_grpc
from trireme_pb.v3lockpb import v3lock_pb2_grpc

STORES = [
    pytest.param("memory-1-fast", id="memory"),
    pytest.param("native-1-fast", id="native-1"),
    pytest.param("native-3-fast", id="native-3"),
    pytest.param("native-3-grpcio", id="native-3-grpcio"),
    pytest.param("etcd", id="etcd", marks=pytest.mark.etcd),
]

_numbers = itertools.count()


@pytest.fixture(scope="session", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "etcd":
        with real_etcd(folder) as running:
            yield running
    else:
        engine, members, front = request.param.split("-")
        with ours(folder, members=int(members), engine=engine, front=front) as running:
            yield running


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pair]]:
    """A real etcd and ours, to be asked the same."""
    with agreeing_pairs(lambda: tmp_path_factory.mktemp("pair")) as agreeing:
        yield agreeing


class Api:
    """The stubs of one endpoint."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.kv = rpc_pb2_grpc.KVStub(channel)
        self.watch = rpc_pb2_grpc.WatchStub(channel)
        self.lease = rpc_pb2_grpc.LeaseStub(channel)
        self.cluster = rpc_pb2_grpc.ClusterStub(channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(channel)
        self.auth = rpc_pb2_grpc.AuthStub(channel)
        self.lock = v3lock_pb2_grpc.LockStub(channel)
        self.election = v3election_pb2_grpc.ElectionStub(channel)


@pytest.fixture
async def api(store: Store) -> AsyncIterator[Api]:
    """The last member of the store: of three, one that most likely follows."""
    async with grpc.aio.insecure_channel(store.endpoints[-1]) as channel:
        yield Api(channel)


@pytest.fixture
def prefix() -> bytes:
    """Keys of this test's own: the stores live as long as the session."""
    return b"t%06d/" % next(_numbers)
