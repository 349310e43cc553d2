"""Two stores that are asked the same questions, and what may differ in their answers.

Both are fresh and get every operation in the same order, so that revisions, versions and watch ids agree without any
translation. Only what names a particular store is made equal before comparing: ids of cluster and members, and the Raft
term. Everything else that differs is a failure, unless a row of ``DIFFERENCES`` knows it.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import msgspec
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.contract.kv.stores import Store, ours, real_etcd
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

# Shrinking asks both stores a thousand times over: worth it to study a failure, not to see that there is one.
PHASES = tuple(Phase) if os.environ.get("TRIREME_DIFFERENTIAL_SHRINK") else (Phase.reuse, Phase.generate)
DIFFERENTIAL = settings(
    max_examples=int(os.environ.get("TRIREME_DIFFERENTIAL_EXAMPLES", "60")),
    deadline=None,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)
CALL_S = 30.0  # much longer than either store tries
SETTLE_S = 10.0
MEMBER = 1  # stands for each store's own member
OTHER = 7  # that there is not


class Refusal(msgspec.Struct, frozen=True):
    """How a call ended that was not answered."""

    code: str
    text: str


Answer = Message | Refusal


class Difference(msgspec.Struct, frozen=True):
    """A known difference. ``holds`` tells whether it explains (request, etcd's answer, our answer)."""

    name: str
    reason: str
    holds: Callable[[Any, Answer, Answer], bool]


def _without(field: str, message: Answer) -> Answer:
    if isinstance(message, Refusal):
        return message
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(field)
    return copy


def _is(answer: Answer, text: str) -> bool:
    return isinstance(answer, Refusal) and answer.text == text


_AUTH_TEXTS = {"auth: user not found": "etcdserver: user name not found"}


def _auth_said(answer: Answer) -> str:
    """Return what etcd would have said if it had put the error of its authentication into words for clients."""
    if not isinstance(answer, Refusal) or answer.code != "UNKNOWN" or not answer.text.startswith("auth: "):
        return ""
    return _AUTH_TEXTS.get(answer.text, "etcdserver: " + answer.text.removeprefix("auth: "))


def _gave_up(answer: Answer) -> bool:
    return isinstance(answer, Refusal) and (
        answer.code == "DEADLINE_EXCEEDED" or answer.text == "etcdserver: request timed out"
    )


def _nested_put(txn: pb.TxnRequest) -> bool:
    return any(
        inner.HasField("request_put") or (inner.HasField("request_txn") and _nested_put(inner.request_txn))
        for op in (*txn.success, *txn.failure)
        if op.HasField("request_txn")
        for inner in (*op.request_txn.success, *op.request_txn.failure)
    )


DIFFERENCES = (
    Difference(
        "no header",
        "etcd 3.4 sends no header with the answers to Alarm, Defragment and MoveLeader; ours, like later ones, fills it.",
        lambda request, theirs, ours_: (
            isinstance(request, pb.AlarmRequest | pb.DefragmentRequest | pb.MoveLeaderRequest)
            and not isinstance(theirs, Refusal)
            and not theirs.HasField("header")
            and theirs == _without("header", ours_)
        ),
    ),
    Difference(
        "maintenance without permission",
        "Who may not defragment and the like is told so by etcd 3.4 with code UNKNOWN and texts of its own; ours, like "
        "later ones, uses the codes and texts of all other calls.",
        lambda request, theirs, ours_: (
            isinstance(request, pb.DefragmentRequest | pb.HashRequest | pb.HashKVRequest | pb.AlarmRequest)
            and isinstance(ours_, Refusal)
            and _auth_said(theirs) == ours_.text
        ),
    ),
    Difference(
        "nested puts without space",
        "With the NOSPACE alarm on etcd refuses transactions that put, but does not look into nested ones; ours does.",
        lambda request, theirs, ours_: (
            isinstance(request, pb.TxnRequest)
            and _nested_put(request)
            and not isinstance(theirs, Refusal)
            and _is(ours_, "etcdserver: mvcc: database space exceeded")
        ),
    ),
)


class Peer:
    """One of the two stores."""

    def __init__(self, endpoint: str) -> None:
        self.channel = grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)])
        self.stubs: dict[str, Any] = {
            "KV": rpc_pb2_grpc.KVStub(self.channel),
            "Lease": rpc_pb2_grpc.LeaseStub(self.channel),
            "Maintenance": rpc_pb2_grpc.MaintenanceStub(self.channel),
            "Cluster": rpc_pb2_grpc.ClusterStub(self.channel),
            "Auth": rpc_pb2_grpc.AuthStub(self.channel),
        }
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.member = self.stubs["Maintenance"].Status(pb.StatusRequest(), timeout=CALL_S).header.member_id
        self._requests: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        self._stream: Any = None
        self.heard: list[pb.WatchResponse] = []
        self.ended: list[str] = []

    def call(self, service: str, method: str, request: Message) -> Answer:
        try:
            answer = getattr(self.stubs[service], method)(self._mine(request), timeout=CALL_S, metadata=self.metadata)
        except grpc.RpcError as exc:
            return Refusal(exc.code().name, exc.details())
        return self.anyone(answer)

    def keep_alive(self, lease: int) -> Answer:
        stream = self.stubs["Lease"].LeaseKeepAlive(iter([pb.LeaseKeepAliveRequest(ID=lease)]), timeout=CALL_S)
        return self.anyone(next(stream))

    def watch(self, request: pb.WatchRequest) -> None:
        """Send a request on this peer's one watch stream."""
        if self._stream is None:
            requests = self._requests = queue.SimpleQueue()
            self._stream = rpc_pb2_grpc.WatchStub(self.channel).Watch(iter(requests.get, None), metadata=self.metadata)
            threading.Thread(target=self._listen, args=(self._stream,), daemon=True).start()
        self._requests.put(request)

    def stop_watching(self) -> None:
        if self._stream is not None:
            self._requests.put(None)
            self._stream.cancel()
            self._stream = None
        self.heard = []

    def close(self) -> None:
        self.stop_watching()
        self.channel.close()

    def _listen(self, stream: Any) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in stream:
                if stream is self._stream:
                    self.heard.append(self.anyone(response))

    def _mine(self, request: Message) -> Message:
        if isinstance(request, pb.AlarmRequest) and request.memberID == MEMBER:
            request = pb.AlarmRequest(action=request.action, alarm=request.alarm, memberID=self.member)
        return request

    def anyone(self, answer: Any) -> Any:
        """Take out what names this one store."""
        if answer.HasField("header"):
            answer.header.ClearField("cluster_id")
            answer.header.ClearField("member_id")
            answer.header.ClearField("raft_term")
        if isinstance(answer, pb.AlarmResponse):
            for alarm in answer.alarms:
                if alarm.memberID == self.member:
                    alarm.memberID = MEMBER
        return answer


