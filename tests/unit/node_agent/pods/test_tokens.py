"""Tokens of pods: asked for once, renewed in time, and kept while no master answers."""

import asyncio
import gc

import pytest

from api.errors import Forbidden, Unavailable
from client.clock import ManualClock
from node_agent.pods.tokens import LONGEST_S, PodTokens
from node_agent.pods.volume_files import TokenRequest
from node_agent.pods.volumes import VolumeFailed
from tests.fakes.resources import MemoryResources
from tests.unit.node_agent.pods.situations import pod

HOUR = TokenRequest("", 3600)


class Node:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.resources = MemoryResources(clock=self.clock)
        self.tokens = PodTokens(self.resources, self.clock)
        self.pod = pod()

    async def token(self, request: TokenRequest = HOUR) -> str:
        return await self.tokens.token(self.pod, request)

    @property
    def asked(self) -> int:
        return sum(verb == "token" for verb, _, _ in self.resources.calls)


async def test_one_question_serves_until_a_fifth_of_its_life_is_left() -> None:
    node = Node()
    first = await node.token()
    node.clock.advance(3600 * 0.8 - 1)
    assert await node.token() == first
    assert node.asked == 1
    node.clock.advance(1)
    assert await node.token() != first
    assert node.asked == 2


async def test_a_long_lived_token_is_renewed_daily() -> None:
    node, year = Node(), TokenRequest("vault", 365 * 24 * 3600)
    await node.token(year)
    node.clock.advance(LONGEST_S - 1)
    await node.token(year)
    assert node.asked == 1
    node.clock.advance(1)
    await node.token(year)
    assert node.asked == 2


async def test_volumes_that_start_together_share_an_answer() -> None:
    node = Node()
    tokens = await asyncio.gather(*(node.token() for _ in range(5)))
    assert len(set(tokens)) == node.asked == 1
    assert f"/{node.pod.metadata.uid}/" in tokens[0]  # bound to the pod
    assert await node.token(TokenRequest("vault", 3600)) != tokens[0]


async def test_an_old_token_serves_while_no_master_answers() -> None:
    node = Node()
    first = await node.token()
    node.clock.advance(3599)
    node.resources.refuse(Unavailable("no master"), verb="token", times=2)
    assert await node.token() == first
    node.clock.advance(1)
    with pytest.raises(VolumeFailed, match="no master"):
        await node.token()
    assert await node.token() != first


async def test_a_refusal_says_why() -> None:
    node = Node()
    node.resources.refuse(Forbidden("not yours"), verb="token")
    with pytest.raises(VolumeFailed, match="failed to fetch token: not yours"):
        await node.token()


async def test_a_failure_that_nobody_waits_for_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    node, answer, complaints = Node(), asyncio.Event(), []

    async def refuse(*_: object, **__: object) -> None:
        await answer.wait()
        raise Forbidden("the pod is gone")

    monkeypatch.setattr(node.resources, "request_token", refuse)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    waiter = asyncio.create_task(node.token())
    await asyncio.sleep(0)
    (asked,) = node.tokens._asking.values()
    waiter.cancel()
    await asyncio.wait({waiter})
    answer.set()
    await asyncio.wait({asked})
    del asked, waiter
    gc.collect()
    assert complaints == []
