"""A running group as a sequence of scenes, as far as its members tell when they are asked."""

from collections.abc import Callable, Iterator, Mapping

import grpc

from raft_store.tool import live
from raft_store.tool.live import Access
from raft_store.tool.sequence import Became, Scene
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc

ASK_EVERY_S = 0.1
ANSWER_S = 0.3
QUIET_APPLIED = 1  # entries; fewer new ones are not worth a line


def watch(
    access: Access, *, seconds: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> tuple[list[str], Iterator[Scene]]:
    """Return the members' names, and what happens to them for so long, as it happens. Raises StoreUnreachable."""
    found = sorted((one.name or one.id, one.id, one.client_urls[0]) for one in live.members(access) if one.client_urls)
    names = {member: name for name, member, _ in found}
    return [name for name, _, _ in found], _scenes(
        access, [endpoint for _, _, endpoint in found], names, seconds=seconds, now=now, sleep=sleep
    )


def _scenes(
    access: Access,
    endpoints: list[str],
    names: Mapping[str, str],
    *,
    seconds: float,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Scene]:
    began = now()
    channels = [access.open(endpoint) for endpoint in endpoints]
    try:
        stubs = [rpc_pb2_grpc.MaintenanceStub(channel) for channel in channels]
        seen: list[pb.StatusResponse | None] = [None] * len(stubs)
        first = True
        while now() - began < seconds:
            for place, stub in enumerate(stubs):
                state = _ask(stub)
                yield from changes(place, seen[place], state, at_s=now() - began, names=names, first=first)
                seen[place] = state
            first = False
            sleep(ASK_EVERY_S)
    finally:
        for channel in channels:
            channel.close()


def _ask(stub: rpc_pb2_grpc.MaintenanceStub) -> pb.StatusResponse | None:
    try:
        return stub.Status(pb.StatusRequest(), timeout=ANSWER_S)
    except grpc.RpcError:
        return None


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
