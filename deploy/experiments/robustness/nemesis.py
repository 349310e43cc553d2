"""Faults of whole processes, one after the other; each strikes, holds for a while, and is mended."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeAlias

import grpc.aio

from deploy.experiments.robustness.members import FAKETIME, Members
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.etcdserverpb import rpc_pb2_grpc as rpc

Fault: TypeAlias = Callable[[Members, Random], Awaitable[str]]  # strikes; returns what it did, in words


async def _victim(members: Members, random: Random) -> str:
    """Return the leader in most cases, for it hurts most."""
    leader = await members.leader()
    return leader if leader is not None and random.random() < 0.7 else random.choice(list(members.members))


async def _obedient(members: Members, random: Random) -> str | None:
    """Return a victim whose disk takes orders; None if there is no such member."""
    obedient = [name for name, member in members.members.items() if member.obeys]
    victim = await _victim(members, random)
    return victim if victim in obedient else random.choice(obedient or [None])


async def kill(members: Members, random: Random) -> str:
    """SIGKILL one."""
    victim = await _victim(members, random)
    members.kill(victim)
    return f"kill {victim}"


async def kill_all(members: Members, random: Random) -> str:
    """SIGKILL everybody at once: only what is on disk is left."""
    del random
    for name in members.members:
        members.kill(name)
    return "kill everybody"


async def pause(members: Members, random: Random) -> str:
    """SIGSTOP one."""
    victim = await _victim(members, random)
    members.pause(victim)
    return f"pause {victim}"


async def partition(members: Members, random: Random) -> str:
    """Cut one off, from all others, perhaps one way only."""
    victim = await _victim(members, random)
    direction = random.choice(("both", "both", "in", "out"))
    for other in members.members:
        if other != victim:
            members.wires.cut |= {(victim, other)} if direction != "in" else set()
            members.wires.cut |= {(other, victim)} if direction != "out" else set()
    return f"partition {victim} {direction}"


async def ring(members: Members, random: Random) -> str:
    """Let nobody reach everybody: each member loses another one."""
    names = list(members.members)
    random.shuffle(names)
    members.wires.cut = {(one, names[place - 1]) for place, one in enumerate(names)}
    return f"ring {' '.join(names)}"


async def bad_wires(members: Members, random: Random) -> str:
    """Delay everything, and stall some."""
    members.wires.delay_s = random.choice((0.01, 0.03, 0.075))
    members.wires.stall = 0.05
    return f"wires slow by {members.wires.delay_s * 1000:.0f} ms, one chunk in twenty lost once"


async def slow_disk(members: Members, random: Random) -> str:
    """Let one member's disk take its time."""
    if (victim := await _obedient(members, random)) is None:
        return "no disk takes orders"
    sync_ms = random.choice((20, 100, 500))
    members.order_disk(victim, sync_ms=sync_ms)
    return f"disk of {victim} slow by {sync_ms} ms"


async def failing_disk(members: Members, random: Random) -> str:
    """Let one member's syncs fail: it has to end, and loses nothing that it had promised."""
    if (victim := await _obedient(members, random)) is None:
        return "no disk takes orders"
    members.order_disk(victim, fail_syncs=True)
    return f"disk of {victim} fails"


async def move_leader(members: Members, random: Random) -> str:
    """Ask the leader to hand over."""
    leader = await members.leader()
    if leader is None:
        return "nobody leads"
    with contextlib.suppress(grpc.aio.AioRpcError):
        maintenance = rpc.MaintenanceStub(members.channels[leader])
        heir = random.choice([name for name in members.members if name != leader])
        target = await rpc.MaintenanceStub(members.channels[heir]).Status(pb.StatusRequest(), timeout=1)
        await maintenance.MoveLeader(pb.MoveLeaderRequest(targetID=target.header.member_id), timeout=3)
    return f"move the lead from {leader}"


async def compact(members: Members, random: Random) -> str:
    """Compact nearly everything, and defragment a member, while watchers are behind."""
    name = random.choice(list(members.members))
    channel = members.channels[name]
    with contextlib.suppress(grpc.aio.AioRpcError):
        status = await rpc.MaintenanceStub(channel).Status(pb.StatusRequest(), timeout=1)
        revision = max(1, status.header.revision - random.randrange(20))
        await rpc.KVStub(channel).Compact(pb.CompactionRequest(revision=revision, physical=True), timeout=2)
        await rpc.MaintenanceStub(channel).Defragment(pb.DefragmentRequest(), timeout=5)
    return f"compact and defragment at {name}"


async def replace(members: Members, random: Random) -> str:
    """Remove a member for good and let a new one, with an empty disk, take its place."""
    victim = random.choice(list(members.members))
    try:
        fresh = await members.replace(victim)
    except grpc.aio.AioRpcError as exc:  # before anything was changed: too few answer, say
        return f"replacing {victim} was refused: {exc.details()}"
    return f"replace {victim} by {fresh}"


async def jump_clocks(members: Members, random: Random) -> str:
    """Let the wall clock of one jump, by up to a day, forth or back, and jump back when all is mended."""
    victim = await _victim(members, random)
    offset_s = random.choice((-86_400, -3_600, -5, 5, 3_600, 86_400))
    members.set_clock(victim, offset_s)
    return f"clock of {victim} jumps by {offset_s} s"


FAULTS: tuple[Fault, ...] = (
    kill,
    pause,
    partition,
    slow_disk,
    failing_disk,
    move_leader,
    compact,
    bad_wires,
    kill_all,
    ring,
    replace,
    *((jump_clocks,) if FAKETIME is not None else ()),
)
WITHOUT_WIRES: tuple[Fault, ...] = (kill, pause, kill_all, compact)  # for an engine with transport and disk of its own


async def torment(
    members: Members,
    random: Random,
    *,
    faults: tuple[Fault, ...],
    for_s: float,
    mark: Callable[[str], None],
) -> None:
    """Strike with each fault in turn, in random order, until the time is over; leave everything mended."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + for_s
    bag: list[Fault] = []
    try:
        while loop.time() < deadline:
            if not bag:
                bag = random.sample(faults, len(faults))
            mark(await bag.pop()(members, random))
            await asyncio.sleep(random.uniform(0.3, 2.5))
            members.mend()
            mark("mended")
            await asyncio.sleep(random.uniform(0.5, 2.0))
    finally:
        members.mend()
