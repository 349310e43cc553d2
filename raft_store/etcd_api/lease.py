"""The Lease service."""

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable

from raft_store.auth.model import Access
from raft_store.mvcc.model import LeaseId
from raft_store.mvcc.requests import Done, Granted, LeaseGrant, LeaseRenew, LeaseRevoke, Renewed
from trireme_pb.etcdserverpb import rpc_pb2 as pb

from .backend import Backend, refusals
from .call import NO_CONTEXT, CallContext
from .gathering import gathered

NO_SUCH_LEASE_S = -1
MAX_RENEWALS = 1_000  # in one proposal
ELECTIONS = 1.5  # election time-outs that a lease lasts at least, as in etcd


def shortest_ttl_s(election_timeout_s: float) -> int:
    """Return the least time of a lease, in whole seconds, where a leader may be silent for ``election_timeout_s``.

    Without a leader no lease ends, and the next one gives each its whole time anew (``LeaseKeeper``). But whoever holds
    a lease hears nothing meanwhile, and gives it up by its own clock when its time has passed without an answer, as
    etcd's clients and our masters do: so it has to be longer than a leader takes to be replaced. Where members have
    come to wait longer for theirs, that is longer, too.
    """
    return max(1, math.ceil(ELECTIONS * election_timeout_s))


class LeaseService:
    """etcdserverpb.Lease."""

    def __init__(self, backend: Backend, ids: random.Random) -> None:
        self._backend = backend
        self._ids = ids

    async def grant(self, request: pb.LeaseGrantRequest, call: CallContext = NO_CONTEXT) -> pb.LeaseGrantResponse:
        """Make a lease, longer than asked for if that is less than an election may take."""
        lease = LeaseId(request.ID or self._ids.randrange(1, 1 << 63))
        ttl_s = max(request.TTL, shortest_ttl_s(self._backend.election_timeout_s))
        granted = await self._backend.propose(LeaseGrant(lease, ttl_s), Granted, call)
        return pb.LeaseGrantResponse(header=self._backend.header(granted.revision), ID=granted.lease, TTL=granted.ttl_s)

    async def revoke(self, request: pb.LeaseRevokeRequest, call: CallContext = NO_CONTEXT) -> pb.LeaseRevokeResponse:
        """End a lease and delete its keys."""
        done = await self._backend.propose(LeaseRevoke(LeaseId(request.ID)), Done, call)
        return pb.LeaseRevokeResponse(header=self._backend.header(done.revision))

    async def keep_alive(
        self,
        requests: AsyncIterator[pb.LeaseKeepAliveRequest],
        send: Callable[[pb.LeaseKeepAliveResponse], Awaitable[None]],
        call: CallContext = NO_CONTEXT,  # noqa: ARG002 - whoever knows a lease may keep it alive
    ) -> None:
        """Renew leases as the client asks; a lease that is gone answers with TTL 0."""
        # Clients keep all their leases alive on one stream: one by one, ten thousand would take longer than they last.
        async for batch in gathered(requests, at_most=MAX_RENEWALS):
            header = self._backend.header()  # before the renewal, as clients expect
            leases = [LeaseId(request.ID) for request in batch]
            renewed = await self._backend.propose(LeaseRenew(leases), Renewed)
            for lease, ttl_s in zip(leases, renewed.ttls_s, strict=True):
                await send(pb.LeaseKeepAliveResponse(header=header, ID=lease, TTL=ttl_s))

    async def time_to_live(
        self, request: pb.LeaseTimeToLiveRequest, call: CallContext = NO_CONTEXT
    ) -> pb.LeaseTimeToLiveResponse:
        """Tell how long a lease will last by this member's clock, and what it holds, to who may read all of that."""
        await self._backend.linearize()
        machine = self._backend.machine
        held = machine.leases.get(LeaseId(request.ID))
        caller = await self._backend.caller(call)
        with refusals():
            for key in held.keys if held is not None else ():
                machine.auth.check(caller, Access.READ, key)
        if held is None:
            return pb.LeaseTimeToLiveResponse(header=self._backend.header(), ID=request.ID, TTL=NO_SUCH_LEASE_S)
        return pb.LeaseTimeToLiveResponse(
            header=self._backend.header(),
            ID=held.lease,
            TTL=int(machine.lease_clock.remaining_s(held.lease)),
            grantedTTL=held.ttl_s,
            keys=sorted(held.keys) if request.keys else (),
        )

    async def leases(
        self,
        request: pb.LeaseLeasesRequest,  # noqa: ARG002 - it says nothing
        call: CallContext = NO_CONTEXT,  # noqa: ARG002 - ids are no secret
    ) -> pb.LeaseLeasesResponse:
        """List every lease, the next to end first."""
        await self._backend.linearize()
        machine = self._backend.machine
        held = sorted(machine.leases.all(), key=lambda lease: machine.lease_clock.remaining_s(lease.lease))
        return pb.LeaseLeasesResponse(
            header=self._backend.header(), leases=[pb.LeaseStatus(ID=lease.lease) for lease in held]
        )
