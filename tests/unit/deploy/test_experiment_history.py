"""The figures of an experiment, from histories small enough to check by eye."""

import re
from xml.etree import ElementTree as ET

import pytest

from deploy.experiments import history, report
from deploy.experiments.cli import INCONCLUSIVE, LOST, _exit_status
from deploy.experiments.history import Mark, Operation, Outcome, Round, Sample
from deploy.experiments.scenario import SCENARIOS, WORKLOADS, Target, writers


def _op(done_s, *, outcome=Outcome.ACKNOWLEDGED, target="store", key="", client="c"):
    return Operation(client, target, key or f"k{done_s}", done_s - 0.01, done_s, outcome)


def _sample(at_s, member, leader, term=1):
    return Sample(at_s, member, leader, term, 0, 0)


def _round(operations, samples=(), found=frozenset(), redundant_s=None, **more):
    marks = (Mark(10.0, "kill m1"),)
    return Round(1, "m1", 10.0, 15.0, tuple(operations), tuple(samples), marks, found, redundant_s, **more)


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        ([9.9, 10.4, 10.5], 0.5),
        ([9.9, 10.1, 12.0], 1.9),  # a later silence counts too: an election may fail and be held again
        ([5.0, 9.9, 10.0], None),  # nothing after the fault: the gap has no end
        ([10.5, 11.0], None),
        ([1.0, 9.0, 9.9, 10.1], 0.2),  # silence long before the fault is not its doing
    ],
)
def test_gap(times, gap):
    measured = history.gap_s([_op(at) for at in times], target="store", fault_s=10.0)
    assert measured == (None if gap is None else pytest.approx(gap))


def test_unacknowledged_writes_and_other_targets_do_not_shorten_the_gap():
    operations = [_op(9.9), _op(10.1, outcome=Outcome.UNKNOWN), _op(10.2, target="api"), _op(11.0)]
    assert history.gap_s(operations, target="store", fault_s=10.0) == pytest.approx(1.1)


def test_election_needs_a_survivor_that_names_a_new_leader():
    samples = [
        _sample(9.9, "m2", "m1"),
        _sample(10.1, "m1", "m2", 2),  # the victim's own word does not count
        _sample(10.2, "m2", ""),
        _sample(10.3, "m3", "m1"),
        _sample(10.4, "m3", "m2", 2),
    ]
    assert history.election_s(samples, victim="m1", fault_s=10.0) == pytest.approx(0.4)
    assert history.election_s(samples[:4], victim="m1", fault_s=10.0) is None
    assert history.false_elections([_sample(8, "m1", "m1", 1), _sample(9, "m2", "m1", 3)], fault_s=10.0) == 1


def test_only_acknowledged_writes_can_be_lost():
    operations = [_op(9.9, key="a"), _op(10.1, key="b", outcome=Outcome.UNKNOWN), _op(10.2, key="c")]
    verdict = history.judge(_round(operations, found=frozenset({"a"}), redundant_s=17.5))
    assert verdict.lost == ("c",)
    assert verdict.full_redundancy_s == pytest.approx(2.5)
    assert (verdict.acknowledged, verdict.unknown, verdict.refused) == (2, 1, 0)
    assert report.verdict_line([verdict]) == "LOST: 1 of 2 acknowledged writes are gone"


def test_the_page_shows_every_round_and_needs_no_network(tmp_path):
    operations = [_op(9.0 + n / 10, key=str(n), client=f"c{n % 2}") for n in range(30)]
    operations.append(_op(10.5, outcome=Outcome.UNKNOWN, client="c1"))
    record = _round(operations, found=frozenset(each.key for each in operations))
    verdict = history.judge(record)
    page = tmp_path / "report.html"
    report.write_html(
        page, SCENARIOS["leader-kill"], [record], [verdict], lab="<lab>", engine="native", workload=WORKLOADS["native"]
    )
    text = page.read_text()
    assert "no write lost" in text
    assert "&lt;lab&gt;" in text
    assert not re.findall(r"(?:src|href)=", text)
    picture = tmp_path / "round.svg"
    report.write_svg(picture, record, verdict)
    drawn = ET.fromstring(picture.read_text())
    assert len(drawn.findall(".//{*}path[@class='tick']")) == 2
    chart = report.timeline(record, verdict)
    assert [lane["name"] for lane in chart["lanes"]] == ["c0", "c1"]
    assert len(chart["lanes"][1]["failed"]) == 1
    assert chart["gap"]["seconds"] == pytest.approx(verdict.store_gap_s)


def test_what_nobody_could_read_back_is_neither_there_nor_lost():
    operations = [_op(9.9, key="a"), _op(10.1, key="b", target="api"), _op(10.2, key="c", target="api")]
    verdict = history.judge(_round(operations, found=frozenset({"a"}), unread=("api",)))
    assert (verdict.lost, verdict.unread) == ((), 2)
    line = report.verdict_line([verdict])
    assert line.startswith("NOT KNOWN: none of the 1 acknowledged writes that could be read back is lost")
    assert "2 acknowledged writes could not be read back" in line


def test_a_round_without_a_leader_to_strike_says_so():
    verdict = history.judge(_round([], problem="no leader was agreed on within 60 s"))
    assert report.verdict_line([verdict]) == (
        "nothing was acknowledged, so nothing could be lost; round 1: no leader was agreed on within 60 s"
    )


@pytest.mark.parametrize(
    ("found", "more", "status"),
    [
        ({"a", "b"}, {}, 0),
        ({"a"}, {}, LOST),
        ({"a"}, {"unread": ("api",)}, INCONCLUSIVE),
        ({"b"}, {"unread": ("api",)}, LOST),  # what is known to be lost outweighs what is not known
        ({"a", "b"}, {"problem": "no leader"}, INCONCLUSIVE),
    ],
)
def test_the_exit_status_tells_whether_a_write_was_lost(found, more, status):
    operations = [_op(9.9, key="a"), _op(10.1, key="b", target="api")]
    assert _exit_status([history.judge(_round(operations, found=frozenset(found), **more))]) == status


def test_a_store_that_stalls_gets_one_writer_that_starts_at_the_leader():
    members = {"10.0.0.1:1": "m1", "10.0.0.2:1": "m2", "10.0.0.3:1": "m3"}
    everyone = writers(Target(members, "", WORKLOADS["native"]), "m2")
    assert sorted(everyone) == [(endpoint,) for endpoint in members]
    assert writers(Target(members, "", WORKLOADS["raftos"]), "m2") == [("10.0.0.2:1", "10.0.0.1:1", "10.0.0.3:1")]
