"""Resources over gRPC: real servers on loopback, one picture of the cluster behind them, and masters that fail."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest

from api import codec
from api.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    InternalError,
    Invalid,
    NotFound,
    RequestTooLarge,
    Timeout,
    TooManyRequests,
    Unavailable,
)
from api.kinds.core import ConfigMap
from api.kinds.pods import Container, Pod, PodSpec
from api.kinds.table import TABLE
from api.meta import ObjectMeta
from client.channel import MasterChannel
from client.remote import RemoteResources
from client.resources import EventType, Revision, WatchEvent
from tests.fakes.resources import MemoryResources
from trireme_pb.cluster import cluster_pb2 as pb
from trireme_pb.cluster import cluster_pb2_grpc as rpc

_EVENTS = {
    EventType.ADDED: pb.WatchEvent.ADDED,
    EventType.MODIFIED: pb.WatchEvent.MODIFIED,
    EventType.DELETED: pb.WatchEvent.DELETED,
    EventType.BOOKMARK: pb.WatchEvent.BOOKMARK,
}


class Master(rpc.ResourcesServicer):
    """Serves the memory as a master would; ``before`` and ``after`` a call a test may interfere."""

    def __init__(self, memory: MemoryResources) -> None:
        self.memory = memory
        self.calls: list[str] = []
        self.before: Callable[[str, Any], Awaitable[None]] | None = None
        self.after: Callable[[str, Any], Awaitable[None]] | None = None
        self.server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        rpc.add_ResourcesServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    async def _serve(self, verb: str, context: Any, work: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(verb)
        try:
            if self.before is not None:
                await self.before(verb, context)
            answer = await work()
            if self.after is not None:
                await self.after(verb, context)
        except ApiError as error:
            await self.refuse(context, error)
        return answer

    @staticmethod
    async def refuse(context: Any, error: ApiError) -> None:
        packed = pb.Error(status_json=msgspec.json.encode(error.status())).SerializeToString()
        metadata = (("trireme-status-bin", packed),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, error.message, trailing_metadata=metadata)

    @staticmethod
    def _model(target: pb.Target) -> Any:
        kind = TABLE.resource(target.group, target.version, target.resource)
        assert kind is not None
        return kind.model

    def _obj(self, target: pb.Target, data: bytes) -> Any:
        return codec.from_json(TABLE.of(self._model(target)), data)

    @staticmethod
    def _object(obj: Any) -> pb.Object:
        return pb.Object(resource_version=int(obj.metadata.resource_version), json=codec.encode(obj))

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.Object:  # noqa: N802
        t = request.target

        async def work() -> pb.Object:
            return self._object(await self.memory.get(self._model(t), t.name, namespace=t.namespace))

        return await self._serve("Get", context, work)

    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListResponse:  # noqa: N802
        async def work() -> pb.ListResponse:
            found = await self.memory.list(
                self._model(request.target), namespace=request.target.namespace, label_selector=request.label_selector
            )
            return pb.ListResponse(resource_version=found.revision, items=[self._object(each) for each in found.items])

        return await self._serve("List", context, work)

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchEvent]:  # noqa: N802
        self.calls.append("Watch")
        try:
            async for event in self.memory.watch(
                self._model(request.target), revision=Revision(request.resource_version)
            ):
                shown = self._object(event.object) if event.object is not None else pb.Object()
                shown.resource_version = event.revision
                yield pb.WatchEvent(type=_EVENTS[event.type], object=shown)
        except ApiError as error:
            await self.refuse(context, error)

    async def Create(self, request: pb.CreateRequest, context: Any) -> pb.Object:  # noqa: N802
        t = request.target

        async def work() -> pb.Object:
            if t.subresource == "binding":
                binding = msgspec.json.decode(request.json)
                await self.memory.bind(
                    namespace=t.namespace, pod=t.name, uid=binding["metadata"]["uid"], node=binding["target"]["name"]
                )
                return pb.Object(json=b"{}")
            return self._object(await self.memory.create(self._obj(t, request.json)))

        return await self._serve("Create", context, work)

    async def Update(self, request: pb.UpdateRequest, context: Any) -> pb.Object:  # noqa: N802
        async def work() -> pb.Object:
            obj = self._obj(request.target, request.json)
            return self._object(await self.memory.update(obj, subresource=request.target.subresource))

        return await self._serve("Update", context, work)

    async def Patch(self, request: pb.PatchRequest, context: Any) -> pb.Object:  # noqa: N802
        t = request.target

        async def work() -> pb.Object:
            patch = msgspec.json.decode(request.json)
            return self._object(await self.memory.patch(self._model(t), t.name, patch, namespace=t.namespace))

        return await self._serve("Patch", context, work)

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:  # noqa: N802
        t = request.target

        async def work() -> pb.DeleteResponse:
            grace = request.grace_period_s if request.HasField("grace_period_s") else None
            await self.memory.delete(
                self._model(t), t.name, namespace=t.namespace, uid=request.precondition_uid, grace_period_s=grace,
                propagation=request.propagation_policy,
            )  # fmt: skip
            return pb.DeleteResponse()

        return await self._serve("Delete", context, work)


class Lab:
    def __init__(self, masters: list[Master], memory: MemoryResources, channel: MasterChannel) -> None:
        self.masters = masters
        self.memory = memory
        self.channel = channel
        self.remote = RemoteResources(channel, patience_s=4)

    def lose_answers(self, verb: str) -> None:
        """Let the first master carry ``verb`` out once and die before it answers, as the caller sees it."""

        async def lose(called: str, context: Any) -> None:
            if called == verb:
                self.masters[0].after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        self.masters[0].after = lose


@asynccontextmanager
async def lab(count: int = 2) -> AsyncIterator[Lab]:
    memory = MemoryResources()
    masters = [Master(memory) for _ in range(count)]
    for master in masters:
        await master.server.start()
    channel = MasterChannel([f"127.0.0.1:{master.port}" for master in masters], attempt_s=1.0)
    try:
        yield Lab(masters, memory, channel)
    finally:
        await channel.close()
        for master in masters:
            await master.server.stop(None)


def config_map(name: str = "a", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="x", generate_name="" if name else "g-"), data=data)


async def test_every_verb_goes_there_and_back() -> None:
    async with lab() as it:
        made = await it.remote.create(config_map(k="1"))
        assert await it.remote.get(ConfigMap, "a", namespace="x") == made
        changed = await it.remote.update(msgspec.structs.replace(made, data={"k": "2"}))
        assert changed.data == {"k": "2"}
        assert (await it.remote.patch(ConfigMap, "a", {"data": {"k": None, "l": "3"}}, namespace="x")).data == {
            "l": "3"
        }
        listing = await it.remote.list(ConfigMap, namespace="x")
        assert ([each.metadata.name for each in listing.items], listing.revision) == (["a"], it.memory.revision)
        await it.remote.delete(ConfigMap, "a", namespace="x", uid=made.metadata.uid)
        with pytest.raises(NotFound) as refusal:
            await it.remote.get(ConfigMap, "a", namespace="x")
        assert (refusal.value.kind, refusal.value.name) == ("configmaps", "a")
        pod = await it.remote.create(
            Pod(metadata=ObjectMeta(name="p", namespace="x"), spec=PodSpec(containers=(Container(name="c"),)))
        )
        await it.remote.bind(namespace="x", pod="p", uid=pod.metadata.uid, node="n1")
        assert (await it.remote.get(Pod, "p", namespace="x")).spec.node_name == "n1"
        with pytest.raises(Conflict):
            await it.remote.bind(namespace="x", pod="p", uid=pod.metadata.uid, node="n2")


async def test_a_refusal_arrives_with_its_causes() -> None:
    async with lab() as it:
        it.memory.refuse(Invalid("bad", kind="ConfigMap", name="a", causes=()), verb="create")
        with pytest.raises(Invalid) as refusal:
            await it.remote.create(config_map())
        assert (refusal.value.message, refusal.value.kind) == ("bad", "ConfigMap")


async def test_calls_move_to_the_next_master_within_half_a_second_and_stay_there() -> None:
    async with lab() as it:
        await it.remote.list(ConfigMap)
        await it.masters[0].server.stop(None)
        began = asyncio.get_running_loop().time()
        await it.remote.list(ConfigMap)
        assert asyncio.get_running_loop().time() - began < 0.5
        await it.remote.create(config_map())
        assert it.masters[1].calls == ["List", "Create"]


async def test_a_master_without_a_store_is_left() -> None:
    async with lab() as it:

        async def no_store(verb: str, context: Any) -> None:
            raise Unavailable("the store has no quorum")

        it.masters[0].before = no_store
        await it.remote.create(config_map())
        assert it.masters[1].calls == ["Create"]


async def test_who_is_told_to_come_again_does_so() -> None:
    async with lab() as it:

        async def crowded(verb: str, context: Any) -> None:
            if len(it.masters[0].calls) < 3:
                raise TooManyRequests("Too many requests, please try again later.", retry_after_s=1)

        it.masters[0].before = crowded
        await it.remote.create(config_map())
        assert it.masters[0].calls == ["Create"] * 3, "it is as crowded elsewhere: no reason to leave"
        assert it.masters[1].calls == []


async def test_a_server_that_is_spent_is_asked_again_and_one_that_takes_no_such_size_is_not() -> None:
    """The server below the master refused, whose Status there is none."""
    async with lab(1) as it:
        busy, told = 2, "answers wait to be taken"

        async def spent(called: str, context: Any) -> None:
            nonlocal busy
            if busy:
                busy -= 1
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, told)

        it.masters[0].before = spent
        await it.remote.create(config_map())
        assert it.masters[0].calls == ["Create"] * 3
        busy = 1
        with pytest.raises(TooManyRequests, match=told):
            await it.channel.unary("Get", pb.GetRequest())
        busy, told = 2, "grpc: received message larger than max (9 vs. 4)"
        with pytest.raises(RequestTooLarge, match="larger than max"):
            await it.remote.create(config_map("b"))
        assert busy == 1


@pytest.mark.parametrize(
    ("length", "told"),
    [pytest.param(100_000, Invalid, id="long"), pytest.param(2_000_000, InternalError, id="longer than we take")],
)
async def test_a_long_refusal_is_told_and_the_call_is_not_repeated(length: int, told: type[ApiError]) -> None:
    """It comes where the library takes 16 KiB by itself, and would be taken for a server that is spent."""
    async with lab(1) as it:

        async def refuse(called: str, context: Any) -> None:
            packed = pb.Error(status_json=msgspec.json.encode(Invalid("x" * length).status())).SerializeToString()
            metadata = (("trireme-status-bin", packed),)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "", trailing_metadata=metadata)

        it.masters[0].before = refuse
        with pytest.raises(told):
            await it.remote.create(config_map())
        assert it.masters[0].calls == ["Create"]


async def test_with_no_master_at_all_it_says_so_in_time() -> None:
    async with lab() as it:
        for master in it.masters:
            await master.server.stop(None)
        it.remote._patience_s = 0.5
        with pytest.raises(Unavailable, match="no master answered"):
            await it.remote.create(config_map())


async def test_a_silent_master_is_given_up_after_the_attempts_deadline() -> None:
    async with lab() as it:

        async def hang(verb: str, context: Any) -> None:
            await asyncio.sleep(30)

        it.masters[0].before = hang
        began = asyncio.get_running_loop().time()
        await it.remote.list(ConfigMap)
        assert asyncio.get_running_loop().time() - began < 2


async def test_a_watch_resumes_at_another_master_without_gap_repeat_or_list() -> None:
    async with lab() as it:
        seen: list[tuple[EventType, str]] = []
        start = Revision(it.memory.revision)

        async def follow() -> None:
            async for event in it.remote.watch(ConfigMap, revision=start):
                note(event)

        def note(event: WatchEvent[ConfigMap]) -> None:
            if event.object is not None:
                seen.append((event.type, event.object.metadata.name))

        task = asyncio.create_task(follow())
        await it.memory.create(config_map("a"))
        await until(lambda: len(seen) == 1)
        await it.masters[0].server.stop(None)
        await it.memory.create(config_map("b"))
        await it.memory.delete(ConfigMap, "a", namespace="x")
        await until(lambda: len(seen) == 3)
        assert seen == [(EventType.ADDED, "a"), (EventType.ADDED, "b"), (EventType.DELETED, "a")]
        assert "List" not in it.masters[1].calls
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()


async def test_watches_follow_when_calls_leave_a_master() -> None:
    async with lab() as it:
        events = it.remote.watch(ConfigMap, revision=Revision(it.memory.revision))
        pending = asyncio.ensure_future(anext(events))
        await until(lambda: it.masters[0].calls == ["Watch"])

        async def no_store(verb: str, context: Any) -> None:
            raise Unavailable("the store has no quorum")

        it.masters[0].before = no_store
        await it.remote.list(ConfigMap)
        await until(lambda: "Watch" in it.masters[1].calls)
        await it.memory.create(config_map("a"))
        assert (await pending).object is not None
        await events.aclose()


async def test_compacted_history_is_told() -> None:
    async with lab() as it:
        await it.memory.create(config_map("a"))
        it.memory.compact()
        with pytest.raises(Expired):
            await anext(it.remote.watch(ConfigMap, revision=Revision(1)))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - real servers, no event to wait for
            await asyncio.sleep(0.01)


async def test_writes_whose_answer_was_lost_are_recognized_as_done() -> None:
    async with lab() as it:
        it.lose_answers("Create")
        made = await it.remote.create(config_map(k="1"))
        assert made.metadata.uid
        it.channel._current = 0
        it.lose_answers("Update")
        changed = await it.remote.update(msgspec.structs.replace(made, data={"k": "2"}))
        assert changed.data == {"k": "2"}
        it.channel._current = 0
        it.lose_answers("Patch")
        version = {"resourceVersion": changed.metadata.resource_version}
        patched = await it.remote.patch(ConfigMap, "a", {"metadata": version, "data": {"k": "3"}}, namespace="x")
        assert patched.data == {"k": "3"}
        it.channel._current = 0
        it.lose_answers("Delete")
        await it.remote.delete(ConfigMap, "a", namespace="x", uid=made.metadata.uid)
        assert it.memory.all(ConfigMap) == []


async def test_somebody_elses_write_is_not_taken_for_ours() -> None:
    async with lab() as it:
        made = await it.memory.create(config_map(k="1"))
        with pytest.raises(AlreadyExists):
            await it.remote.create(config_map(k="1"))
        other = msgspec.structs.replace(made, data={"k": "theirs"})

        async def lose_and_let_another_write(verb: str, context: Any) -> None:
            it.masters[0].before = None
            await it.memory.update(other)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        it.masters[0].before = lose_and_let_another_write
        with pytest.raises(Conflict):
            await it.remote.update(msgspec.structs.replace(made, data={"k": "ours"}))
        assert it.memory.all(ConfigMap)[0].data == {"k": "theirs"}


async def test_a_generated_name_is_never_made_twice() -> None:
    async with lab() as it:
        it.lose_answers("Create")
        with pytest.raises(Timeout):
            await it.remote.create(config_map(""))
        assert len(it.memory.all(ConfigMap)) == 1


async def test_a_deletion_without_uid_is_not_repeated_in_doubt() -> None:
    async with lab() as it:
        await it.memory.create(config_map())
        it.lose_answers("Delete")
        with pytest.raises(Timeout):
            await it.remote.delete(ConfigMap, "a", namespace="x")
        assert it.masters[1].calls == []
