"""What Kubernetes' own suite said is read and told rightly, and the page in docs/ is what was said last."""

import json
import re

import pytest

from tests.conformance import results
from tests.conformance.__main__ import PAGE

LOG = """\
STEP: Destroying namespace "x"
•{"msg":"PASSED [sig-apps] Job should delete a job [Conformance]","total":4,"completed":1,"skipped":2,"failed":0}
SSSSS
{"msg":"FAILED [k8s.io] Lease lease API should be available [Conformance]","total":4,"completed":1,"failed":1}
{"msg":"Test Suite starting","total":4,"completed":0,"skipped":0,"failed":0}
"""
KNOWN = [results.Known(re.compile("Aggregator"), "is not served")]


def test_a_log_tells_which_tests_passed():
    assert list(results.read_log(LOG)) == [
        ("[sig-apps] Job should delete a job [Conformance]", True),
        ("[k8s.io] Lease lease API should be available [Conformance]", False),
    ]


def test_every_test_that_did_not_pass_is_told_with_its_reason():
    page = results.table(
        {"[a] one [Conformance]": True, "[a] Aggregator | x": False, "[b] two": False, "[b] three": None}, KNOWN
    )
    assert "| a | 1 | 2 |" in page
    assert "| all | 1 | 4 |" in page
    assert "| a | Aggregator \\| x | is not served |" in page
    assert "| b | two | fails |" in page
    assert "| b | three | was not run |" in page
    assert "one" not in page.partition("## What does not pass")[2].partition("## To repeat it")[0]


def test_the_page_is_what_was_said_last():
    said = json.loads(results.RESULTS.read_text())
    assert PAGE.read_text() == results.table(said, results.known()), "run python -m tests.conformance"


@pytest.mark.parametrize("known", results.known(), ids=lambda known: known.pattern.pattern)
def test_what_is_known_not_to_pass_does_not(known):
    said = json.loads(results.RESULTS.read_text())
    matching = {name: passed for name, passed in said.items() if known.pattern.search(name)}
    assert matching
    assert not any(matching.values()), "it passes: take it off the list"
