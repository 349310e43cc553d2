"""The Election service: the recipe of an election, run by the server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from raft_store.mvcc.model import Revision
from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.v3electionpb import v3election_pb2 as election_pb

from .backend import Backend, key_value
from .call import NO_CONTEXT, CallContext
from .errors import Code, RpcError
from .kv import KvService
from .turns import Turns, created, prefix_end

Send = Callable[[election_pb.LeaderResponse], Awaitable[None]]


class ElectionService:
    """v3electionpb.Election."""

    def __init__(self, backend: Backend, turns: Turns, kv: KvService) -> None:
        self._backend = backend
        self._turns = turns
        self._kv = kv

    async def campaign(
        self, request: election_pb.CampaignRequest, call: CallContext = NO_CONTEXT
    ) -> election_pb.CampaignResponse:
        """Return once the caller leads; a caller who goes away meanwhile gives up its candidacy."""
        prefix = request.name + b"/"
        place = await self._turns.queue_up(prefix, request.lease, request.value, call)
        leader = election_pb.LeaderKey(name=request.name, key=place.key, rev=place.revision, lease=place.lease)
        if place.value != request.value:  # the candidate of before has something else to say now
            await self._proclaim(leader, request.value, call)
        if not place.is_first:
            await self._turns.wait(prefix, place, call)
        return election_pb.CampaignResponse(header=place.header, leader=leader)

    async def proclaim(
        self, request: election_pb.ProclaimRequest, call: CallContext = NO_CONTEXT
    ) -> election_pb.ProclaimResponse:
        """Say something else as the leader."""
        _check_leader(request)
        leader = election_pb.LeaderKey()
        leader.CopyFrom(request.leader)
        if not leader.lease:  # without one the key would outlive its leader
            leader.lease = await self._turns.session(call)
        return election_pb.ProclaimResponse(header=await self._proclaim(leader, request.value, call))

    async def leader(
        self, request: election_pb.LeaderRequest, call: CallContext = NO_CONTEXT
    ) -> election_pb.LeaderResponse:
        """Tell who leads."""
        found = await self._turns.first(request.name + b"/", call)
        if not found.kvs:
            raise RpcError(Code.UNKNOWN, "election: no leader")
        return election_pb.LeaderResponse(header=found.header, kv=found.kvs[0])

    async def observe(
        self, requests: AsyncIterator[election_pb.LeaderRequest], send: Send, call: CallContext = NO_CONTEXT
    ) -> None:
        """Tell of each leader, and of what each says, until the caller goes away."""
        request = await anext(aiter(requests))
        while True:
            leader = await self._next_leader(request.name + b"/", call)
            await send(leader)
            await self._follow(leader, send, call)

    async def resign(
        self, request: election_pb.ResignRequest, call: CallContext = NO_CONTEXT
    ) -> election_pb.ResignResponse:
        """Let the next candidate lead; one who does not lead any more is not told so."""
        _check_leader(request)
        return election_pb.ResignResponse(header=await self._turns.leave(request.leader.key, request.leader.rev, call))

    async def _proclaim(self, leader: election_pb.LeaderKey, value: bytes, call: CallContext) -> pb.ResponseHeader:
        put = pb.RequestOp(request_put=pb.PutRequest(key=leader.key, value=value, lease=leader.lease))
        response = await self._kv.txn(pb.TxnRequest(compare=[created(leader.key, leader.rev)], success=[put]), call)
        if not response.succeeded:
            raise RpcError(Code.UNKNOWN, "election: not leader")
        return response.header

    async def _next_leader(self, prefix: bytes, call: CallContext) -> election_pb.LeaderResponse:
        found = await self._turns.first(prefix, call)
        if found.kvs:
            return election_pb.LeaderResponse(header=found.header, kv=found.kvs[0])
        async with aclosing(self._turns.events(prefix, prefix_end(prefix), found.header.revision, call)) as events:
            async for _, event in events:
                if not event.is_delete:
                    break
        # The changes of a store have no end but this one.
        return election_pb.LeaderResponse(header=self._backend.header(event.kv.mod_revision), kv=key_value(event.kv))

    async def _follow(self, leader: election_pb.LeaderResponse, send: Send, call: CallContext) -> None:
        """Tell what a leader says until its key is gone."""
        start = leader.header.revision + 1
        async with aclosing(self._turns.events(leader.kv.key, b"", start, call)) as events:
            async for revision, event in events:
                if event.is_delete:
                    return
                header = self._backend.header(Revision(revision))
                await send(election_pb.LeaderResponse(header=header, kv=key_value(event.kv)))


def _check_leader(request: election_pb.ProclaimRequest | election_pb.ResignRequest) -> None:
    if not request.HasField("leader"):
        raise RpcError(Code.UNKNOWN, '"leader" field must be provided')
