"""The members as processes on this machine, and what can be done to them."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Self

import grpc
import grpc.aio

from deploy.experiments.robustness.wires import Proxy, Wires
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc as rpc

ROOT = Path(__file__).resolve().parents[3]
CHANGE_S = 60.0  # for a change of the group: two members that are left may be slow to agree
READY_S = 60.0
SNAPSHOT_ENTRIES = 300  # so small that snapshots are taken and sent all the time
CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]


OWN_DISK = 3  # every so many members have a disk that takes no orders: there the kernel syncs, without a thread

# Debian's package libfaketime; without it no clock jumps.
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


class NotReady(Exception):
    """The store does not serve within the time allowed."""


class Member:
    """One member: where it is, and its process while it has one.

    obeys: its disk is one that takes orders (``raft_store.disk.faults``); the others write as members do everywhere.
    """

    def __init__(
        self, name: str, folder: Path, *, client_port: int, listen_port: int, peer_port: int, obeys: bool
    ) -> None:
        self.name = name
        self.obeys = obeys
        self.config = folder / f"{name}.toml"
        self.log = folder / f"{name}.log"
        self.orders = folder / f"{name}.disk"
        self.clock = folder / f"{name}.clock"
        self.endpoint = f"127.0.0.1:{client_port}"
        self.listen_port = listen_port
        self.peer_port = peer_port  # where the others reach it
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self.process is not None and self.process.poll() is None


class Members:
    """A group of members, from start to stop; use it as an asynchronous context."""

    def __init__(self, folder: Path, *, size: int, engine: str, random: Random) -> None:
        self.folder = folder
        self.engine = engine
        self.wires = Wires(random)
        self.members: dict[str, Member] = {}
        self.channels: dict[str, grpc.aio.Channel] = {}
        self._proxies: list[Proxy] = []
        self._retired: list[grpc.aio.Channel] = []
        self._size = size
        self._count = 0

    @property
    def proxied(self) -> bool:
        """Whether members talk over our wires; raftos sends datagrams, and knows members by their address."""
        return self.engine == "native"

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True)
        try:
            founders = [await self._make() for _ in range(self._size)]
            for member in founders:
                self._configure(member, founders, state="new")
                self.start(member.name)
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _make(self) -> Member:
        self._count += 1
        client, listen, peer = _free_ports(3)
        member = Member(
            f"m{self._count}",
            self.folder,
            client_port=client,
            listen_port=listen,
            peer_port=peer if self.proxied else listen,
            obeys=self._count % OWN_DISK != 0,
        )
        self.members[member.name] = member
        self.channels[member.name] = grpc.aio.insecure_channel(member.endpoint, options=CHANNEL_OPTIONS)
        if self.proxied:
            proxy = Proxy(member.name, target=listen, wires=self.wires, pids=self._pids)
            await proxy.start(peer)
            self._proxies.append(proxy)
        return member

    def _configure(self, member: Member, group: list[Member], *, state: str) -> None:
        peers = "\n".join(f'{each.name} = "http://127.0.0.1:{each.peer_port}"' for each in group)
        joins = f'initial_cluster_state = "{state}"\n' if self.engine == "native" else ""
        testing = f'[testing]\ndisk_orders = "{member.orders}"\n' if member.obeys else ""
        member.config.write_text(
            f'name = "{member.name}"\ncluster = "robustness"\ndata_dir = "{self.folder / member.name}"\n'
            f'engine = "{self.engine}"\nclient_listen = "{member.endpoint}"\nwatch_progress_s = 0.3\n'
            f'peer_listen = "127.0.0.1:{member.listen_port}"\nclient_url = "http://{member.endpoint}"\n{joins}'
            f"[members]\n{peers}\n[raft]\nsnapshot_entries = {SNAPSHOT_ENTRIES}\n"
            f"{testing}"
        )

    def _pids(self) -> Mapping[str, int]:
        return {
            each.name: each.process.pid for each in self.members.values() if each.process is not None and each.running
        }

    # -- what can be done to a member --------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a member's process, unless it runs."""
        member = self.members[name]
        if member.running:
            return
        with member.log.open("ab") as log:
            member.process = subprocess.Popen(
                [sys.executable, "-m", "raft_store", "--config", str(member.config)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(member),
            )
        member.paused = False

    def _environment(self, member: Member) -> dict[str, str]:
        """Let a member see the wall clock that we set, where libfaketime is installed."""
        if FAKETIME is None:
            return dict(os.environ)
        member.clock.touch()
        return os.environ | {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(member.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as an operator or NTP steps the time: only the wall clock jumps
            # Otherwise libfaketime 0.9.10 takes the monotonic deadline with which CPython waits for its lock for one of
            # the wall clock: each hand-over between threads costs milliseconds of spinning or of waiting.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def set_clock(self, name: str, offset_s: int) -> None:
        """Let a member's wall clock jump to so far from the true time. Needs libfaketime."""
        self.members[name].clock.write_text(f"{offset_s:+d}\n")

    def kill(self, name: str) -> None:
        """SIGKILL; what it had not synced is gone."""
        process = self.members[name].process
        if process is not None:
            process.kill()
            process.wait()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._signal(name, signal.SIGSTOP)
        self.members[name].paused = True

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._signal(name, signal.SIGCONT)
        self.members[name].paused = False

    def order_disk(self, name: str, *, sync_ms: float = 0.0, fail_syncs: bool = False) -> None:
        """Make the disk of a member that obeys slow, or let it fail; without arguments: make it good again."""
        orders = self.members[name].orders
        fresh = orders.with_suffix(".new")
        fresh.write_text(json.dumps({"sync_ms": sync_ms, "fail_syncs": fail_syncs}))
        fresh.rename(orders)

    def mend(self) -> None:
        """End every fault, and start whoever does not run."""
        self.wires.heal()
        for name, member in self.members.items():
            if member.paused:
                self.resume(name)
            self.order_disk(name)
            if FAKETIME is not None:
                self.set_clock(name, 0)
            self.start(name)

    async def replace(self, name: str) -> str:
        """Remove a member for good and let a new one join; return the new one's name."""
        # Itself, not the member list: there a member that has just joined has no name yet.
        status = await rpc.MaintenanceStub(self.channels[name]).Status(pb.StatusRequest(), timeout=5)
        helper = next(other for other in self.members if other != name)
        cluster = rpc.ClusterStub(self.channels[helper])
        remove = pb.MemberRemoveRequest(ID=status.header.member_id)
        await _insist(lambda: cluster.MemberRemove(remove, timeout=10), done=grpc.StatusCode.NOT_FOUND)
        self.kill(name)
        # Closed only in the end: calls under way shall fail as for any client, not be canceled.
        self._retired.append(self.channels.pop(name))
        del self.members[name]
        fresh = await self._make()
        url = f"http://127.0.0.1:{fresh.peer_port}"
        add = pb.MemberAddRequest(peerURLs=[url])
        await _insist(lambda: cluster.MemberAdd(add, timeout=10), done=grpc.StatusCode.FAILED_PRECONDITION)
        self._configure(fresh, list(self.members.values()), state="existing")
        self.start(fresh.name)
        return fresh.name

    # -- asking ------------------------------------------------------------------------------------------------------

    async def leader(self) -> str | None:
        """Return who leads, if a member that leads says so."""
        for name, channel in list(self.channels.items()):
            with contextlib.suppress(grpc.aio.AioRpcError):
                status = await rpc.MaintenanceStub(channel).Status(pb.StatusRequest(), timeout=0.5)
                if status.leader and status.leader == status.header.member_id:
                    return name
        return None

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Wait until every member serves a linearizable read. Raises NotReady."""
        deadline = time.monotonic() + timeout_s
        for name, channel in list(self.channels.items()):
            while True:
                try:
                    await rpc.KVStub(channel).Range(pb.RangeRequest(key=b"ready"), timeout=2.0)
                    break
                except grpc.aio.AioRpcError as exc:
                    if time.monotonic() > deadline:
                        raise NotReady(
                            f"member {name} does not serve within {timeout_s:.0f} s: {exc.details()}; "
                            f"see {self.members[name].log}"
                        ) from exc
                    await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End every process and connection."""
        for name, member in self.members.items():
            if member.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(signal.SIGCONT)
                self.kill(name)
        for proxy in self._proxies:
            await proxy.stop()
        for channel in (*self.channels.values(), *self._retired):
            await channel.close()

    def _signal(self, name: str, number: signal.Signals) -> None:
        member = self.members[name]
        if member.process is not None and member.running:
            os.kill(member.process.pid, number)


async def _insist(ask: Callable[[], Awaitable[object]], *, done: grpc.StatusCode) -> None:
    """Ask until it is done: an answer that got lost may have been a yes, and then the next one is ``done``."""
    deadline, attempt = time.monotonic() + CHANGE_S, 0
    while time.monotonic() < deadline:
        attempt += 1
        try:
            await ask()
        except grpc.aio.AioRpcError as exc:
            if attempt > 1 and exc.code() is done:
                return
            if exc.code() is not grpc.StatusCode.UNAVAILABLE and exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            await asyncio.sleep(0.5)
        else:
            return
    raise NotReady(f"the group could not be changed within {CHANGE_S:.0f} s")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
