"""What the API is told of a pod: the newest status, as long as it takes, and nothing once the pod is gone from it."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from api.errors import Unavailable
from api.kinds.pods import Pod, PodCondition, PodStatus
from node_agent.pods import reporting
from node_agent.pods.reporting import Reporter
from tests.unit.node_agent.pods.situations import pod

PENDING, RUNNING, ENDED = (PodStatus(phase=phase) for phase in ("Pending", "Running", "Succeeded"))


class Api:
    """Takes what it is told, after as many failures as asked for."""

    def __init__(self, failures: int = 0) -> None:
        self.told: list[str] = []
        self.failures = failures
        self.on_failure: Callable[[], None] = lambda: None

    async def write_status(self, pod: Pod, old: PodStatus, new: PodStatus) -> None:
        await self._take(new.phase)

    async def finalize(self, pod: Pod) -> None:
        await self._take("gone")

    async def _take(self, word: str) -> None:
        if self.failures:
            self.failures -= 1
            self.on_failure()
            raise Unavailable("no master answers")
        self.told.append(word)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_RETRY_S", (0.0,))


async def test_what_the_api_has_is_not_written_again() -> None:
    api = Api()
    reporter = Reporter(api, pod())
    reporter.show(PENDING)
    await reporter.flush()
    await reporter.flush()
    assert api.told == ["Pending"]


async def test_a_status_overtaken_while_masters_were_away_is_never_written() -> None:
    later = [ENDED, RUNNING]
    api = Api(failures=2)
    reporter = Reporter(api, pod())
    api.on_failure = lambda: reporter.show(later.pop())
    reporter.show(PENDING)
    await reporter.flush()
    await reporter.finalize()
    assert api.told == ["Succeeded", "gone"]


async def test_nothing_is_told_of_a_pod_that_the_api_has_not() -> None:
    api = Api(failures=1)
    reporter = Reporter(api, pod())
    api.on_failure = reporter.forget
    reporter.show(RUNNING)
    async with asyncio.timeout(5):
        await reporter.flush()
        await reporter.finalize()
    assert (api.told, reporter.gone, reporter.newest) == ([], True, RUNNING)


async def test_what_others_wrote_over_ours_is_put_right() -> None:
    api = Api()
    reporter = Reporter(api, pod())
    reporter.show(RUNNING)
    await reporter.flush()
    for seen in (RUNNING, replace(RUNNING, phase="Failed")):
        reporter.follow(replace(pod(), status=seen))
        await reporter.flush()
    assert api.told == ["Running", "Running"], "once for each time that another status is seen"


def test_conditions_that_others_set_stay_theirs() -> None:
    def condition(kind: str, status: str) -> PodCondition:
        return PodCondition(type=kind, status=status)

    reporter = Reporter(Api(), pod())
    reporter.show(replace(RUNNING, conditions=(condition("Ready", "True"), condition("gate", "False"))))
    theirs = (condition("Ready", "False"), condition("gate", "True"), condition("DisruptionTarget", "True"))
    reporter.follow(replace(pod(), status=replace(RUNNING, conditions=theirs)))
    shown = {each.type: each.status for each in reporter.last_shown().conditions}
    assert shown == {"Ready": "True", "gate": "True", "DisruptionTarget": "True"}
