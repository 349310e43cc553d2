"""How much a member may hold. As in etcd, the first write that would not fit is refused, and raises the alarm for all.

Under the alarm writes are refused everywhere; deleting, compacting and defragmenting go on, so that room can be made.
It stays until somebody disarms it: that there is room again is no proof that whatever filled it has ended.
"""

from raft_store.mvcc.model import VERSION_OVERHEAD_BYTES
from raft_store.mvcc.requests import LeaseGrant, Put, Txn

LEASE_BYTES = 64


def cost_of(command: object) -> int:
    """Return about how many bytes more the store holds after ``command``; 0 for what may be done without room."""
    match command:
        case Put():
            return len(command.key) + len(command.value) + VERSION_OVERHEAD_BYTES
        case Txn():
            return max(sum(map(cost_of, command.success)), sum(map(cost_of, command.failure)))
        case LeaseGrant():
            return LEASE_BYTES
        case _:
            return 0


def fits(command: object, *, held_bytes: int, quota_bytes: int) -> bool:
    """Return whether ``command`` may be proposed; a quota of 0 is none."""
    cost = cost_of(command) if quota_bytes else 0
    return cost == 0 or held_bytes + cost <= quota_bytes
