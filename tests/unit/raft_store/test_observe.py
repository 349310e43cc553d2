"""Health and metrics, asked over a real connection."""

import json
import urllib.error
import urllib.request
from asyncio import to_thread

import msgspec
import pytest

from fastgrpc.entrance import Room
from raft_store.engine import MemberId, MemberStatus
from raft_store.member import running
from raft_store.mvcc.requests import AlarmKind
from tests.ports import free_ports
from tests.unit.raft_store.test_member import FickleEngine, config


class Asked:
    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(request, timeout=5) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as exc:
                with exc:
                    return exc.code, exc.read().decode()

        return await to_thread(ask)

    async def metric(self, name: str) -> float:
        _, text = await self.get("/metrics")
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


async def test_health_metrics_and_what_is_not_there() -> None:
    (port,) = free_ports(1)
    engine = FickleEngine(config().member)
    engine.leader = config().member
    asked = Asked(port)
    async with running(config(metrics_listen=f"127.0.0.1:{port}"), engine) as member:
        assert await asked.get("/health") == (200, '{"health":"true","reason":""}')
        assert await asked.metric("etcd_server_has_leader") == 1
        assert await asked.metric("etcd_server_is_leader") == 1
        assert await asked.metric("process_resident_memory_bytes") > 10e6
        status, body = await asked.get("/version")
        assert (status, json.loads(body)["etcdserver"][:2]) == (200, "3.")
        assert (await asked.get("/nothing"))[0] == 404
        assert (await asked.get("/health", "POST"))[0] == 405

        member.machine.alarms.add((1, AlarmKind.NOSPACE))
        assert await asked.get("/health") == (503, '{"health":"false","reason":"ALARM NOSPACE"}')
        member.machine.alarms.clear()
        engine.leader = MemberId(0)
        assert await asked.get("/health") == (503, '{"health":"false","reason":"RAFT NO LEADER"}')
        assert await asked.metric("etcd_server_has_leader") == 0

        taken = config(metrics_listen=f"127.0.0.1:{port}")
        with pytest.raises(OSError, match=f"metrics_listen 127.0.0.1:{port}"):
            async with running(taken, FickleEngine(taken.member)):
                pass


async def test_whoever_asks_when_files_run_out_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    async with running(config(metrics_listen=f"127.0.0.1:{port}"), FickleEngine(config().member)):
        with monkeypatch.context() as full:
            full.setattr(Room, "has_for", lambda *_: False)
            with pytest.raises(OSError, match=r"reset|without response"):
                await Asked(port).get("/version")
        assert (await Asked(port).get("/version"))[0] == 200


class PatientEngine(FickleEngine):
    """Says how long its leader was silent."""

    def status(self) -> MemberStatus:
        return msgspec.structs.replace(super().status(), election_timeout_s=0.27, tick_s=0.03, silences=(5, 2, 0, 1))


async def test_a_members_patience_and_what_it_was_measured_by() -> None:
    (port,) = free_ports(1)
    asked = Asked(port)
    about = config(metrics_listen=f"127.0.0.1:{port}")
    async with running(about, PatientEngine(about.member)):
        assert await asked.metric("trireme_raft_election_timeout_seconds") == 0.27
        _, text = await asked.get("/metrics")
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("trireme_raft_silence_seconds"))
    buckets = {name.split('"')[1]: count for name, count in told.items() if "_bucket" in name}
    assert buckets == {"0.03": "5", "0.06": "7", "0.09": "7", "+Inf": "8"}
    assert told["trireme_raft_silence_seconds_count"] == "8"
    assert float(told["trireme_raft_silence_seconds_sum"]) == pytest.approx(0.39)
