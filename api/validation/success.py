"""What a job's success policy may not be: which indexes have to be done, or how many, to call it a success."""

from api.errors import Fault
from api.faults import not_negative, required, too_long, too_many, wrong
from api.kinds.batch import JobSpec, SuccessPolicyRule

_MOST_RULES = 20
_LONGEST_INDEXES = 64 * 1024


def success_faults(spec: JobSpec, field: str) -> list[Fault]:
    """Return what is wrong with the success policy of an Indexed job; ``field``: where it stands."""
    assert spec.success_policy is not None, spec
    at, rules = f"{field}.rules", spec.success_policy.rules
    if not rules:
        return [required(at, "at least one rules must be specified when the successPolicy is specified")]
    faults = [too_many(at, len(rules), _MOST_RULES)] if len(rules) > _MOST_RULES else []
    for number, rule in enumerate(rules):
        faults += _rule_faults(rule, spec.completions or 0, f"{at}[{number}]")
    return faults


def _rule_faults(rule: SuccessPolicyRule, completions: int, field: str) -> list[Fault]:
    if rule.succeeded_count is None and not rule.succeeded_indexes:
        return [required(field, "at least one of succeededCount or succeededIndexes must be specified")]
    faults: list[Fault] = []
    named = 0
    if indexes := rule.succeeded_indexes:
        at = f"{field}.succeededIndexes"
        if len(indexes) > _LONGEST_INDEXES:
            return [too_long(at, _LONGEST_INDEXES)]
        try:
            named = _count(indexes, completions)
        except ValueError as error:
            faults.append(wrong(at, indexes, f"error parsing succeededIndexes: {error}"))
    if (count := rule.succeeded_count) is not None:
        at = f"{field}.succeededCount"
        faults += not_negative(count, at)
        if count > completions:
            why = f"must be less than or equal to {completions} (the number of specified completions)"
            faults.append(wrong(at, count, why))
        if rule.succeeded_indexes and count > named:
            why = (
                f"must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            )
            faults.append(wrong(at, count, why))
    return faults


def _count(text: str, completions: int) -> int:
    """Return how many indexes ``1,3-5`` names: rising, each once, below ``completions``; raises ValueError."""
    total, last = 0, -1
    for part in text.split(","):
        begin, dash, end = part.partition("-")
        first = _index(begin, completions)
        final = _index(end, completions) if dash else first
        if final < first or (dash and final == first):
            raise ValueError(f"non-increasing order, previous: {first}, current: {final}")
        if first <= last:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + final - first + 1, final
    return total


def _index(text: str, completions: int) -> int:
    # More digits than any count of completions has: of thousands no number is made.
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(2**31)):
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if (index := int(text)) >= completions:
        raise ValueError(f'too large index: "{index}"')
    return index
