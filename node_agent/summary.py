"""What node, pods and containers use, as the kubelet's summary page shows it (``stats/summary``): pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api.kinds.pods import Pod
from client.clock import timestamp
from node_agent.runtime.base import Container
from node_agent.statistics import Pressure, Sample, Size, Usage, cores_used

_NANO = 10**9

Document = dict[str, Any]


def render_summary(
    window: tuple[Sample, Sample],
    pods: Iterable[tuple[Pod, Sequence[Container]]],
    *,
    node: str,
    booted_at: float,
    size: Size,
    pressure: Pressure,
) -> bytes:
    """Return the page. window: two samples, older first. pods: each with its running containers.

    booted_at: Unix seconds.
    """
    before, after = window
    at = timestamp(after.at)
    whole = _usage(before.node, after.node, after.at - before.at)
    whole["memory"]["availableBytes"] = max(size.memory_bytes - after.node.working_set_bytes, 0)
    disk = {
        "time": at,
        "availableBytes": pressure.disk_available_bytes,
        "capacityBytes": pressure.disk_bytes,
        "usedBytes": pressure.disk_bytes - pressure.disk_available_bytes,
    }
    document = {
        "node": {"nodeName": node, "startTime": timestamp(booted_at), **_dated(whole, at), "fs": disk},
        "pods": [_pod(pod, running, before, after) for pod, running in pods if running],
    }
    return msgspec.json.encode(document)


def _pod(pod: Pod, running: Sequence[Container], before: Sample, after: Sample) -> Document:
    meta, at, span_s = pod.metadata, timestamp(after.at), after.at - before.at
    measured = [each for each in running if each.id in after.containers]
    usages = [_usage(before.containers.get(c.id), after.containers[c.id], span_s) for c in measured]
    containers = [
        {"name": each.name, "startTime": timestamp(each.started_at), **_dated(usage, at)}
        for each, usage in zip(measured, usages, strict=True)
    ]
    return {
        "podRef": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
        "startTime": pod.status.start_time or None,
        "containers": containers,
        **_dated(_sum(usages), at),
    }


def _usage(before: Usage | None, after: Usage, span_s: float) -> dict[str, dict[str, int]]:
    nanocores = round(cores_used(before, after, span_s) * _NANO)
    return {
        "cpu": {"usageNanoCores": nanocores, "usageCoreNanoSeconds": round(after.cpu_s * _NANO)},
        "memory": {
            "usageBytes": after.memory_bytes,
            "workingSetBytes": after.working_set_bytes,
            "rssBytes": after.rss_bytes,
            "pageFaults": after.page_faults,
            "majorPageFaults": after.major_page_faults,
        },
    }


def _sum(usages: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {"cpu": {}, "memory": {}}
    for usage in usages:
        for family, values in usage.items():
            for name, value in values.items():
                total[family][name] = total[family].get(name, 0) + value
    return total


def _dated(usage: Mapping[str, Mapping[str, int]], at: str) -> Document:
    return {family: {"time": at, **values} for family, values in usage.items()}
