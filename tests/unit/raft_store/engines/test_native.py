"""The native engine on a real disk and real connections."""

import asyncio
import datetime as dt
import ipaddress

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from raft_store.disk.directory import DirectoryInUse, DiskError
from raft_store.engine import EngineError, MemberId, NoLeader, ProposalTimedOut, Stopped
from raft_store.engines.native import NativeConfig, NativeEngine
from raft_store.peers import ListenFailed
from raft_store.tls import TlsFiles
from tests.ports import free_ports


class Values:
    def __init__(self):
        self.values = []

    def apply(self, entries, *, wanted=True):
        self.values.extend(entry.data for entry in entries if entry.data)
        return [(entry.index, entry.data) for entry in entries]

    def foresee(self, items):
        return ()

    def snapshot(self):
        return iter([b" ".join(self.values)])

    def begin_restore(self):
        return self

    def feed(self, chunk):
        self.values = chunk.split()

    def finish(self):
        pass


class Group:
    """Members in one process; each may be stopped and started again."""

    def __init__(self, folder, size=3, **options):
        self._addresses = {MemberId(i): f"127.0.0.1:{port}" for i, port in enumerate(free_ports(size), 1)}
        self._folder = folder
        self._options = options
        self._tls = {}
        self.engines = {}
        self.machines = {}
        self.fatal = []

    def config(self, member, **options):
        return NativeConfig(
            member=MemberId(member),
            members=self._addresses,
            data_dir=self._folder / str(member),
            listen=self._addresses[member],
            **({"tls": self._tls.get(member)} | self._options | options),
        )

    async def start(self, *members):
        for member in members or self._addresses:
            self.machines[member] = Values()
            self.engines[member] = NativeEngine(self.config(member), on_fatal=self.fatal.append)
            await self.engines[member].start(self.machines[member])

    async def start_with(self, tls):
        self._tls.update(tls)
        await self.start(*tls)

    async def stop(self, *members):
        for member in members or tuple(self.engines):
            await self.engines.pop(member).stop()

    async def leader(self):
        async with asyncio.timeout(20):
            while True:
                for member, engine in self.engines.items():
                    if engine.status().role == "leader":
                        return member
                await asyncio.sleep(0.01)

    def other(self, member):
        return next(one for one in self.engines if one != member)


@pytest.fixture
async def group(tmp_path):
    group = Group(tmp_path)
    yield group
    await group.stop()


async def test_members_agree_whoever_is_asked(group):
    await group.start()
    results = await asyncio.gather(
        *(engine.propose(b"%d" % member, timeout_s=20) for member, engine in group.engines.items())
    )
    assert {data for _, data in results} == {b"1", b"2", b"3"}
    for member, engine in group.engines.items():
        assert await engine.read_barrier(timeout_s=20) >= max(index for index, _ in results)
        assert group.machines[member].values == group.machines[1].values
        assert sorted(group.machines[member].values) == [b"1", b"2", b"3"]


async def test_everything_is_there_after_a_restart_of_all(group):
    await group.start()
    for i in range(20):
        await group.engines[1].propose(b"%d" % i, timeout_s=20)
    await group.stop()
    await group.start()
    await group.engines[2].read_barrier(timeout_s=20)
    assert group.machines[2].values == [b"%d" % i for i in range(20)]


async def test_writes_go_on_without_the_leader_and_it_catches_up(group):
    await group.start()
    leader = await group.leader()
    other = group.other(leader)
    await group.engines[other].propose(b"before", timeout_s=20)
    await group.stop(leader)
    await group.engines[other].propose(b"after", timeout_s=20)
    await group.start(leader)
    await group.engines[leader].read_barrier(timeout_s=20)
    assert group.machines[leader].values == [b"before", b"after"]


async def test_proposals_under_way_survive_a_change_of_leader_exactly_once(group):
    await group.start()
    leader = await group.leader()
    other = group.other(leader)
    writing = asyncio.gather(*(group.engines[other].propose(b"%d" % i, timeout_s=30) for i in range(200)))
    await asyncio.sleep(0)
    await group.stop(leader)
    await writing
    assert sorted(group.machines[other].values) == sorted(b"%d" % i for i in range(200))


