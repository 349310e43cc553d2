"""A running group as a sequence of scenes, as its members tell it when they are asked, over and over.

A member of the native engine tells every message that its core sends and receives (``/trace``; ``raft_store.trace``).
Of one that does not (another engine, an older program, etcd itself) its status has to do.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
import msgspec

from raft_store.engine import TracePage
from raft_store.tool import live
from raft_store.tool.live import Access
from raft_store.tool.merging import HOLD_S, Merger
from raft_store.tool.sequence import Became, Scene
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

ASK_EVERY_S = 0.2
ANSWER_S = 1.0
QUIET_APPLIED = 1  # entries; fewer new ones are not worth a line


def watch(
    access: Access, *, seconds: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[list[str], Iterator[Scene]]:
    """Return the members' names, and what happens to them for so long, as it happens. Raises StoreUnreachable."""
    found = sorted((one.name or one.id, one.id, one.client_urls[0]) for one in live.members(access) if one.client_urls)
    group = Merger([member for _, member, _ in found], [name for name, _, _ in found])
    names = {member: name for name, member, _ in found}
    watched = [_Watched(access, place, endpoint, names) for place, (_, _, endpoint) in enumerate(found)]
    return list(names.values()), _scenes(group, watched, seconds=seconds, now=now, sleep=sleep)


def _scenes(
    group: Merger,
    watched: "list[_Watched]",
    *,
    seconds: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Scene]:
    began = now()

    def passed() -> float:
        return now() - began

    with ThreadPoolExecutor(max(1, len(watched)), thread_name_prefix="watching") as threads:
        try:
            while passed() < seconds:
                asked_s = passed()
                # At once: who stands still must not keep us from the others.
                for tell in threads.map(lambda member: member.ask(passed), watched):
                    tell(group)
                yield from group.drain(asked_s - HOLD_S)
                sleep(ASK_EVERY_S)
            yield from group.drain(passed())
        finally:
            for member in watched:
                member.close()


class _Watched:
    """One member, asked again and again."""

    def __init__(self, access: Access, place: int, endpoint: str, names: Mapping[str, str]) -> None:
        self._access = access
        self._place = place
        self._endpoint = endpoint
        self._names = names
        self._channel = access.open(endpoint)
        self._status = rpc_pb2_grpc.MaintenanceStub(self._channel)
        self._seen: pb.StatusResponse | None = None
        self._asked = False
        self._after = 0  # event
        self._offset_s = 0.0  # from its clock to ours, as the quickest answer had it
        self._quickest_s = math.inf

    def close(self) -> None:
        """Ask no more."""
        self._channel.close()

    def ask(self, now: Callable[[], float]) -> Callable[[Merger], None]:
        """Ask what happened since the last time; return who tells it. From any thread, one call at a time."""
        asked_s = now()
        try:
            content = self._access.get(self._endpoint, f"/trace?after={self._after}", timeout_s=ANSWER_S)
        except OSError:
            self._after, self._quickest_s, self._asked, self._seen = 0, math.inf, True, None
            return lambda group: group.silent(self._place, at_s=asked_s)
        if content is None:
            return self._ask_status(now)
        page, at_s, first = msgspec.json.decode(content, type=TracePage), now(), self._after == 0
        if at_s - asked_s < self._quickest_s:
            self._quickest_s, self._offset_s = at_s - asked_s, (asked_s + at_s) / 2 - page.now_s
        self._after = page.next
        return lambda group: group.add(self._place, page, offset_s=self._offset_s, at_s=at_s, first=first)

    def _ask_status(self, now: Callable[[], float]) -> Callable[[Merger], None]:
        state: pb.StatusResponse | None
        try:
            state = self._status.Status(pb.StatusRequest(), timeout=ANSWER_S)
        except grpc.RpcError:
            state = None
        at_s = now()
        scenes = list(changes(self._place, self._seen, state, at_s=at_s, names=self._names, first=not self._asked))
        self._seen, self._asked = state, True

        def tell(group: Merger) -> None:
            for scene in scenes:
                group.tell(scene, place=self._place, at_s=at_s)

        return tell


def changes(
    place: int,
    before: pb.StatusResponse | None,
    after: pb.StatusResponse | None,
    *,
    at_s: float,
    names: Mapping[str, str],
    first: bool = False,
) -> Iterator[Scene]:
    """Yield what is new about one member since it was asked the last time."""
    if after is None:
        if before is not None or first:
            yield Became(at_s, place, "does not answer", "bad", up=False)
        return
    if before is None and not first:
        yield Became(at_s, place, "answers again", "good")
    leads = after.leader == after.header.member_id
    if before is None or (before.leader, before.raftTerm) != (after.leader, after.raftTerm):
        leader = names.get(f"{after.leader:x}", f"{after.leader:x}")
        text = f"LEADS in term {after.raftTerm}" if leads else f"follows {leader} in term {after.raftTerm}"
        if not after.leader:
            text = f"knows no leader, term {after.raftTerm}"
        yield Became(at_s, place, text, "new" if leads else "" if after.leader else "bad")
    if before is not None and after.raftAppliedIndex - before.raftAppliedIndex >= QUIET_APPLIED:
        span = f"{before.raftAppliedIndex + 1}..{after.raftAppliedIndex}"
        yield Became(at_s, place, f"applied {span} (revision {after.header.revision})", "quiet")
