"""Do the members still agree? Every so often each takes a checksum of one moment, and the log compares them.

The leader proposes an ``Audit``. Its place in the log is a moment that all members pass in the same state, if they are
sound: there each opens a view of its keys, works out their checksum in steps beside its other work, and proposes what
it found. So every member sees all answers, and in the same order, and raises the same alarms: etcd's CORRUPT alarm, for
whoever differs from what a majority found. After it the store takes no writes until somebody has looked, and disarmed.

etcd's leader asks its peers for their hashes instead and compares them itself. Through the log nobody has to be asked,
nobody has to have the right revision at hand, and any engine can do it.
"""

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from raft_store.engine import Index, MemberId


class AuditState(msgspec.Struct, frozen=True, array_like=True):
    """The latest audit: where in the log it stands, and what the members found. Replicated."""

    index: Index = Index(0)  # 0: there was none
    hashes: Mapping[int, int] = {}


def report(state: AuditState, index: Index, member: MemberId, checksum: int) -> AuditState:
    """Return the audit with one more answer; an answer to another audit, or a second one, changes nothing."""
    if index != state.index or member in state.hashes:
        return state
    return AuditState(index, {**state.hashes, member: checksum})


def pick_corrupt(state: AuditState, members: Collection[int]) -> list[MemberId]:
    """Return whose state cannot be right, in order.

    members: the whole group. As soon as a majority of it agrees, whoever differs is wrong. If all have answered and no
    majority agrees, nobody can tell who is right: all are suspected.
    """
    counts = Counter(state.hashes.values())
    if len(counts) < 2:
        return []
    accepted, supporters = max(counts.items(), key=lambda item: (item[1], item[0]))
    if supporters > len(members) // 2:
        return [MemberId(member) for member in sorted(state.hashes) if state.hashes[member] != accepted]
    return [MemberId(member) for member in sorted(state.hashes)] if state.hashes.keys() >= set(members) else []
