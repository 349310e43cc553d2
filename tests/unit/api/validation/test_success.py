"""What a job's success policy may not be, in the real server's words."""

import pytest

from tests.unit.api.validation.objects import changed, faults_of, said
from tests.unit.api.validation.test_workloads import INDEXED

THREE = changed(INDEXED, "spec.completions", 3)
RULES = "spec.successPolicy.rules"
INDEXES, COUNT = f"{RULES}[0].succeededIndexes", f"{RULES}[0].succeededCount"


@pytest.mark.parametrize(
    "rule", [{"succeededIndexes": "0,2"}, {"succeededIndexes": "0-2", "succeededCount": 3}, {"succeededCount": 0}]
)
def test_good_rules(rule):
    assert faults_of("Job", THREE, "spec.successPolicy", {"rules": [rule]}) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], [f"{RULES}: Required value: at least one rules must be specified when the successPolicy is specified"]),
        ([{}], [f"{RULES}[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"]),
        ([{"succeededCount": 1}] * 21, [f"{RULES}: Too many: 21: must have at most 20 items"]),
        ([{"succeededIndexes": "2,0"}], [f'{INDEXES}: Invalid value: "2,0": error parsing succeededIndexes: non-increasing order, previous: 2, current: 0']),
        ([{"succeededIndexes": "1-0"}], [f'{INDEXES}: Invalid value: "1-0": error parsing succeededIndexes: non-increasing order, previous: 1, current: 0']),
        ([{"succeededIndexes": "3"}], [f'{INDEXES}: Invalid value: "3": error parsing succeededIndexes: too large index: "3"']),
        ([{"succeededIndexes": "one"}], [f'{INDEXES}: Invalid value: "one": error parsing succeededIndexes: cannot convert string to integer for index: "one"']),
        ([{"succeededIndexes": "9" * 5000}], [f'{INDEXES}: Invalid value: "999']),
        ([{"succeededIndexes": "0" * 70_000}], [f"{INDEXES}: Too long: may not be more than 65536 bytes"]),
        ([{"succeededCount": -1}], [f"{COUNT}: Invalid value: -1: must be greater than or equal to 0"]),
        ([{"succeededCount": 4}], [f"{COUNT}: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)"]),
        ([{"succeededIndexes": "0", "succeededCount": 2}],
         [f"{COUNT}: Invalid value: 2: must be less than or equal to 1 (the number of indexes in the specified succeededIndexes field)"]),
    ],
)  # fmt: skip
def test_rules_that_no_job_can_have(rules, expected):
    said(faults_of("Job", THREE, "spec.successPolicy", {"rules": rules}), expected)
