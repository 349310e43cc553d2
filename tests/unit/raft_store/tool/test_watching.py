"""The live diagram shows the messages of a running group, each once, and says which were lost."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from raft_store.config import Config
from raft_store.engine import TraceEvent, TracePage
from raft_store.member import running
from raft_store.tool.live import Access
from raft_store.tool.merging import MOST_LINES, Merger
from raft_store.tool.sequence import Aside, Became, Said
from raft_store.tool.watching import watch
from tests.ports import free_ports


class Three:
    """Three members whose clocks are 1000, 2000 and 3000 s ahead of ours."""

    def __init__(self):
        self.merger = Merger(["a", "b", "c"], ["one", "two", "three"])
        for place in range(3):
            self.tell(place, at_s=0.0, first=True)

    def tell(self, place, *events, at_s, first=False, missed=0, applied=1):
        """events: (at, kind, peer, text)."""
        offset_s = -1000.0 * (place + 1)
        told = [TraceEvent(at - offset_s, kind, peer, text) for at, kind, peer, text in events]
        page = TracePage("abc"[place], at_s - offset_s, 1, missed, applied, told)
        self.merger.add(place, page, offset_s=offset_s, at_s=at_s, first=first)

    def scenes(self, until_s=10.0):
        return list(self.merger.drain(until_s))

    def said(self):
        return [(one.sender, one.to, one.text, one.lost) for one in self.scenes() if isinstance(one, Said)]


@pytest.fixture
def three():
    return Three()


def test_a_message_is_drawn_once_whoever_tells_of_it_first(three):
    three.tell(1, (1.002, "received", "a", "hello"), at_s=2.0)
    three.tell(0, (1.0, "sent", "b", "hello"), at_s=2.0)
    assert three.said() == [(0, 1, "hello", False)]


def test_the_same_words_twice_are_two_messages(three):
    three.tell(0, (1.0, "sent", "b", "hello"), (1.5, "sent", "b", "hello"), at_s=2.0)
    three.tell(1, (1.51, "received", "a", "hello"), at_s=2.0)
    assert three.said() == [(0, 1, "hello", True), (0, 1, "hello", False)]


def test_what_did_not_arrive_is_lost(three):
    three.tell(0, (1.0, "sent", "b", "hello"), (1.0, "sent", "c", "hello"), at_s=2.0)
    three.tell(1, (1.001, "received", "a", "hello"), at_s=2.0)
    three.tell(2, at_s=2.0)
    assert three.said() == [(0, 1, "hello", False), (0, 2, "hello", True)]


def test_what_came_before_its_receiver_told_anything_is_not_called_lost():
    late = Three.__new__(Three)
    late.merger = Merger(["a", "b", "c"], ["one", "two", "three"])
    late.tell(0, (1.0, "sent", "b", "hello"), at_s=2.0, first=True)
    late.tell(1, at_s=2.0, first=True)
    assert late.said() == [(0, 1, "hello", False)]


def test_the_last_words_of_the_dead_are_drawn_when_they_come(three):
    three.tell(1, (1.0, "received", "a", "hello"), at_s=2.0)
    three.merger.silent(0, at_s=2.0)
    assert three.said() == [(0, 1, "hello", False)]


def test_messages_stand_in_the_order_of_their_causes_though_clocks_differ(three):
    three.tell(0, (1.0, "sent", "b", "question"), (1.01, "received", "b", "answer"), at_s=2.0)
    three.tell(1, (0.99, "received", "a", "question"), (1.005, "sent", "a", "answer"), at_s=2.0)
    assert [one[2] for one in three.said()] == ["question", "answer"]


def test_leaders_are_called_by_their_names(three):
    three.tell(0, (1.0, "became", "b", "follows {leader} in term 3"), at_s=2.0)
    assert [one.text for one in three.scenes() if isinstance(one, Became)] == ["follows two in term 3"]


def test_members_come_and_go(three):
    three.merger.silent(2, at_s=1.0)
    three.merger.silent(2, at_s=1.5)
    three.tell(2, at_s=2.0, first=True)
    told = [(one.at_s, one.text, one.up) for one in three.scenes() if isinstance(one, Became)]
    assert told == [(1.0, "does not answer", False), (2.0, "answers again", True)]


def test_more_than_anybody_reads_is_counted(three):
    many = MOST_LINES + 25
    three.tell(0, *((1.0 + n / 1000, "sent", "b", f"number {n}") for n in range(many)), at_s=2.0)
    three.tell(0, (3.0, "sent", "b", "the next second"), at_s=4.0, missed=3)
    scenes = three.scenes()
    assert len([one for one in scenes if isinstance(one, Said)]) == MOST_LINES + 1
    asides = [one.text for one in scenes if isinstance(one, Aside)]
    assert asides == ["and 25 more messages", "3 events of one came too fast to be seen"]


async def test_a_running_group(tmp_path: Path) -> None:
    """Method: three members in this process, watched over HTTP from a thread while one of them stops."""
    clients, peers = free_ports(3), free_ports(3)
    members = {f"m{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(peers)}
    configs = [
        Config(
            name=f"m{n}",
            members=members,
            data_dir=tmp_path / f"m{n}",
            client_url=f"http://127.0.0.1:{clients[n]}",
            client_listen=f"127.0.0.1:{clients[n]}",
            peer_listen=f"127.0.0.1:{peers[n]}",
        )
        for n in range(3)
    ]
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        started = await asyncio.gather(*(stack.enter_async_context(running(config)) for config in configs))
        while any(len(one.machine.members) < 3 or not one.engine.status().leader for one in started):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        over = asyncio.Event()
        access = Access(tuple(f"127.0.0.1:{port}" for port in clients))
        scenes = []

        def look() -> list[str]:
            names, told = watch(
                access, seconds=50, now=lambda: 1e9 if over.is_set() else time.monotonic(), sleep=time.sleep
            )
            scenes.extend(told)
            return names

        looking = asyncio.create_task(asyncio.to_thread(look))
        while not all(one.engine._trace.on for one in started):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        leader = next(one for one in started if one.engine.status().leader == one.backend.member)
        heir = next(one for one in started if one is not leader)
        await leader.engine.transfer_leadership(heir.backend.member, timeout_s=10)
        while any(one.engine.status().leader != heir.backend.member for one in started):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # for the diagram to be drawn: it asks a few times a second
        over.set()
        assert await looking == ["m0", "m1", "m2"]
    places = {one.backend.member: place for place, one in enumerate(started)}
    said = [(one.sender, one.to, one.text) for one in scenes if isinstance(one, Said) and not one.lost]
    assert (places[leader.backend.member], places[heir.backend.member], "campaign now: you take over") in said
    assert any(text.startswith("VOTE?") and sender == places[heir.backend.member] for sender, _, text in said)
    leads = [one.where for one in scenes if isinstance(one, Became) and one.text.startswith("LEADS")]
    assert leads[-1] == places[heir.backend.member]