async def test_a_member_far_behind_gets_a_snapshot(tmp_path):
    group = Group(tmp_path, snapshot_entries=20)
    try:
        await group.start()
        await group.engines[1].propose(b"first", timeout_s=20)
        behind = group.other(await group.leader())
        await group.stop(behind)
        writer = next(iter(group.engines))
        for i in range(100):
            await group.engines[writer].propose(b"%d" % i, timeout_s=20)
        await group.start(behind)
        await group.engines[behind].read_barrier(timeout_s=20)
        assert group.machines[behind].values == [b"first", *(b"%d" % i for i in range(100))]
        assert list((tmp_path / str(behind)).glob("*.snapshot"))
    finally:
        await group.stop()


async def test_leadership_is_transferred(group):
    await group.start()
    leader = await group.leader()
    other = group.other(leader)
    await group.engines[leader].propose(b"x", timeout_s=20)
    with pytest.raises(EngineError, match="does not lead"):
        await group.engines[other].transfer_leadership(
            next(one for one in group.engines if one not in (leader, other)), timeout_s=5
        )
    await group.engines[leader].transfer_leadership(other, timeout_s=20)
    assert await group.leader() == other


async def test_a_transfer_to_whom_cannot_take_over_ends_soon(group):
    await group.start()
    await group.engines[1].propose(b"x", timeout_s=20)
    leader = await group.leader()
    absent = group.other(leader)
    await group.stop(absent)
    await group.engines[leader].propose(b"y", timeout_s=20)
    with pytest.raises(ProposalTimedOut, match="did not take over"):
        await group.engines[leader].transfer_leadership(absent, timeout_s=3600)
    with pytest.raises(EngineError, match="not in this group"):
        await group.engines[leader].transfer_leadership(MemberId(9), timeout_s=3600)
    await group.engines[leader].propose(b"z", timeout_s=20)


async def test_a_stopping_leader_is_not_missed(group):
    """It hands over before it goes: no time-out has to pass, and one term is enough."""
    await group.start()
    await group.engines[1].propose(b"x", timeout_s=20)
    leader = await group.leader()
    term = group.engines[leader].status().term
    others = [member for member in group.engines if member != leader]
    await group.engines[leader].step_aside()
    assert await group.leader() in others
    assert group.engines[leader].status().term == term + 1
    await group.stop(leader)
    await group.engines[others[0]].propose(b"y", timeout_s=20)
    assert group.engines[others[0]].status().term == term + 1


async def test_reads_by_the_clock(tmp_path):
    group = Group(tmp_path, lease_reads=True)
    try:
        await group.start()
        for i in range(50):
            value = b"%d" % i
            await group.engines[1].propose(value, timeout_s=20)
            for member, engine in group.engines.items():
                await engine.read_barrier(timeout_s=20)
                assert group.machines[member].values[-1] == value
    finally:
        await group.stop()


async def test_without_a_majority_nothing_is_promised(group):
    await group.start(1)
    with pytest.raises(NoLeader):
        await group.engines[1].propose(b"x", timeout_s=0.2)
    with pytest.raises(NoLeader):
        await group.engines[1].read_barrier(timeout_s=0.2)


async def test_a_leader_cut_off_does_not_know(group):
    await group.start()
    leader = await group.leader()
    await group.engines[leader].propose(b"x", timeout_s=20)
    for member in list(group.engines):
        if member != leader:
            # No hand-over back and forth: they end like a crash.
            group.engines[member]._driver.halt()
    with pytest.raises(ProposalTimedOut):
        await group.engines[leader].propose(b"y", timeout_s=0.15)


async def test_a_stopped_engine_refuses(group):
    await group.start(1)
    waiting = asyncio.create_task(group.engines[1].propose(b"x", timeout_s=20))
    await asyncio.sleep(0)
    engine = group.engines[1]
    await group.stop(1)
    with pytest.raises(Stopped):
        await waiting
    with pytest.raises(Stopped):
        await engine.propose(b"x", timeout_s=1)


