"""A group that changes, through the Cluster service: the same answers and refusals from ours and from etcd."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.contract.kv.conftest import Api
from tests.contract.kv.stores import ROOT
from tests.contract.kv.test_kv import put, refused
from tests.ports import free_ports
from trireme_pb.etcdserverpb import rpc_pb2 as pb

PATIENT_S = 30
HEALTHY_S = 6  # etcd calls a member healthy only after five seconds of connection
PRECONDITION, NOT_FOUND, INVALID = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.INVALID_ARGUMENT,
)


def our_command(folder: Path, name: str, client: str, peers: dict[str, str], state: str) -> list[str]:
    config = folder / f"{name}.toml"
    members = "\n".join(f'{member} = "{url}"' for member, url in peers.items())
    config.write_text(
        f'name = "{name}"\ndata_dir = "{folder / name}"\nclient_listen = "{client}"\n'
        f'peer_listen = "{peers[name].removeprefix("http://")}"\nclient_url = "http://{client}"\n'
        f'initial_cluster_state = "{state}"\n[members]\n{members}\n'
    )
    return [sys.executable, "-m", "raft_store", "--config", str(config)]


def etcds_command(folder: Path, name: str, client: str, peers: dict[str, str], state: str) -> list[str]:
    program = shutil.which("etcd")
    assert program is not None, "the marker 'etcd' promises Debian's etcd-server"
    return [program, "--name", name, "--data-dir", str(folder / name), "--logger", "zap",
            "--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}",
            "--listen-peer-urls", peers[name], "--initial-advertise-peer-urls", peers[name],
            "--initial-cluster", ",".join(f"{member}={url}" for member, url in peers.items()),
            "--initial-cluster-state", state]  # fmt: skip


TOO_FEW_STARTED = "etcdserver: re-configuration failed due to not enough started members"


class Growing:
    """A group of one, and what others need to join it."""

    def __init__(self, folder: Path, command: Callable[..., list[str]]) -> None:
        self._folder = folder
        self._command = command
        self._ports = iter(free_ports(8))
        self.clients: dict[str, str] = {}
        self.peers: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start(self.name_one(), "new")

    def name_one(self) -> str:
        name = f"m{len(self.peers)}"
        self.clients[name] = f"127.0.0.1:{next(self._ports)}"
        self.peers[name] = f"http://127.0.0.1:{next(self._ports)}"
        return name

    def start(self, name: str, state: str) -> None:
        command = self._command(self._folder, name, self.clients[name], self.peers, state)
        with (self._folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(params=[pytest.param(our_command, id="native"),
                        pytest.param(etcds_command, id="etcd", marks=pytest.mark.etcd)])  # fmt: skip
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Growing]:
    group = Growing(tmp_path, request.param)
    yield group
    group.stop()


@pytest.fixture
async def api(group: Growing) -> AsyncIterator[Api]:
    async with grpc.aio.insecure_channel(group.clients["m0"]) as channel:
        api = Api(channel)
        await until(lambda: put(api, b"k"))
        yield api


async def until(call: Callable[[], object]) -> object:
    """Repeat a call until it is not refused."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return await call()  # type: ignore[misc]
            await asyncio.sleep(0.05)


async def members(api: Api) -> list[tuple[str, list[str], list[str], bool]]:
    listed = (await api.cluster.MemberList(pb.MemberListRequest())).members
    return sorted((m.name, list(m.peerURLs), list(m.clientURLs), m.isLearner) for m in listed)


async def test_what_is_refused(group: Growing, api: Api) -> None:
    mine = (await api.cluster.MemberList(pb.MemberListRequest())).members[0].ID
    answers = {
        "no urls": await refused(api.cluster.MemberAdd(pb.MemberAddRequest())),
        "no port": await refused(api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=["http://x"]))),
        "no scheme": await refused(api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=["x:1"]))),
        "a path": await refused(api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=["http://x:1/y"]))),
        "taken": await refused(api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=[group.peers["m0"]]))),
        "remove": await refused(api.cluster.MemberRemove(pb.MemberRemoveRequest(ID=7))),
        "update": await refused(api.cluster.MemberUpdate(pb.MemberUpdateRequest(ID=7, peerURLs=["http://x:1"]))),
        "promote": await refused(api.cluster.MemberPromote(pb.MemberPromoteRequest(ID=7))),
        # etcd 3.4 forgot to give this one a code; later versions have FAILED_PRECONDITION.
        "the last": (await refused(api.cluster.MemberRemove(pb.MemberRemoveRequest(ID=mine))))[1],
        "a voter": await refused(api.cluster.MemberPromote(pb.MemberPromoteRequest(ID=mine))),
    }
    invalid = (INVALID, "etcdserver: given member URLs are invalid")
    unknown = (NOT_FOUND, "etcdserver: member not found")
    assert answers == {
        "no urls": invalid,
        "no port": invalid,
        "no scheme": invalid,
        "a path": invalid,
        "taken": (PRECONDITION, "etcdserver: Peer URLs already exists"),
        "remove": unknown,
        "update": unknown,
        "promote": unknown,
        "the last": TOO_FEW_STARTED,
        "a voter": (PRECONDITION, "etcdserver: can only promote a learner member"),
    }


