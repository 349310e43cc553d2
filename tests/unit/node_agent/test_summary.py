"""The summary page: rates from two samples, pods as the sum of their containers."""

from typing import Any

import msgspec

from node_agent.statistics import Pressure, Sample, Size, Usage
from node_agent.summary import render_summary
from tests.unit.node_agent.pods.situations import NOW, instance, pod

MIB = 1 << 20


def render() -> Any:
    before = Sample(NOW, Usage(100.0, 300 * MIB), {"main-0": Usage(1.0, MIB)})
    after = Sample(
        NOW + 10,
        Usage(105.0, 400 * MIB, 500 * MIB, 300 * MIB, 7, 1),
        {"main-0": Usage(3.0, 2 * MIB), "side-0": Usage(1.0, 3 * MIB)},
    )
    running = [instance("main"), instance("side"), instance("ended")]
    page = render_summary(
        (before, after),
        [(pod(status={"startTime": "2027-01-15T07:58:00Z"}), running), (pod(), [])],
        node="node1",
        booted_at=NOW - 3600,
        size=Size(2, 1000 * MIB, 10),
        pressure=Pressure(1, 7, 10, 1, 1),
    )
    return msgspec.json.decode(page)


def test_the_node() -> None:
    node, at = render()["node"], "2027-01-15T08:00:10Z"
    assert node["nodeName"] == "node1"
    assert node["startTime"] == "2027-01-15T07:00:00Z"
    assert node["cpu"] == {"time": at, "usageNanoCores": 500_000_000, "usageCoreNanoSeconds": 105 * 10**9}
    assert node["memory"] == {
        "time": at,
        "usageBytes": 500 * MIB,
        "workingSetBytes": 400 * MIB,
        "availableBytes": 600 * MIB,
        "rssBytes": 300 * MIB,
        "pageFaults": 7,
        "majorPageFaults": 1,
    }
    assert node["fs"] == {"time": at, "availableBytes": 7, "capacityBytes": 10, "usedBytes": 3}


def test_pods_are_the_sum_of_what_runs_and_was_measured() -> None:
    (only,) = render()["pods"]
    assert only["podRef"] == {"name": "web", "namespace": "default", "uid": "uid-1"}
    assert only["startTime"] == "2027-01-15T07:58:00Z"
    cpu = {each["name"]: each["cpu"]["usageNanoCores"] for each in only["containers"]}
    assert cpu == {"main": 200_000_000, "side": 0}  # what has just come has no rate yet
    assert only["cpu"]["usageNanoCores"] == 200_000_000
    assert only["cpu"]["usageCoreNanoSeconds"] == 4 * 10**9
    assert only["memory"]["workingSetBytes"] == 5 * MIB