class Pair:
    """etcd and ours."""

    def __init__(self, theirs: Store, ours_: Store) -> None:
        self.endpoints = (theirs.endpoints[0], ours_.endpoints[0])
        self.theirs, self.ours = Peer(theirs.endpoints[0]), Peer(ours_.endpoints[0])
        self.agree = True  # until they differed: from then on revisions may be apart
        self.explained: set[str] = set()

    @property
    def peers(self) -> tuple[Peer, Peer]:
        return self.theirs, self.ours

    def call(self, service: str, method: str, request: Message) -> Answer:
        """Return the common answer. Fails the test if there is none."""
        theirs, ours_ = (peer.call(service, method, request) for peer in self.peers)
        self.compare(request, theirs, ours_)
        return ours_

    def clear_alarms(self) -> None:
        """Let neither have an alarm that an earlier series left: while one is on, etcd 3.4 looks at no permissions."""
        for alarm in (pb.NONE, pb.NOSPACE, pb.CORRUPT):
            for member in (MEMBER, OTHER):
                self.call("Maintenance", "Alarm", pb.AlarmRequest(action=2, alarm=alarm, memberID=member))

    def keep_alive(self, lease: int) -> Answer:
        theirs, ours_ = (peer.keep_alive(lease) for peer in self.peers)
        self.compare(lease, theirs, ours_)
        return ours_

    def compare(self, request: object, theirs: Answer, ours_: Answer) -> None:
        if theirs == ours_:
            return
        for difference in DIFFERENCES:
            if difference.holds(request, theirs, ours_):
                self.explained.add(difference.name)
                if isinstance(theirs, Refusal) is not isinstance(ours_, Refusal):
                    self.agree = False
                return
        self.agree = False
        told = f"{shown(request)}\n--- etcd\n{shown(theirs)}\n--- ours\n{shown(ours_)}"
        if _gave_up(theirs) or _gave_up(ours_):
            # Whether it took effect nobody knows, so there is nothing to compare; but that is no reason to be silent.
            told = f"too slow to be compared, on a machine as busy as this one: {told}"
        raise AssertionError(told)

    def watch(self, request: pb.WatchRequest) -> None:
        for peer in self.peers:
            peer.watch(request)

    def settle(self, told_all: Callable[[list[pb.WatchResponse]], bool] = bool) -> None:
        """Wait until both have told their watches all, and the same; fail the test if they never do."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            heard = list(self.ours.heard)
            theirs, ours_ = told(list(self.theirs.heard)), told(heard)
            if theirs == ours_ and told_all(heard):
                break
            if time.monotonic() > deadline:
                self.agree = False
                lines = [
                    f"watch {watch}\n--- etcd\n{theirs.get(watch)}\n--- ours\n{ours_.get(watch)}"
                    for watch in sorted(theirs.keys() | ours_.keys())
                    if theirs.get(watch) != ours_.get(watch)
                ]
                raise AssertionError("\n".join(lines))
            time.sleep(0.002)
        for peer in self.peers:
            check_guarantees(list(peer.heard))


Steps = list[tuple[str, dict[str, Any]]]


def step(method: str, /, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    """Draw a call of a method of a run."""
    return st.tuples(st.just(method), st.fixed_dictionaries(arguments))


def shown(what: object) -> str:
    if isinstance(what, Message):
        return f"{type(what).__name__} {text_format.MessageToString(what, as_one_line=True)}"
    return repr(what)


def told(heard: list[pb.WatchResponse]) -> dict[int, list[str]]:
    """Return what each watch was told, in order; how events are packed into responses is the server's choice."""
    told_to: dict[int, list[str]] = {}
    for response in heard:
        watch = told_to.setdefault(response.watch_id, [])
        if response.events:
            watch += [text_format.MessageToString(event, as_one_line=True) for event in response.events]
        else:
            watch.append(text_format.MessageToString(response, as_one_line=True))
    return told_to


