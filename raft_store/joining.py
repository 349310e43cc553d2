"""Who a member is when it starts: one that was here before, a founder of a new group, or one that joins a group.

A member that joins was added to the group's list first (``etcdctl member add``), under an id that it does not know. It
asks those whom its configuration names, and finds itself in their list by its own address, as in etcd.
"""

import asyncio
import logging
from collections.abc import Mapping

from fastgrpc.calls import CallFailed, Status
from raft_store.config import peer_address
from raft_store.disk.directory import Directory
from raft_store.disk.identity import Identity, check_identity, load_identity, save_identity
from raft_store.engine import EngineError, MemberId
from raft_store.peer_link import SERVICE, open_channel
from raft_store.raft import membership
from raft_store.raft.membership import Configuration
from raft_store.tls import TlsFiles
from trireme_pb.raft import raft_pb2

log = logging.getLogger(__name__)

JOIN_S = 20.0  # for the others to answer, and to have heard of us
ASK_S = 1.0  # for one of them
ASK_AGAIN_S = 0.3


class JoinFailed(EngineError):
    """The group that this member is to join cannot be found, or does not know it."""


async def founder(
    directory: Directory,
    *,
    cluster: str,
    member: MemberId,
    name: str,
    members: Mapping[MemberId, str],
    tls: TlsFiles | None,
) -> Identity:
    """Return who we are: what the directory says or, if it is fresh, one of the founders ``members``.

    Raises DiskError if the data is not ours, Removed if it is of no use any more, JoinFailed if there was more of it.
    """
    found = await asyncio.to_thread(load_identity, directory)
    if found is not None:
        check_identity(found, cluster=cluster, member=member, name=name)
        return found
    others = [url for other, url in members.items() if other != member]
    witnesses = await asyncio.gather(*(_knows_us(url, member, cluster=cluster, tls=tls) for url in others))
    if any(witnesses):
        raise JoinFailed(
            f"member {member:x} {name} has taken part in cluster {cluster!r} before, and its data is gone: what it "
            "confirmed and voted for cannot be taken back. Remove it (etcdctl member remove), add it as a new member "
            'and start it with initial_cluster_state = "existing"'
        )
    identity = Identity(
        cluster=cluster, member=member, name=name, founders={founder: (url,) for founder, url in members.items()}
    )
    await asyncio.to_thread(save_identity, directory, identity)
    return identity


async def _knows_us(url: str, member: MemberId, *, cluster: str, tls: TlsFiles | None) -> bool:
    """Return whether another member has seen us take part; one that does not answer has not."""
    try:
        return member in (await _describe(url, cluster=cluster, tls=tls)).started
    except CallFailed:
        return False


async def joiner(
    directory: Directory, *, cluster: str, own_url: str, name: str, others: list[str], tls: TlsFiles | None
) -> Identity:
    """Return who we are: what the directory says or, if it is fresh, what the members at ``others`` say.

    own_url: our address in the group's list. Raises DiskError, JoinFailed.
    """
    found = await asyncio.to_thread(load_identity, directory)
    if found is not None:
        check_identity(found, cluster=cluster, member=found.member, name=name)
        return found
    configuration = await _find(others, cluster=cluster, own_url=own_url, tls=tls)
    identity = Identity(
        cluster=cluster,
        member=_owner(configuration, own_url),
        name=name,
        founders={},
        contacts=configuration.urls,
    )
    await asyncio.to_thread(save_identity, directory, identity)
    log.info("joins member=%x name=%s members=%d", identity.member, name, len(configuration.members))
    return identity


async def _find(others: list[str], *, cluster: str, own_url: str, tls: TlsFiles | None) -> Configuration:
    """Ask around until somebody's list has us."""
    problems: dict[str, str] = {}
    try:
        async with asyncio.timeout(JOIN_S):
            while True:
                for url in others:
                    try:
                        description = await _describe(url, cluster=cluster, tls=tls)
                    except CallFailed as exc:
                        if exc.status is Status.FAILED_PRECONDITION:
                            raise JoinFailed(f"{url}: {exc.message}") from exc
                        problems[url] = f"{url} does not answer ({exc.status.name})"
                        continue
                    configuration = membership.decode(description.configuration)
                    if _owner(configuration, own_url):
                        return configuration
                    problems[url] = f"{url} knows no member at {own_url}"
                await asyncio.sleep(ASK_AGAIN_S)
    except TimeoutError as exc:
        asked = "; ".join(problems.values()) or "[members] names nobody else"
        raise JoinFailed(
            f"cannot join cluster {cluster!r}: {asked}. A member is added first: etcdctl member add NAME "
            f"--peer-urls={own_url}"
        ) from exc


async def _describe(url: str, *, cluster: str, tls: TlsFiles | None) -> raft_pb2.Description:
    channel = open_channel(peer_address(url), tls)
    try:
        request = raft_pb2.DescribeRequest(cluster=cluster)
        answer = await channel.unary(SERVICE + "Describe", request.SerializeToString(), timeout_s=ASK_S)
    finally:
        await channel.close()
    return raft_pb2.Description.FromString(answer)


def _owner(configuration: Configuration, url: str) -> MemberId:
    """Return whose address it is; 0: nobody's."""
    address = peer_address(url)
    return next(
        (member for member, urls in configuration.urls.items() if address in (peer_address(known) for known in urls)),
        MemberId(0),
    )
