"""The objects that pods name, read by name: that is what a node agent may do, and only for its own pods.

Several pods that start together share one answer; an answer is believed for a few seconds. While no master answers,
the last answer counts: a container that must be restarted then starts with what it had.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

from api.errors import NotFound, Timeout, Unavailable
from api.kinds.core import ConfigMap, Secret, Service
from api.kinds.pods import Pod
from api.kinds.runtime import RuntimeClass
from api.meta import Resource
from client.clock import Clock
from client.informer import Informer
from client.resources import Resources
from node_agent.pods.operations import shared
from node_agent.pods.tokens import PodTokens
from node_agent.pods.volume_files import TokenRequest

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
_FRESH_S = 2.0
_REMEMBERED = 1000


_Key = tuple[type[Resource], str, str]
_SERVICES_S = 2.0


class _Answer(NamedTuple):
    found: "asyncio.Task[Resource | None]"
    at: float


class NamedObjects:
    """Reads what pods name and asks for tokens; services come from an informer."""

    def __init__(self, resources: Resources, clock: Clock, services: Informer[Service]) -> None:
        self._resources = resources
        self._clock = clock
        self._services = services
        self._tokens = PodTokens(resources, clock)
        self._answers: dict[_Key, _Answer] = {}
        self._last: OrderedDict[_Key, Resource] = OrderedDict()

    async def config_maps(self, namespace: str, names: Collection[str]) -> Mapping[str, ConfigMap]:
        """Return name -> object, without those that are not there."""
        return await self._all(ConfigMap, namespace, names)

    async def secrets(self, namespace: str, names: Collection[str]) -> Mapping[str, Secret]:
        """Return name -> object, without those that are not there."""
        return await self._all(Secret, namespace, names)

    async def token(self, pod: Pod, request: TokenRequest) -> str:
        """Return a token of the pod's service account, bound to the pod."""
        return await self._tokens.token(pod, request)

    async def handler(self, runtime_class: str) -> str | None:
        """Return which of the engine's runtimes a RuntimeClass means; None if there is no such class."""
        found = await self._one(RuntimeClass, "", runtime_class)
        return found.handler if found is not None else None

    async def services(self) -> tuple[Service, ...]:
        """Return the services known now; after a start of the agent that takes a moment."""
        try:
            async with asyncio.timeout(_SERVICES_S):
                await self._services.synced.wait()
        except TimeoutError:
            log.warning("containers start without service variables: no master has told of services")
        return tuple(self._services)

    async def _all(self, model: type[R], namespace: str, names: Collection[str]) -> dict[str, R]:
        wanted = sorted(names)
        found = await asyncio.gather(*(self._one(model, namespace, name) for name in wanted))
        return {name: obj for name, obj in zip(wanted, found, strict=True) if obj is not None}

    async def _one(self, model: type[R], namespace: str, name: str) -> R | None:
        key, now = (model, namespace, name), self._clock.monotonic()
        answer = self._answers.get(key)
        failed = answer is not None and answer.found.done() and _failed(answer.found)
        if answer is None or failed or now - answer.at > _FRESH_S:
            self._answers = {k: a for k, a in self._answers.items() if now - a.at <= _FRESH_S}
            answer = _Answer(shared(asyncio.create_task(self._read(model, namespace, name))), now)
            if len(self._answers) < _REMEMBERED:
                self._answers[key] = answer
        found = await asyncio.shield(answer.found)
        assert found is None or isinstance(found, model), found
        return found

    async def _read(self, model: type[Resource], namespace: str, name: str) -> Resource | None:
        key = (model, namespace, name)
        try:
            found = await self._resources.get(model, name, namespace=namespace)
        except NotFound:
            self._last.pop(key, None)
            return None
        except (Unavailable, Timeout):
            if key not in self._last:
                raise
            log.warning("no master answers, using what was read before kind=%s name=%s", model.__name__, name)
            return self._last[key]
        self._last[key] = found
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return found


def _failed(task: "asyncio.Task[Resource | None]") -> bool:
    return task.cancelled() or task.exception() is not None
