"""The Cluster service: who belongs to the group, who comes and who goes."""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from raft_store.config import peer_address
from raft_store.engine import Change, ChangeKind, EngineError, MemberId, MemberRecord
from raft_store.mvcc.model import Revision
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .errors import Code, RpcError, rpc_error

_SCHEMES = ("http", "https", "unix", "unixs")
_NO_REVISION = Revision(0)  # etcd's answers about the cluster have none


class ClusterService:
    """etcdserverpb.Cluster. Answers that list the members list them as they are after the change."""

    def __init__(self, backend: Backend, new_id: Callable[[], int], *, strict: bool) -> None:
        """new_id: gives a random 64-bit number; strict: refuse what might leave the group unable to agree."""
        self._backend = backend
        self._new_id = new_id
        self._strict = strict

    async def member_list(self, request: pb.MemberListRequest) -> pb.MemberListResponse:
        """List the members; one that never ran yet has neither name nor client address, as in etcd."""
        if request.linearizable:
            await self._backend.linearize()
        return pb.MemberListResponse(header=self._header(), members=self._members())

    async def member_add(self, request: pb.MemberAddRequest) -> pb.MemberAddResponse:
        """Add a member, which is to be started afterwards."""
        member = MemberId(self._new_id() or 1)
        kind = ChangeKind.ADD_LEARNER if request.isLearner else ChangeKind.ADD
        urls = _checked(request.peerURLs)
        await self._change(Change(kind, member, urls))
        return pb.MemberAddResponse(
            header=self._header(),
            member=pb.Member(ID=member, peerURLs=urls, isLearner=request.isLearner),
            members=self._members(),
        )

    async def member_remove(self, request: pb.MemberRemoveRequest) -> pb.MemberRemoveResponse:
        """Remove a member for ever; it ends itself once it hears of it."""
        await self._change(Change(ChangeKind.REMOVE, MemberId(request.ID)))
        return pb.MemberRemoveResponse(header=self._header(), members=self._members())

    async def member_update(self, request: pb.MemberUpdateRequest) -> pb.MemberUpdateResponse:
        """Tell everyone of another address of a member."""
        await self._change(Change(ChangeKind.MOVE, MemberId(request.ID), _checked(request.peerURLs)))
        return pb.MemberUpdateResponse(header=self._header(), members=self._members())

    async def member_promote(self, request: pb.MemberPromoteRequest) -> pb.MemberPromoteResponse:
        """Let a learner vote, if it has caught up."""
        await self._change(Change(ChangeKind.PROMOTE, MemberId(request.ID)))
        return pb.MemberPromoteResponse(header=self._header(), members=self._members())

    async def _change(self, change: Change) -> None:
        started = [MemberId(member) for member in self._backend.machine.members] if self._strict else None
        try:
            await self._backend.engine.change_members(
                [change], timeout_s=self._backend.request_timeout_s, started=started
            )
        except EngineError as exc:
            raise rpc_error(exc) from exc

    def _header(self) -> pb.ResponseHeader:
        return self._backend.header(_NO_REVISION)

    def _members(self) -> list[pb.Member]:
        return [self._member(record) for record in self._backend.engine.members()]

    def _member(self, record: MemberRecord) -> pb.Member:
        published = self._backend.machine.members.get(record.member)
        return pb.Member(
            ID=record.member,
            name=published.name if published else "",
            peerURLs=record.peer_urls,
            clientURLs=published.client_urls if published else (),
            isLearner=record.learner,
        )


def _checked(urls: Sequence[str]) -> tuple[str, ...]:
    """Return peer URLs in etcd's order; raises RpcError unless each is a scheme, a host and a port."""
    checked = sorted(url.strip() for url in urls)
    if not checked or not all(_is_peer_url(url) for url in checked):
        raise RpcError(Code.INVALID_ARGUMENT, "etcdserver: given member URLs are invalid")
    return tuple(checked)


def _is_peer_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _SCHEMES or not parts.hostname or port is None or parts.path:
        return False
    # Nothing may follow: what stands in the log, every member dials, now and after every start.
    return peer_address(url).rpartition(":")[2].isdecimal()
