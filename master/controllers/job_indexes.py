"""Completion indexes: which of an indexed Job's parts are done, as its status writes them: ``0,3-5``."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from api.kinds.pods import Pod

INDEX = "batch.kubernetes.io/job-completion-index"  # a pod's annotation and label
FAILURES = "batch.kubernetes.io/job-index-failure-count"  # a pod's annotation: how often its index failed before


def parse(text: str, below: int) -> frozenset[int]:
    """Return the indexes that ``text`` names; what is no range, or not ``below``, is left out."""
    ranges = []
    for part in filter(None, text.split(",")):
        begin, _, end = part.partition("-")
        if begin.isdecimal() and (not end or end.isdecimal()):
            # Ten digits are more than there are indexes; of thousands no number is made at all.
            ranges.append((int(begin[:10]), min(int((end or begin)[:10]), below - 1)))
    found: set[int] = set()
    at = 0
    for first, last in sorted(ranges):
        # Each index once: a Job's author may write the same ones again and again.
        found.update(range(max(first, at), last + 1))
        at = max(at, last + 1)
    return frozenset(found)


def render(indexes: Iterable[int]) -> str:
    """Return the indexes as ranges, in order."""
    ranges: list[list[int]] = []
    for each in sorted(indexes):
        if ranges and each == ranges[-1][1] + 1:
            ranges[-1][1] = each
        else:
            ranges.append([each, each])
    # Two neighbours are written one by one, as the real controller does.
    return ",".join(_range(first, last) for first, last in ranges)


def _range(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def index_of(pod: Pod) -> int | None:
    """Return the index that a pod works on; None if it names none."""
    return _number(pod, INDEX)


def failures_before(pod: Pod) -> int:
    """Return how often the pod's index had failed when the pod was made."""
    return _number(pod, FAILURES) or 0


def _number(pod: Pod, annotation: str) -> int | None:
    text = pod.metadata.annotations.get(annotation, "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def covers(done: AbstractSet[int], wanted: AbstractSet[int], count: int | None) -> bool:
    """Return whether all ``wanted`` indexes are done, or ``count`` of them if that is given."""
    return len(done & wanted) >= (len(wanted) if count is None else count)
