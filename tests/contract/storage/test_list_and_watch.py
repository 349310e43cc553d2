"""Whoever lists and watches over HTTP ends with exactly what the store has, whatever happens on the way.

Goal: a client that does as client-go does (list in pages, watch from there, go on elsewhere after a break, list again
after 410) misses nothing and is told nothing twice. Method: writers change and compact the store through two masters;
masters are stopped and come back, or sleep through a compaction; readers break off, are slow, and are cut for that.
One seed decides what is done; what interleaves with what is up to the machine.
"""

import asyncio
import contextlib
import functools
import gc
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from client.etcd import EtcdClient
from master import cache as cache_module
from master import changes
from master.access.authentication import Authenticator
from master.access.gate import Gate
from master.changes import Watcher
from master.program import Core
from master.rest.server import RestServer
from tests.contract.storage.conftest import Cluster, config
from tests.contract.storage.test_reads import churn
from tests.unit.master.conftest import Tokens

PATH = "/api/v1/namespaces/default/configmaps"
SELECTORS = ("", "odd=1", "odd=0", "", "odd=1")
ROUNDS = 8
LONGEST_S = 100.0


class Master:
    """One master's core and REST server, which can be stopped, and whose cache can sleep."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self.url = ""

    async def start(self) -> None:
        self.core = Core(config(), self._client)
        await self.wake()
        self._server = RestServer(self.core.registry, Gate(Authenticator([Tokens()]), self.core.authorizer))
        self.url = f"http://127.0.0.1:{await self._server.start('127.0.0.1', 0, None)}"

    async def stop(self) -> None:
        """Stop serving; open watches end in order."""
        self.url = ""
        await self._server.stop()
        await self.sleep()
        gc.collect()  # a process would end here, and close what aiohttp has forgotten: see below

    async def sleep(self) -> None:
        """Hear nothing more from the store; readers wait or are refused."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def wake(self) -> None:
        """Go on from where the cache was, or list again if that is gone."""
        self._task = asyncio.create_task(self.core.cache.run())
        async with asyncio.timeout(10):
            while not self.core.cache.synced:  # noqa: ASYNC110 - the cache tells nobody
                await asyncio.sleep(0.01)


class Gone(Exception):
    """The server has answered 410: list again."""


