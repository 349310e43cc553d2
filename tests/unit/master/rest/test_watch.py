"""Watches as a client sees them: lines as they happen, and how they end."""

import asyncio
import contextlib
import json
from unittest.mock import Mock

import pytest

from api import errors
from master.rest import watch
from tests.unit.master.conftest import until

PODS = "/api/v1/namespaces/default/pods"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
METADATA = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"}


async def lines(answer, count):
    return [json.loads(await asyncio.wait_for(answer.content.readline(), 5)) for _ in range(count)]


async def pod(api, name="p", **metadata):
    return await api.create(PODS, {"metadata": {"name": name, **metadata}})


async def test_many_wait_for_one_moment_and_none_holds_another_up(monkeypatch):
    loop, armed = asyncio.get_running_loop(), []
    monkeypatch.setattr(loop, "call_later", lambda pause_s, go: armed.append((pause_s, go)))
    pacer = watch.Pacer()
    waiting = [asyncio.create_task(pacer.turn(pause_s)) for pause_s in (0.5, 0.7, 0.9)]
    await asyncio.sleep(0)
    assert [pause_s for pause_s, _ in armed] == [0.5]
    waiting[1].cancel()
    await asyncio.sleep(0)
    armed.pop()[1]()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [each.cancelled() for each in waiting] == [False, True, False]
    later = asyncio.create_task(pacer.turn(0.6))
    await asyncio.sleep(0)
    assert [pause_s for pause_s, _ in armed] == [0.6]
    armed.pop()[1]()
    await later


async def test_headers_come_before_anything_happens(api):
    async with asyncio.timeout(2), api.ask("GET", f"{PODS}?watch=1&resourceVersion=100") as answer:
        assert answer.status == 200
        assert answer.headers["Transfer-Encoding"] == "chunked"


async def test_events_come_as_they_happen(api):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100") as answer:
        made = await pod(api)
        assert await lines(answer, 1) == [{"type": "ADDED", "object": made}]
        await api.json("PUT", f"{PODS}/p", json={"metadata": {"name": "p", "labels": {"a": "b"}}})
        await api.json("DELETE", f"{PODS}/p")
        modified, deleted = await lines(answer, 2)
    assert (modified["type"], deleted["type"]) == ("MODIFIED", "DELETED")
    # The last state, under the revision of the deletion.
    assert deleted["object"]["metadata"]["labels"] == {"a": "b"}
    assert int(deleted["object"]["metadata"]["resourceVersion"]) == api.registry.revision


async def test_without_a_revision_the_present_state_comes_first(api):
    await pod(api, "a")
    await pod(api, "b")
    async with api.ask("GET", f"{PODS}?watch=true") as answer:
        assert [(each["type"], each["object"]["metadata"]["name"]) for each in await lines(answer, 2)] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
        ]


@pytest.mark.parametrize("query", ["", "&watch=false", "&fieldSelector=metadata.name%3Da"])
async def test_old_paths_watch_one_object(api, query):
    await pod(api, "a")
    await pod(api, "b")
    async with api.ask("GET", f"/api/v1/watch/namespaces/default/pods/a?timeoutSeconds=9{query}") as answer:
        assert answer.status == 200
        await api.json("DELETE", f"{PODS}/b")
        await api.json("DELETE", f"{PODS}/a")
        told = await lines(answer, 2)
    assert [(each["type"], each["object"]["metadata"]["name"]) for each in told] == [("ADDED", "a"), ("DELETED", "a")]


async def test_old_paths_watch_what_they_name_or_nothing(api):
    path = "/api/v1/watch/namespaces/default/pods"
    async with api.ask("GET", f"{path}/a?fieldSelector=metadata.name%3Db") as answer:
        assert (answer.status, (await answer.json())["message"]) == (
            400,
            "fieldSelector metadata.name doesn't match requested name",
        )
    async with api.ask("GET", "/api/v1/watch/pods?resourceVersion=1") as answer:
        assert (answer.status, answer.headers["Transfer-Encoding"]) == (200, "chunked")
    async with api.ask("DELETE", f"{path}/a") as answer:
        assert answer.status == 405


