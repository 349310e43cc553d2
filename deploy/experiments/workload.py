"""Clients that write while faults strike: each puts one new key after another and notes what it was told.

A key is written once and never again, so that a timed-out write is simply unknown and the next one starts afresh.
"""

import asyncio
import contextlib
import itertools
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import grpc

from deploy.experiments.history import Operation, Outcome, Sample
from trireme_pb.etcdserverpb import rpc_pb2, rpc_pb2_grpc

PREFIX = "/trireme-experiment/"
NAMESPACE = "default"
PAUSE_S = 0.005  # between two writes of one client: enough to find a gap, little enough to leave the cores alone
SAMPLE_S = 0.02
READ_S = 10.0  # for one answer, out of the time for reading back
READ_AGAIN_S = 0.2
AFTER_FAILURE_S = 0.02  # before the next try at what just failed
_REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}
# A broken connection must be dialled again at once: the experiment measures the cluster, not gRPC's patience.
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 64 * 2**20),
]


class Tls:
    """The administrator's files, as every client library wants them."""

    def __init__(self, ca: str, cert: str, key: str) -> None:
        self.context = ssl.create_default_context(cafile=ca)
        self.context.load_cert_chain(cert, key)
        files = [Path(each).read_bytes() for each in (ca, key, cert)]
        self.credentials = grpc.ssl_channel_credentials(*files)


