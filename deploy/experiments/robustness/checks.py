"""What a round's records prove or disprove. Pure: values in, findings out.

The watchers' logs together tell every revision, so they are the reference for each other and for the writers.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence

import msgspec

from deploy.experiments import linearizability
from deploy.experiments.linearizability import Get, Operation, Put, Verdict
from deploy.experiments.robustness.clients import Batch, Change, Gap, Hold, Progress, Records

EARLY_S = 0.05  # lateness of our own clock readings, not of the store


class Judgement(msgspec.Struct, frozen=True):
    """What is wrong; nothing, if ``faults`` is empty and all was ``decided``."""

    decided: bool
    faults: tuple[str, ...]
    acknowledged: int
    written: int  # of those
    unknown: int
    events: int


def judge(
    records: Records,
    *,
    final: Mapping[str, str] | None,
    final_revision: int,
    start_revision: int,
    now: Callable[[], float],
    limit_s: float,
) -> Judgement:
    """Judge one round; final: what was read at its end, key -> value, at ``final_revision``; None: nothing could be."""
    faults: list[str] = []
    finding = linearizability.check(records.operations, now=now, limit_s=limit_s)
    if finding.verdict is Verdict.VIOLATED:
        stuck = "; ".join(map(str, finding.stuck[:3]))
        faults.append(f"not linearizable: keys {sorted(finding.keys)}, no order gets past {stuck}")
    reference = merged(records.watches, faults)
    for number, log in enumerate(records.watches, 1):
        faults += [f"watcher {number}: {fault}" for fault in watch_faults(log, reference, start_revision)]
    faults += history_faults(reference)
    if final is not None:
        faults += lost_writes(records.operations, reference, final, final_revision)
        faults += lease_faults(records.holds, records.watches, final)
    acknowledged = sum(operation.response is not None for operation in records.operations)
    return Judgement(
        decided=finding.verdict is not Verdict.UNDECIDED,
        faults=tuple(faults),
        acknowledged=acknowledged,
        written=sum(operation.response is not None and _writes(operation) for operation in records.operations),
        unknown=len(records.operations) - acknowledged,
        events=sum(map(len, reference.values())),
    )


Reference = Mapping[int, Sequence[Change]]  # revision -> its changes


def merged(logs: Sequence[Sequence[Batch | Progress | Gap]], faults: list[str]) -> Reference:
    """Return what all watchers together say of each revision; add to ``faults`` where they contradict each other.

    Whether a change tells what it replaced may differ: that may have been compacted away for one of them.
    """
    reference: dict[int, list[Change]] = {}
    for log in logs:
        for batch in log:
            if not isinstance(batch, Batch):
                continue
            for revision, changes in _by_revision(batch.changes).items():
                known = reference.setdefault(revision, changes)
                if [_bare(each) for each in known] != [_bare(each) for each in changes]:
                    faults.append(f"watchers saw different events of revision {revision}: {known} and {changes}")
                if sum(each.prev > 0 for each in changes) > sum(each.prev > 0 for each in known):
                    reference[revision] = changes
    return reference


def watch_faults(log: Sequence[Batch | Progress | Gap], reference: Reference, start: int) -> list[str]:
    """Return where one watcher's log is out of order, repeated, torn, incomplete, or ahead of its bookmarks."""
    faults: list[str] = []
    revisions = sorted(reference)
    following = start  # the oldest revision that may still come

    def due(last: int) -> Sequence[int]:
        return _between(revisions, following, last)

    for record in log:
        match record:
            case Gap(revision=revision):
                if revision <= following:
                    faults.append(f"was told that {revision} is compacted, and wanted {following}")
                following = max(following, revision)
            case Progress(revision=revision):
                if missing := due(revision):
                    faults.append(f"was told to have heard all up to {revision}, without {missing[:5]}")
                following = max(following, revision + 1)
            case Batch(changes=changes, revision=header):
                told = [each.mod_revision for each in changes]
                if told != sorted(told):
                    faults.append(f"events out of order: {told}")
                if told[0] < following:
                    faults.append(f"an event of {told[0]} again, or before its time: {following} was next")
                if header < told[-1]:
                    faults.append(f"events of {told[-1]} under a header of {header}")
                if missing := sorted(set(due(told[-1])) - set(told)):
                    faults.append(f"events of revisions {missing[:5]} are missing before {told[-1]}")
                for revision, part in _by_revision(changes).items():
                    if len(part) != len(reference[revision]):
                        faults.append(f"a part of revision {revision}: {part} of {reference[revision]}")
                following = max(following, told[-1] + 1)
    return faults