async def test_initial_events_end_with_a_marked_bookmark(api):
    await pod(api, "a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with api.ask("GET", f"{PODS}?{query}") as answer:
        added, bookmark = await lines(answer, 2)
    assert (added["type"], bookmark["type"]) == ("ADDED", "BOOKMARK")
    assert bookmark["object"]["kind"] == "Pod"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert bookmark["object"]["metadata"]["resourceVersion"] == str(api.registry.revision)


async def test_it_ends_in_order_after_its_time(api):
    async with asyncio.timeout(5), api.ask("GET", f"{PODS}?watch=1&timeoutSeconds=1") as answer:
        assert await answer.read() == b""


async def test_history_that_is_gone_is_told_as_an_error_event(api):
    api.registry.compacted = 500
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=400") as answer:
        assert answer.status == 200
        (event,) = await lines(answer, 1)
        assert await answer.content.read() == b""
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


async def test_a_store_without_quorum_ends_it_with_an_error_event(api):
    api.registry.refusal = errors.Unavailable("the store has no quorum")
    async with api.ask("GET", f"{PODS}?watch=1") as answer:
        assert (await lines(answer, 1))[0]["object"]["code"] == 503


async def test_tables_name_their_columns_once(api):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100", headers=TABLE) as answer:
        await pod(api, "a")
        await pod(api, "b")
        first, second = await lines(answer, 2)
    assert first["object"]["kind"] == "Table"
    assert first["object"]["columnDefinitions"][0]["name"] == "Name"
    assert not second["object"]["columnDefinitions"]
    assert second["object"]["rows"][0]["cells"][0] == "b"
    assert second["object"]["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_a_bookmark_in_a_table_is_a_row_that_says_which(api):
    await pod(api, "a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with api.ask("GET", f"{PODS}?{query}", headers=TABLE) as answer:
        _, bookmark = await lines(answer, 2)
    (row,) = bookmark["object"]["rows"]
    assert (bookmark["type"], bookmark["object"]["kind"]) == ("BOOKMARK", "Table")
    assert row["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert row["object"]["metadata"]["resourceVersion"] == str(api.registry.revision)


async def test_metadata_only(api):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100", headers=METADATA) as answer:
        await pod(api, "a")
        (event,) = await lines(answer, 1)
    assert set(event["object"]) == {"kind", "apiVersion", "metadata"}


async def test_a_client_that_leaves_leaves_nothing_behind(api):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100"):
        assert len(api.server._streams) == 1
    await until(lambda: not len(api.server._streams))


async def test_a_stopping_server_ends_watches_in_order(api):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100") as answer:
        reading = asyncio.ensure_future(answer.read())
        async with asyncio.timeout(3):
            await api.server.stop()
            assert await reading == b""


async def test_a_client_that_does_not_read_is_cut(api, monkeypatch, caplog):
    monkeypatch.setattr(watch, "SLOW_CLIENT_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]), limit=1024)
    request = f"GET {PODS}?watch=1&resourceVersion=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin\r\n\r\n"
    writer.write(request.encode())
    async with asyncio.timeout(10):
        await reader.readline()
        while not any("too slow" in record.message for record in caplog.records):
            await pod(api, f"p{api.registry.revision}", annotations={"a": "x" * 200_000})
    writer.close()


@pytest.mark.parametrize("count", [20])
async def test_events_that_are_ready_together_arrive_whole_and_in_order(api, count):
    async with api.ask("GET", f"{PODS}?watch=1&resourceVersion=100") as answer:
        await asyncio.gather(*(pod(api, f"p{number}") for number in range(count)))
        revisions = [int(each["object"]["metadata"]["resourceVersion"]) for each in await lines(answer, count)]
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == count


def test_a_watch_pauses_only_where_many_watch():
    streams = watch.OpenStreams()
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            if number < 50:
                assert streams.pause_s == 0
            stack.enter_context(streams.added(lambda number=number: None))
        assert streams.pause_s == pytest.approx(0.08)
    assert streams.pause_s == 0


async def test_one_large_event_to_an_idle_client_that_does_not_read_ends_in_time_too(monkeypatch):
    """Nothing waits in the connection yet, but what is to be written is more than it takes without waiting."""
    monkeypatch.setattr(watch, "SLOW_CLIENT_S", 0.05)
    transport = Mock(spec=asyncio.Transport)
    transport.get_write_buffer_size.return_value = 0

    async def never_taken(data):
        await asyncio.Event().wait()

    response = Mock(write=never_taken)
    async with asyncio.timeout(10):
        assert not await watch.send_or_cut(Mock(transport=transport), response, bytes(200_000))
    transport.abort.assert_called_once()