def check_guarantees(heard: list[pb.WatchResponse]) -> None:
    """Each watch hears of revisions in order and of each in one piece; headers are never behind their events."""
    last: dict[int, int] = {}
    for response in heard:
        revisions = [event.kv.mod_revision for event in response.events]
        if not revisions:
            continue
        assert revisions == sorted(revisions), response
        assert response.header.revision >= revisions[-1], response
        assert revisions[0] > last.get(response.watch_id, 0), response
        if not response.fragment:
            last[response.watch_id] = revisions[-1]


@contextlib.contextmanager
def pair_of_stores(folder: Path) -> Iterator[Pair]:
    (folder / "etcd").mkdir(parents=True)
    (folder / "ours").mkdir()
    # The least time of a lease follows from the election timeout: 0.5 s give 1 s, which is ours.
    more = ("--heartbeat-interval=50", "--election-timeout=500", "--bcrypt-cost=4")
    with real_etcd(folder / "etcd", more=more) as theirs, ours(folder / "ours", members=1, engine="native") as mine:
        pair = Pair(theirs, mine)
        try:
            yield pair
        finally:
            for peer in pair.peers:
                peer.close()


@contextlib.contextmanager
def agreeing_pairs(make_folder: Callable[[], Path]) -> Iterator[Callable[[], Pair]]:
    """Give pairs out. One that differed once is thrown away: what is found can be shrunk on a pair that agrees."""
    with contextlib.ExitStack() as running:
        current: list[Pair] = []

        def agreeing() -> Pair:
            if not current or not current[0].agree:
                running.pop_all().close()
                current[:] = [running.enter_context(pair_of_stores(make_folder()))]
            return current[0]

        yield agreeing
