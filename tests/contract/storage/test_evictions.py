"""Evictions and the budgets that they are taken from: one step, whatever comes in between."""

import asyncio
from typing import Any

import pytest

from api.errors import ApiError, Conflict, NotFound, TooManyRequests
from tests.contract.storage.conftest import Cluster

BUDGETS = "poddisruptionbudgets.policy"


async def new_pod(cluster: Cluster, name: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "node1"}
    await cluster.create("pods", {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return await cluster.patch("pods", name, {"status": ready}, subresource="status")


async def new_budget(cluster: Cluster, allowed: int) -> None:
    budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}}
    await cluster.create(BUDGETS, budget)
    status = {"status": {"observedGeneration": 1, "disruptionsAllowed": allowed}}
    await cluster.patch(BUDGETS, "b", status, subresource="status")


async def evict(cluster: Cluster, name: str, **preconditions: str) -> None:
    document = {"deleteOptions": {"preconditions": preconditions}} if preconditions else {}
    await cluster.create("pods", document, name=name, subresource="eviction")


async def left(cluster: Cluster) -> tuple[int, set[str]]:
    status = (await cluster.get(BUDGETS, "b"))["status"]
    return status.get("disruptionsAllowed", 0), set(status.get("disruptedPods", {}))


async def is_leaving(cluster: Cluster, name: str) -> bool:
    return "deletionTimestamp" in (await cluster.get("pods", name))["metadata"]


@pytest.mark.parametrize("precondition", ["uid", "resourceVersion"])
async def test_a_refused_precondition_costs_nothing(cluster: Cluster, precondition: str) -> None:
    pod = await new_pod(cluster, "web")
    await new_budget(cluster, 1)
    with pytest.raises(Conflict, match="in the precondition"):
        await evict(cluster, "web", **{precondition: "1"})
    assert (await left(cluster), await is_leaving(cluster, "web")) == ((1, set()), False)
    await evict(cluster, "web", **{precondition: pod["metadata"][precondition]})
    assert (await left(cluster), await is_leaving(cluster, "web")) == ((0, {"web"}), True)


async def test_a_pod_that_goes_meanwhile_costs_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await new_pod(cluster, "web")
    await new_budget(cluster, 1)
    evictions = cluster.registry._evictions
    delete = evictions._delete

    async def delete_late(*args: Any, **options: Any) -> Any:
        await cluster.delete("pods", "web", grace_period_seconds=0)
        return await delete(*args, **options)

    monkeypatch.setattr(evictions, "_delete", delete_late)
    with pytest.raises(NotFound):
        await evict(cluster, "web")
    assert await left(cluster) == (1, set())


async def test_another_pod_of_that_name_is_asked_about_anew(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await new_pod(cluster, "web")
    await new_budget(cluster, 1)
    evictions = cluster.registry._evictions
    delete = evictions._delete

    async def delete_late(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await cluster.delete("pods", "web", grace_period_seconds=0)
        await new_pod(cluster, "web")
        await cluster.patch(BUDGETS, "b", {"status": {"disruptionsAllowed": 0}}, subresource="status")
        return await delete(*args, **options)

    monkeypatch.setattr(evictions, "_delete", delete_late)
    with pytest.raises(TooManyRequests):
        await evict(cluster, "web")
    assert not await is_leaving(cluster, "web")


async def test_evictions_at_once_take_no_more_than_there_is(cluster: Cluster) -> None:
    names = [f"web{number}" for number in range(6)]
    for name in names:
        await new_pod(cluster, name)
    await new_budget(cluster, 3)
    outcomes = await asyncio.gather(*(evict(cluster, name) for name in names), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, ApiError) for outcome in outcomes), outcomes
    gone = {name for name in names if await is_leaving(cluster, name)}
    allowed, disrupted = await left(cluster)
    assert (len(gone) + allowed, disrupted) == (3, gone)
    assert gone == {name for name, outcome in zip(names, outcomes, strict=True) if outcome is None}