async def test_a_failed_sync_ends_the_member(group, monkeypatch):
    await group.start()
    victim = await group.leader()

    def broken(save):
        raise DiskError("cannot sync: Input/output error")

    monkeypatch.setattr(group.engines[victim]._storage, "write", broken)
    with pytest.raises(Stopped):
        await group.engines[victim].propose(b"x", timeout_s=20)
    assert [str(exc) for exc in group.fatal] == ["cannot sync: Input/output error"]
    survivor = group.other(victim)
    await group.engines[survivor].propose(b"y", timeout_s=20)


async def test_a_taken_port_is_named(group):
    await group.start(1)
    engine = NativeEngine(NativeConfig(**(_fields(group.config(2)) | {"listen": group.config(1).listen})))
    with pytest.raises(ListenFailed, match=group.config(1).listen):
        await engine.start(Values())


async def test_a_data_directory_in_use_is_named(group, tmp_path):
    await group.start(1)
    with pytest.raises(DirectoryInUse, match=str(tmp_path / "1")):
        await NativeEngine(group.config(1)).start(Values())


async def test_members_of_another_cluster_are_refused(group):
    await group.start(1)
    stranger = NativeEngine(group.config(2, cluster="other"))
    try:
        await stranger.start(Values())
        with pytest.raises(NoLeader):
            await stranger.propose(b"x", timeout_s=1)
    finally:
        await stranger.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"member": MemberId(9)}, "not among the members"),
        ({"heartbeat_ticks": 20}, "heartbeat_ticks=20"),
        ({"tick_ms": 0}, "tick_ms"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(group, options, message):
    with pytest.raises(ValueError, match=message):
        NativeEngine(NativeConfig(**(_fields(group.config(1)) | options)))


async def test_over_mutual_tls(tmp_path):
    ca, ca_key = certificate("ca")
    other_ca, other_key = certificate("other ca")
    group = Group(tmp_path, tls=tls_files(tmp_path / "tls", ca, *certificate("member", ca, ca_key)))
    try:
        await group.start(1, 2)
        await group.engines[1].propose(b"x", timeout_s=20)
        stranger = NativeEngine(
            group.config(3, tls=tls_files(tmp_path / "bad", other_ca, *certificate("member", other_ca, other_key)))
        )
        try:
            await stranger.start(Values())
            with pytest.raises(NoLeader):
                await stranger.propose(b"y", timeout_s=1)
        finally:
            await stranger.stop()
    finally:
        await group.stop()


async def test_over_mutual_tls_among_those_who_are_named(tmp_path, caplog):
    """Method: three members of one authority, of whom the third's certificate is not for a member."""
    ca, ca_key = certificate("ca")

    def tls(name):
        files = tls_files(tmp_path / name, ca, *certificate(name, ca, ca_key))
        return msgspec.structs.replace(files, names=("m1", "m2", "m3"))

    group = Group(tmp_path)
    try:
        await group.start_with({1: tls("m1"), 2: tls("m2")})
        await group.engines[1].propose(b"x", timeout_s=20)
        await group.start_with({3: tls("node")})
        with pytest.raises(EngineError):
            await group.engines[3].propose(b"y", timeout_s=1)
        assert any("commonName='node'" in told for told in caplog.messages)
        assert b"y" not in group.machines[1].values
        await group.stop(3)
        await group.start_with({3: tls("m3")})
        await group.engines[3].propose(b"z", timeout_s=20)
    finally:
        await group.stop()


def _fields(config):
    return {name: getattr(config, name) for name in config.__struct_fields__}


def certificate(name, issuer=None, issuer_key=None):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return built.sign(issuer_key or key, hashes.SHA256()), key


def tls_files(folder, ca, cert, key):
    folder.mkdir()
    files = TlsFiles(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    files.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def test_connections_are_given_as_much_time_as_a_leader(group):
    """Goal: a stall that calls no election costs no connection, and ends no dialling either."""
    await group.start(1)
    engine = group.engines[1]
    dials = [link._channel._config.patience_s for link in engine._peers._links.values()]
    listens = engine._peers._server._hosting.config.patience_s
    assert len(dials) == 2
    for ticks, more_s in ((9, 0.0), (90, 2.43)):
        engine._replica.core.patience.ticks = ticks
        assert [patience_s() for patience_s in (listens, *dials)] == [more_s] * 3
