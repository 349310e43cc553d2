"""The library raftos 0.2.6 as an engine, for comparing what it promises with what it keeps (``docs/raftos.md``).

Only this module knows the library. It supplies what raftos needs on a current Python, hands its commands to our machine
instead of its file, and adds the least that the engine seam asks for and raftos lacks: answers matched to proposals by
a number (raftos keeps one future for all writers), and proposals and read positions forwarded to the leader over the
same datagrams. What raftos decides (votes, logs, commits) is left as it is, faults included.

raftos keeps its state in class attributes, so a process can run one member.
"""

import asyncio
import base64
import itertools
import logging
import socket
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raft_store.engine import (
    Change,
    ChangeRefused,
    Done,
    EngineError,
    Entry,
    Foresee,
    Index,
    MemberId,
    MemberRecord,
    MemberStatus,
    NoLeader,
    ProposalTimedOut,
    Refusal,
    StateMachine,
    Stopped,
    Term,
)

try:
    import raftos
    import raftos.serializers
    import raftos.server
    import raftos.state
except ImportError as exc:  # pragma: no cover - the message is the point
    raise EngineError(
        f"engine 'raftos' needs the library ({exc}); install it with: "
        "pip install --no-deps raftos==0.2.6 && pip install msgpack"
    ) from exc

log = logging.getLogger(__name__)

# An entry travels as one datagram: JSON, base64 in it, encrypted and base64 again.
MAX_PROPOSAL_BYTES = 34_000
ASK_AGAIN_S = 0.2
TURN_S = 0.02

PROPOSE, WHERE, HERE = "trireme_propose", "trireme_where", "trireme_here"


class RaftosConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One member. Addresses are what peers see as the sender of a datagram, so never a wildcard."""

    member: MemberId
    members: dict[MemberId, str]  # ourselves included -> "host:port"
    data_dir: Path
    cluster: str
    heartbeat_s: float | None = None  # None: raftos' own, 0.3 s


class _Asyncio:
    """``asyncio`` as raftos knew it: queues took a loop, and the error lived in ``asyncio.futures``."""

    class futures:  # noqa: N801 - the module's name
        InvalidStateError = asyncio.InvalidStateError

    @staticmethod
    def Queue(*, loop: object = None) -> "asyncio.Queue[Any]":  # noqa: N802 - likewise
        del loop
        return asyncio.Queue()

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


class _Protocol(raftos.server.UDPProtocol):  # type: ignore[misc]
    """Knows its sending task, so that it can be ended."""

    sender: "asyncio.Task[None] | None" = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.sender = asyncio.get_running_loop().create_task(self.start())


raftos.server.asyncio = _Asyncio()
raftos.state.asyncio = _Asyncio()


class _Commands:
    """Stands where raftos keeps its own state machine."""

    def __init__(self, engine: "RaftosEngine") -> None:
        self._engine = engine

    def apply(self, command: dict[str, Any]) -> None:
        self._engine.applied(command)


class RaftosEngine:
    """An ``Engine`` that keeps raftos' promises, which are fewer than the protocol's."""

    def __init__(self, config: RaftosConfig) -> None:
        self._config = config
        self._addresses = {member: _resolve(address) for member, address in config.members.items()}
        self._members = {f"{host}:{port}": member for member, (host, port) in self._addresses.items()}
        self._numbers = itertools.count(1)
        self._pending: dict[str, asyncio.Future[object]] = {}
        self._submitted: set[asyncio.Task[None]] = set()
        self._machine: StateMachine | None = None
        self._node: Any = None
        self._protocol: _Protocol | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, machine: StateMachine) -> None:
        """Read the log and join; nothing is applied before this term's first commit tells how far it goes."""
        self._machine = machine
        settings: dict[str, Any] = {
            "log_path": str(self._config.data_dir / "raftos"),
            "serializer": raftos.serializers.JSONSerializer,
            "secret_key": self._config.cluster.encode(),
            "salt": b"trireme raftos",
            "on_leader": self._became_leader,
        }
        if self._config.heartbeat_s is not None:
            settings["heartbeat_interval"] = self._config.heartbeat_s
        raftos.configure(settings)
        raftos.server.UDPProtocol = self._make_protocol
        self._node = raftos.server.Node(address=self._addresses[self._config.member], loop=asyncio.get_running_loop())
        self._node.state.state_machine = self._node.state.state.state_machine = _Commands(self)
        self._node.request_handler = self._received
        for member, address in self._addresses.items():
            if member != self._config.member:
                self._node.update_cluster(address)
        await self._node.start()

    async def stop(self) -> None:
        """End raftos' timers and tasks and fail what waits."""
        self._machine = None
        if self._node is not None:
            self._node.stop()
        tasks: set[asyncio.Task[Any]] = set(self._tasks)
        if self._protocol is not None and self._protocol.sender is not None:
            tasks.add(self._protocol.sender)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(Stopped("raftos engine stopped"))

    async def propose(self, data: bytes, *, timeout_s: float) -> object:
        """Append on the leader and wait until this member applied it."""
        if len(data) > MAX_PROPOSAL_BYTES:
            raise EngineError(
                f"request is too large: raftos sends an entry as one datagram, {MAX_PROPOSAL_BYTES} bytes at most"
            )
        number = f"{self._config.member}-{next(self._numbers)}"
        command = {"number": number, "data": base64.b64encode(data).decode()}
        deadline = asyncio.get_running_loop().time() + timeout_s
        leader = await self._leader(deadline)
        waiting = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline):
                if leader == self._config.member:
                    self._append(command)
                else:
                    await self._send({"type": PROPOSE, "command": command}, leader)
                return await waiting
        except TimeoutError as exc:
            raise ProposalTimedOut("raftos did not apply the entry in time") from exc
        finally:
            del self._pending[number]

    def submit(self, items: Sequence[bytes], done: Done, *, timeout_s: float, foresee: Foresee | None = None) -> None:
        """See ``Engine.submit``; but each has a fate of its own: an EngineError may be among the results."""
        del foresee

        async def one(data: bytes) -> object:
            try:
                return await self.propose(data, timeout_s=timeout_s)
            except EngineError as exc:  # of this one: what took effect may not be told as what surely did not
                return exc

        async def run() -> None:
            done(await asyncio.gather(*map(one, items)), None)

        task = asyncio.create_task(run())
        self._submitted.add(task)
        task.add_done_callback(self._submitted.discard)

    def join(self, submitted: object, items: Sequence[bytes], *, timeout_s: float) -> bool:
        """Return False: each has an entry of its own."""
        del submitted, items, timeout_s
        return False

    async def read_barrier(self, *, timeout_s: float) -> Index:
        """Return once this member applied what the member believed to lead had committed.

        raftos asks no quorum for reads: a deposed leader that does not know it yet answers, so this is not
        linearizable.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        leader = await self._leader(deadline)
        try:
            async with asyncio.timeout_at(deadline):
                upto = await self._commit_index_of(leader)
                while self._running().log.last_applied < upto:  # noqa: ASYNC110 - raftos tells nobody
                    await asyncio.sleep(TURN_S)
                return Index(upto)
        except TimeoutError as exc:
            raise ProposalTimedOut("raftos did not tell or apply its commits in time") from exc

    def when_readable(self, tell: Callable[[EngineError | None], None], *, timeout_s: float) -> None:
        """See ``Engine.when_readable``; everybody waits alone."""
        self._running()

        async def wait() -> None:
            try:
                await self.read_barrier(timeout_s=timeout_s)
            except EngineError as exc:
                tell(exc)
            else:
                tell(None)

        self._spawn(wait())

    @property
    def term(self) -> Term:
        """See ``Engine.term``."""
        return self.status().term

    async def step_aside(self) -> None:
        """Do nothing: the library cannot hand over."""

    def status(self) -> MemberStatus:
        """Return what raftos believes."""
        state = self._node.state if self._node is not None else None
        leader = raftos.get_leader() if state is not None and self._machine is not None else None
        return MemberStatus(
            member=self._config.member,
            leader=self._members.get(leader, MemberId(0)) if leader else MemberId(0),
            role=type(state.state).__name__.lower() if state is not None else "follower",
            term=Term(state.storage.term if state is not None and state.storage.exists("term") else 0),
            commit_index=Index(state.log.commit_index if state is not None else 0),
            applied_index=Index(state.log.last_applied if state is not None else 0),
            log_bytes=Path(state.log.filename).stat().st_size if state is not None else 0,
        )

    def members(self) -> Sequence[MemberRecord]:
        """Return the members that the configuration names."""
        members = self._config.members
        return [MemberRecord(member, (f"http://{members[member]}",), learner=False) for member in sorted(members)]

    def trace(self, after: int) -> None:
        """Return None: the library tells nobody what it says."""

    async def change_members(
        self, changes: Sequence[Change], *, timeout_s: float, joint: bool = False, started: Collection[MemberId] | None
    ) -> None:
        """Refuse: the library cannot change its group."""
        del changes, timeout_s, joint, started  # it makes no difference what is asked
        raise ChangeRefused(Refusal.FIXED)

    async def transfer_leadership(self, to: MemberId, *, timeout_s: float) -> None:
        """Refuse: raftos cannot."""
        raise EngineError(f"raftos cannot hand leadership over (to {to}, within {timeout_s} s)")

    def applied(self, command: dict[str, Any]) -> None:
        """Apply one committed entry; called by raftos before it counts it."""
        if self._machine is None:
            return
        index = self._node.state.log.last_applied + 1
        term = Term(self._node.state.log[index]["term"])
        entry = Entry(Index(index), term, base64.b64decode(command["data"]))
        waiting = self._pending.get(command["number"])
        is_waited_for = waiting is not None and not waiting.done()
        results = self._machine.apply([entry], wanted=is_waited_for)
        if waiting is not None and is_waited_for:
            waiting.set_result(results[0])

    def _make_protocol(self, **arguments: Any) -> _Protocol:
        self._protocol = _Protocol(**arguments)
        return self._protocol

    def _became_leader(self) -> None:
        """Append an empty entry: raftos commits nothing of older terms before one of its own."""
        self._append({"number": "", "data": ""})

    def _append(self, command: dict[str, Any]) -> None:
        state = self._running().state
        if isinstance(state, raftos.state.Leader):
            # Its future is the last writer's alone, so nobody waits for this task but ``stop``.
            self._spawn(state.execute_command(command))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _received(self, message: dict[str, Any]) -> None:
        """Take our own messages, pass raftos' on."""
        match message["type"]:
            case "trireme_propose":
                self._append(message["command"])
            case "trireme_where":
                leads = isinstance(self._running().state, raftos.state.Leader)
                if leads:
                    here = {"type": HERE, "number": message["number"], "index": self._running().log.commit_index}
                    self._spawn(self._node.send(here, message["sender"]))
            case "trireme_here":
                waiting = self._pending.get(message["number"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(message["index"])
            case _:
                self._node.state.request_handler(message)

    async def _commit_index_of(self, leader: MemberId) -> int:
        if leader == self._config.member:
            return int(self._running().log.commit_index)
        number = f"{self._config.member}-{next(self._numbers)}"
        waiting = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            while True:  # datagrams get lost
                await self._send({"type": WHERE, "number": number}, leader)
                done, _ = await asyncio.wait([waiting], timeout=ASK_AGAIN_S)
                if done:
                    index = waiting.result()
                    assert isinstance(index, int), index
                    return index
        finally:
            del self._pending[number]

    async def _send(self, message: dict[str, Any], to: MemberId) -> None:
        await self._node.send(message, self._addresses[to])

    async def _leader(self, deadline: float) -> MemberId:
        while True:
            self._running()
            if leader := self.status().leader:
                return leader
            if asyncio.get_running_loop().time() >= deadline:
                raise NoLeader("raftos has elected nobody in time")
            await asyncio.sleep(TURN_S)

    def _running(self) -> Any:
        if self._machine is None or self._node is None:
            raise Stopped("the raftos engine is not running")
        return self._node.state


def _resolve(address: str) -> tuple[str, int]:
    """Return the address as datagrams will show it. Raises EngineError."""
    host, _, port = address.rpartition(":")
    try:
        return socket.gethostbyname(host), int(port)
    except OSError as exc:
        raise EngineError(f"member address {address}: {exc}") from exc