class Mirror:
    """A copy of what a selector selects, kept by a client that may ask any master."""

    def __init__(self, masters: list[Master], selector: str, rng: random.Random) -> None:
        self._masters = masters
        self._selector = selector
        self._rng = rng
        self.copy: dict[str, int] = {}
        self.revision = 0
        self.lists = self.watches = 0

    async def run(self, end: "asyncio.Future[int]") -> None:
        """Keep the copy until it has come to the revision that ``end`` tells."""
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer admin"}) as session:
            await self._until_done(self._list, session)
            while not (end.done() and self.revision >= end.result()):
                try:
                    await self._watch(session, end)
                except Gone:
                    await self._until_done(self._list, session)

    async def _until_done(self, step: Any, session: aiohttp.ClientSession) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, Gone):
                await step(session)
                return
            await asyncio.sleep(0.02)

    def _url(self) -> str:
        return self._rng.choice([each.url for each in self._masters if each.url] or ["http://127.0.0.1:1"])

    async def _ask(self, session: aiohttp.ClientSession, **query: Any) -> dict[str, Any]:
        async with session.get(self._url() + PATH, params={"labelSelector": self._selector, **query}) as answer:
            document: dict[str, Any] = await answer.json()
            if answer.status == 410:
                raise Gone(document["metadata"].get("continue", ""))
            if answer.status >= 500:
                assert answer.headers["Retry-After"], document
                raise aiohttp.ClientError(document["message"])
            assert answer.status == 200, document
            return document

    async def _list(self, session: aiohttp.ClientSession) -> None:
        """Take the state of one revision in pages, each from any master."""
        copy: dict[str, int] = {}
        page = await self._ask(session, limit=2)
        revision = page["metadata"]["resourceVersion"]
        while True:
            assert page["metadata"]["resourceVersion"] == revision, "a list in pages shows one state"
            for each in page["items"]:
                assert each["metadata"]["name"] not in copy
                copy[each["metadata"]["name"]] = int(each["metadata"]["resourceVersion"])
            if not (token := page["metadata"].get("continue")):
                break
            try:
                page = await self._ask(session, limit=2, **{"continue": token})
            except Gone as gone:
                # The rest of it can be had, from a newer state; who wants one state begins again, in one piece.
                await self._ask(session, limit=2, **{"continue": str(gone)})
                page, copy = await self._ask(session), {}
                revision = page["metadata"]["resourceVersion"]
        assert int(revision) >= self.revision, "a list without a version is never older than what was seen"
        self.copy, self.revision, self.lists = copy, int(revision), self.lists + 1

    async def _watch(self, session: aiohttp.ClientSession, end: "asyncio.Future[int]") -> None:
        self.watches += 1
        query = {"labelSelector": self._selector, "watch": "1", "allowWatchBookmarks": "1", "timeoutSeconds": "2"}
        query["resourceVersion"] = str(self.revision)
        breaks_off = self._rng.randrange(1, 40)
        try:
            async with session.get(self._url() + PATH, params=query) as answer:
                assert answer.status == 200
                async for line in answer.content:
                    self._take(json.loads(line))
                    if self._rng.random() < 0.05:
                        await asyncio.sleep(self._rng.random() * 0.1)
                    breaks_off -= 1
                    if not breaks_off or (end.done() and self.revision >= end.result()):
                        return
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)

    def _take(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        if event["type"] == "ERROR":
            assert obj["code"] in (410, 503, 504), obj
            if obj["code"] == 410:
                raise Gone
            raise aiohttp.ClientError(obj["message"])
        name, revision = obj["metadata"].get("name", ""), int(obj["metadata"]["resourceVersion"])
        if event["type"] == "BOOKMARK":
            assert revision >= self.revision
            self.revision = revision
            return
        assert revision > self.revision, "revisions go up and never repeat"
        self.revision = revision
        if event["type"] == "DELETED":
            del self.copy[name]
            return
        assert (name in self.copy) is (event["type"] == "MODIFIED"), event
        self.copy[name] = revision


@pytest.fixture
async def masters(client: EtcdClient, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Master]]:
    """Two masters whose watchers may be a few events behind, and which remember a few changes."""
    monkeypatch.setattr(changes, "RECENT_CHANGES", 30)
    monkeypatch.setattr(cache_module, "Watcher", functools.partial(Watcher, backlog=6))
    monkeypatch.setattr(cache_module, "BOOKMARK_PERIOD_S", 0.2)
    found = [Master(client), Master(client)]
    for each in found:
        await each.start()
    await Cluster(found[0].core).create("namespaces", {"metadata": {"name": "default"}})
    yield found
    for each in found:
        if each.url:
            await each.stop()


async def _disturb(masters: list[Master], client: EtcdClient, rng: random.Random) -> None:
    """Do one thing that clients must get over."""
    victim = rng.choice(masters)
    match rng.randrange(3):
        case 0:
            await client.compact(await client.revision())
        case 1:
            await victim.stop()
            await asyncio.sleep(rng.random() * 0.2)
            await victim.start()
        case 2:
            await victim.sleep()
            writers = [each for each in masters if each is not victim]
            await churn(Cluster(writers[0].core), random.Random(rng.random()), 20)
            await client.compact(await client.revision())
            await victim.wake()


# A connection that is accepted while aiohttp closes is forgotten by it, and closed by the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(2))
async def test_readers_end_with_what_the_store_has(masters: list[Master], client: EtcdClient, seed: int) -> None:
    rng = random.Random(seed)
    end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    mirrors = [Mirror(masters, selector, random.Random(rng.random())) for selector in SELECTORS]
    async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as tasks:
        for each in mirrors:
            tasks.create_task(each.run(end))
        for _ in range(ROUNDS):
            up = [Cluster(each.core) for each in masters]
            await asyncio.gather(*(churn(rng.choice(up), random.Random(rng.random()), 15) for _ in range(3)))
            await _disturb(masters, client, rng)
        last = await Cluster(masters[0].core).create("configmaps", {"metadata": {"name": "z", "labels": {"odd": "1"}}})
        end.set_result(int(last["metadata"]["resourceVersion"]))
    found = await client.range(b"/registry/configmaps/", b"/registry/configmaps0")
    stored = {kv.key.decode().rpartition("/")[2]: kv.mod_revision for kv in found.kvs}
    odd = {name for name in stored if name.endswith(("1", "3", "z"))}
    for mirror, selector in zip(mirrors, SELECTORS, strict=True):
        wanted = {"": set(stored), "odd=1": odd, "odd=0": set(stored) - odd}[selector]
        assert mirror.copy == {name: stored[name] for name in wanted}, selector
    assert sum(each.lists for each in mirrors) > len(mirrors), "nobody had to list again: the test shows nothing"
    assert sum(each.watches for each in mirrors) > 3 * len(mirrors)