async def test_a_learner_joins_is_promoted_and_takes_over(group: Growing, api: Api) -> None:
    name = group.name_one()
    added = await api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=[group.peers[name]], isLearner=True))
    assert added.header.revision == 0
    assert (added.member.name, list(added.member.peerURLs), added.member.isLearner) == ("", [group.peers[name]], True)
    assert {member.ID for member in added.members} > {added.member.ID}
    assert ("", [group.peers[name]], [], True) in await members(api)
    promote = pb.MemberPromoteRequest(ID=added.member.ID)
    assert await refused(api.cluster.MemberPromote(promote)) == (
        PRECONDITION,
        "etcdserver: can only promote a learner member which is in sync with leader",
    )
    another = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"], isLearner=True)
    assert await refused(api.cluster.MemberAdd(another)) == (
        PRECONDITION,
        "etcdserver: too many learner members in cluster",
    )
    group.start(name, "existing")
    async with grpc.aio.insecure_channel(group.clients[name]) as channel:
        joined = Api(channel)
        await until(lambda: joined.kv.Range(pb.RangeRequest(key=b"k", serializable=True)))
        assert (await joined.maintenance.Status(pb.StatusRequest())).isLearner
        not_supported = (grpc.StatusCode.UNAVAILABLE, "etcdserver: rpc not supported for learner")
        assert await refused(joined.kv.Range(pb.RangeRequest(key=b"k"))) == not_supported
        assert await refused(joined.kv.Put(pb.PutRequest(key=b"k"))) == not_supported
        assert await refused(joined.cluster.MemberList(pb.MemberListRequest())) == not_supported
        assert await refused(joined.watch.Watch(iter([])).read()) == not_supported
        await until(lambda: api.cluster.MemberPromote(promote))
        await until(lambda: put(joined, b"k"))
        async with asyncio.timeout(PATIENT_S):
            expected = [(n, [group.peers[n]], [f"http://{group.clients[n]}"], False) for n in ("m0", "m1")]
            while await members(joined) != expected:  # noqa: ASYNC110 - the members' own pace
                await asyncio.sleep(0.05)
        await asyncio.sleep(0 if "raft_store" in str(group.processes[name].args) else HEALTHY_S)
        first = (await joined.maintenance.Status(pb.StatusRequest())).leader
        await until(lambda: joined.cluster.MemberRemove(pb.MemberRemoveRequest(ID=first)))
        await until(lambda: put(joined, b"k"))
        assert [member[0] for member in await members(joined)] == [name]
        assert await asyncio.to_thread(group.processes["m0"].wait, PATIENT_S) is not None


async def test_of_two_one_may_be_missing_and_no_third_comes(group: Growing, api: Api) -> None:
    name = group.name_one()
    await api.cluster.MemberAdd(pb.MemberAddRequest(peerURLs=[group.peers[name]]))
    third = pb.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])
    assert (await refused(api.cluster.MemberAdd(third)))[1] == TOO_FEW_STARTED
    group.start(name, "existing")
    await until(lambda: put(api, b"k"))


async def test_an_address_changes(api: Api) -> None:
    mine = (await api.cluster.MemberList(pb.MemberListRequest())).members[0]
    urls = ["http://127.0.0.1:3", "http://127.0.0.1:2"]
    updated = await api.cluster.MemberUpdate(pb.MemberUpdateRequest(ID=mine.ID, peerURLs=urls))
    assert [sorted(member.peerURLs) for member in updated.members] == [sorted(urls)]
