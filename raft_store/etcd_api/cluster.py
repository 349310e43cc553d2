"""The Cluster service. The group is what every member's configuration says; changing it live is refused."""

from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend
from .errors import Code, RpcError

_FIXED = "etcdserver: the members of this store are fixed by its configuration"


class ClusterService:
    """etcdserverpb.Cluster."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def member_list(self, request: pb.MemberListRequest) -> pb.MemberListResponse:
        """List the members; one that never ran yet has neither name nor client address, as in etcd."""
        if request.linearizable:
            await self._backend.linearize()
        return pb.MemberListResponse(
            header=self._backend.header(),
            members=[self._member(facts.member, facts.peer_urls) for facts in self._backend.members],
        )

    async def refuse(self, request: object) -> pb.MemberListResponse:  # noqa: ARG002
        """Refuse to change the group."""
        raise RpcError(Code.UNIMPLEMENTED, _FIXED)

    def _member(self, member: int, peer_urls: list[str]) -> pb.Member:
        published = self._backend.machine.members.get(member)
        if published is None:
            return pb.Member(ID=member, peerURLs=peer_urls)
        return pb.Member(ID=member, name=published.name, peerURLs=peer_urls, clientURLs=published.client_urls)
