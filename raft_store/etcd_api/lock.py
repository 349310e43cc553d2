"""The Lock service: the recipe of a mutex, run by the server."""

from trireme_pb.etcdserverpb import rpc_pb2 as pb
from trireme_pb.v3lockpb import v3lock_pb2 as lock_pb

from .call import NO_CONTEXT, CallContext
from .kv import KvService
from .turns import Turns


class LockService:
    """v3lockpb.Lock."""

    def __init__(self, turns: Turns, kv: KvService) -> None:
        self._turns = turns
        self._kv = kv

    async def lock(self, request: lock_pb.LockRequest, call: CallContext = NO_CONTEXT) -> lock_pb.LockResponse:
        """Return once the caller holds the lock; a caller who goes away meanwhile gives up its place."""
        prefix = request.name + b"/"
        place = await self._turns.queue_up(prefix, request.lease, b"", call)
        header = place.header if place.is_first else await self._turns.hold(prefix, place, call)
        return lock_pb.LockResponse(header=header, key=place.key)

    async def unlock(self, request: lock_pb.UnlockRequest, call: CallContext = NO_CONTEXT) -> lock_pb.UnlockResponse:
        """Delete the holder's key."""
        deleted = await self._kv.delete_range(pb.DeleteRangeRequest(key=request.key), call)
        return lock_pb.UnlockResponse(header=deleted.header)