def history_faults(reference: Reference) -> list[str]:
    """Return where events contradict those before them: versions that do not count, wrong ``prev_kv``."""
    faults: list[str] = []
    newest: dict[str, Change] = {}
    for revision in sorted(reference):
        for change in reference[revision]:
            before = newest.get(change.key)
            alive = before is not None and before.version > 0
            if alive and before is not None and change.prev not in (0, before.mod_revision):
                faults.append(f"{change} says that it replaced {change.prev}; it was {before}")
            if not alive and before is not None and change.prev:
                faults.append(f"{change} says that it replaced {change.prev}; the key was gone: {before}")
            if change.version and before is not None and change.version != before.version + 1:
                faults.append(f"{change} follows {before}")
            newest[change.key] = change
    return faults


def lost_writes(
    operations: Sequence[Operation], reference: Reference, final: Mapping[str, str], final_revision: int
) -> list[str]:
    """Return acknowledged writes that no watcher heard of, and how the end differs from the sum of all events."""
    faults: list[str] = []
    heard = {change.value for changes in reference.values() for change in changes}
    for operation in operations:
        response = operation.response
        if response is None or response.revision > final_revision:
            continue
        branch = operation.request.success if response.succeeded else operation.request.failure
        faults += [
            f"acknowledged at revision {response.revision}, and no watcher heard of it: {step}"
            for step in branch
            if isinstance(step, Put) and step.value not in heard
        ]
    state: dict[str, str] = {}
    for revision in sorted(reference):
        for change in reference[revision] if revision <= final_revision else ():
            if change.version:
                state[change.key] = change.value
            else:
                state.pop(change.key, None)
    differing = sorted(key for key in state.keys() | final.keys() if state.get(key) != final.get(key))
    if differing:
        key = differing[0]
        faults.append(
            f"the end is not the sum of the events: {len(differing)} keys differ, as {key}: "
            f"{final.get(key)} was read, {state.get(key)} was watched"
        )
    return faults


def lease_faults(
    holds: Sequence[Hold], logs: Sequence[Sequence[Batch | Progress | Gap]], final: Mapping[str, str]
) -> list[str]:
    """Return leases that ended before their time, or never."""
    ended: dict[str, float] = {}
    for log in logs:
        for batch in (record for record in log if isinstance(record, Batch)):
            for change in batch.changes:
                if not change.version:
                    ended[change.key] = min(batch.at_s, ended.get(change.key, math.inf))
    faults: list[str] = []
    for hold in holds:
        promised_s = min(hold.until_s, hold.revoked_s)
        gone_s = ended.get(hold.key, math.inf)
        if gone_s < promised_s - EARLY_S:
            faults.append(f"{hold.key} was gone {promised_s - gone_s:.2f} s before its lease could end")
        if hold.key in final:
            faults.append(f"{hold.key} is still there, long after its lease ran out")
    return faults


def _writes(operation: Operation) -> bool:
    return any(not isinstance(step, Get) for step in operation.request.success)


def _by_revision(changes: Sequence[Change]) -> dict[int, list[Change]]:
    parts: dict[int, list[Change]] = {}
    for change in changes:
        parts.setdefault(change.mod_revision, []).append(change)
    return parts


def _bare(change: Change) -> tuple[str, str, int, int]:
    return change.key, change.value, change.version, change.mod_revision


def _between(revisions: Sequence[int], first: int, last: int) -> Sequence[int]:
    return revisions[bisect_left(revisions, first) : bisect_right(revisions, last)]