class StoreClients:
    """Writers of keys. With one for each member, a member that is gone silences one, the cluster's silence all."""

    def __init__(self, endpoints: Sequence[str], tls: Tls, *, run: str, attempt_s: float) -> None:
        self._channels = {each: grpc.aio.secure_channel(each, tls.credentials, options=_OPTIONS) for each in endpoints}
        self._prefix = f"{PREFIX}{run}/"
        self._attempt_s = attempt_s

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    async def write(self, endpoints: Sequence[str], log: list[Operation], *, until: Callable[[], bool]) -> None:
        """Put new keys until told to stop: through the first endpoint, and through the next one whenever it fails."""
        turn = itertools.cycle(endpoints)
        endpoint = next(turn)
        name = f"store client of {endpoint}" if len(endpoints) == 1 else "store client"

        async def attempt(key: str) -> None:
            put = rpc_pb2_grpc.KVStub(self._channels[endpoint]).Put
            await put(rpc_pb2.PutRequest(key=key.encode(), value=b"x" * 64), timeout=self._attempt_s)

        number = 0
        while not until():
            number += 1
            key = f"{self._prefix}{endpoints[0]}/{number:06d}"
            log.append(await _observe("store", name, key, attempt))
            if log[-1].outcome is not Outcome.ACKNOWLEDGED:
                endpoint = next(turn)
            await asyncio.sleep(PAUSE_S)

    async def read_back(self, *, timeout_s: float) -> frozenset[str] | None:
        """Return every key of this run that a linearizable read finds, None if no member answers one in time."""
        give_up = time.monotonic() + timeout_s
        while time.monotonic() < give_up:
            for endpoint in self._channels:
                found = await self._keys_at(endpoint, give_up)
                if found is not None:
                    return found
            await asyncio.sleep(READ_AGAIN_S)
        return None

    async def search(self, wanted: frozenset[str], *, timeout_s: float) -> frozenset[str] | None:
        """Return every key of this run that any member shows, None if no member answers.

        All members are read again and again until all that is ``wanted`` was seen or the time is up.
        """
        give_up = time.monotonic() + timeout_s
        found: frozenset[str] | None = None
        while time.monotonic() < give_up and not (found is not None and found >= wanted):
            answers = await asyncio.gather(*(self._keys_at(endpoint, give_up) for endpoint in self._channels))
            if any(answer is not None for answer in answers):
                found = (found or frozenset()).union(*filter(None, answers))
            await asyncio.sleep(READ_AGAIN_S)
        return found

    async def _keys_at(self, endpoint: str, give_up: float) -> frozenset[str] | None:
        """Return this run's keys as the member at ``endpoint`` shows them, None without an answer."""
        end = self._prefix[:-1] + chr(ord(self._prefix[-1]) + 1)
        request = rpc_pb2.RangeRequest(key=self._prefix.encode(), range_end=end.encode(), keys_only=True)
        timeout_s = min(READ_S, max(0.0, give_up - time.monotonic()))
        try:
            answer = await rpc_pb2_grpc.KVStub(self._channels[endpoint]).Range(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None
        return frozenset(each.key.decode() for each in answer.kvs)

    async def clean_up(self) -> None:
        """Remove this run's keys; a failure only leaves them behind."""
        end = self._prefix[:-1] + chr(ord(self._prefix[-1]) + 1)
        request = rpc_pb2.DeleteRangeRequest(key=self._prefix.encode(), range_end=end.encode())
        for channel in self._channels.values():
            try:
                await rpc_pb2_grpc.KVStub(channel).DeleteRange(request, timeout=5)
            except grpc.aio.AioRpcError:
                continue
            return

    async def sample(self, names: dict[str, str], log: list[Sample], *, until: Callable[[], bool]) -> None:
        """Ask every member who leads, again and again; names: endpoint -> member's name."""
        ids: dict[int, str] = {}

        async def ask(endpoint: str) -> None:
            status = rpc_pb2_grpc.MaintenanceStub(self._channels[endpoint]).Status
            while not until():
                try:
                    answer = await status(rpc_pb2.StatusRequest(), timeout=0.5)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(SAMPLE_S)
                    continue
                ids[answer.header.member_id] = names[endpoint]
                log.append(
                    Sample(
                        time.monotonic(),
                        names[endpoint],
                        ids.get(answer.leader, f"{answer.leader:x}") if answer.leader else "",
                        answer.raftTerm,
                        answer.raftAppliedIndex or answer.raftIndex,
                        answer.raftIndex,
                    )
                )
                await asyncio.sleep(SAMPLE_S)

        await asyncio.gather(*(ask(endpoint) for endpoint in self._channels))


class ApiClients:
    """Writers of ConfigMaps through the control plane's one address."""

    def __init__(self, url: str, tls: Tls, *, run: str, attempt_s: float) -> None:
        self._url = f"{url}/api/v1/namespaces/{NAMESPACE}/configmaps"
        self._run = run
        connector = aiohttp.TCPConnector(ssl=tls.context, limit=8)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=attempt_s))

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def write(self, client: int, log: list[Operation], *, until: Callable[[], bool]) -> None:
        """Create ConfigMaps until told to stop."""
        number = 0

        async def attempt(key: str) -> None:
            labels = {"trireme.experiment": self._run}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key, "labels": labels}}
            async with self._session.post(self._url, json=body) as answer:
                if answer.status >= 400:
                    raise _Refused(answer.status, await answer.text())

        while not until():
            number += 1
            key = f"experiment-{self._run}-{client}-{number:06d}"
            log.append(await _observe("api", f"API client {client}", key, attempt))
            await asyncio.sleep(PAUSE_S)

    async def read_back(self, *, timeout_s: float) -> frozenset[str] | None:
        """Return the names of this run's ConfigMaps, None if the API does not list them in time."""
        give_up = time.monotonic() + timeout_s
        while (left_s := give_up - time.monotonic()) > 0:
            timeout = aiohttp.ClientTimeout(total=min(READ_S, left_s))
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._session.get(self._url, params=self._selector(), timeout=timeout) as answer:
                    if answer.status == 200:
                        items = json.loads(await answer.read())["items"]
                        return frozenset(each["metadata"]["name"] for each in items)
            await asyncio.sleep(READ_AGAIN_S)
        return None

    async def clean_up(self) -> None:
        """Remove this run's ConfigMaps; a failure only leaves them behind."""
        timeout = aiohttp.ClientTimeout(total=60)
        try:
            async with self._session.delete(self._url, params=self._selector(), timeout=timeout) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            return

    def _selector(self) -> dict[str, str]:
        return {"labelSelector": f"trireme.experiment={self._run}"}


class _Refused(Exception):
    """An HTTP answer other than success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:200]}")
        self.status = status


async def _observe(target: str, client: str, key: str, attempt: Callable[[str], Awaitable[None]]) -> Operation:
    """Make one attempt and note how it ended."""
    sent = time.monotonic()
    outcome, error = Outcome.ACKNOWLEDGED, ""
    try:
        await attempt(key)
    except grpc.aio.AioRpcError as exc:
        outcome = Outcome.REFUSED if exc.code() in _REFUSALS or _never_sent(exc) else Outcome.UNKNOWN
        error = f"{exc.code().name}: {exc.details()}"
    except _Refused as exc:
        outcome = Outcome.REFUSED if 400 <= exc.status < 500 else Outcome.UNKNOWN
        error = str(exc)
    except aiohttp.ClientConnectorError as exc:
        outcome, error = Outcome.REFUSED, str(exc)
    except (aiohttp.ClientError, TimeoutError) as exc:
        outcome, error = Outcome.UNKNOWN, f"{type(exc).__name__}: {exc}"
    done = time.monotonic()
    if outcome is not Outcome.ACKNOWLEDGED:
        await asyncio.sleep(AFTER_FAILURE_S)
    return Operation(client, target, key, sent, done, outcome, error)


def _never_sent(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the call failed for want of a connection: then nobody can have done it."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower()
