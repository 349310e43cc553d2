"""The objects that pods name, read by name: that is what a node agent may do, and only for its own pods.

Several pods that start together share one answer; an answer is believed for a few seconds.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypeVar

from api.errors import NotFound
from api.kinds.core import ConfigMap, Secret, Service
from api.kinds.pods import Pod
from api.meta import Resource
from client.clock import Clock
from client.resources import Resources
from node_agent.pods.volume_files import TokenRequest
from node_agent.pods.volumes import VolumeFailed

R = TypeVar("R", bound=Resource)
_FRESH_S = 2.0
_REMEMBERED = 1000


class _Answer(NamedTuple):
    found: "asyncio.Task[Resource | None]"
    at: float


class NamedObjects:
    """Reads ConfigMaps and Secrets by name. services: the services known at the moment."""

    def __init__(self, resources: Resources, clock: Clock, services: Callable[[], tuple[Service, ...]]) -> None:
        self._resources = resources
        self._clock = clock
        self._services = services
        self._answers: dict[tuple[type[Resource], str, str], _Answer] = {}

    async def config_maps(self, namespace: str, names: Collection[str]) -> Mapping[str, ConfigMap]:
        """Return name -> object, without those that are not there."""
        return await self._all(ConfigMap, namespace, names)

    async def secrets(self, namespace: str, names: Collection[str]) -> Mapping[str, Secret]:
        """Return name -> object, without those that are not there."""
        return await self._all(Secret, namespace, names)

    async def token(self, pod: Pod, request: TokenRequest) -> str:
        """Refuse: the cluster contract has no call that issues tokens."""
        raise VolumeFailed(
            f"service account token (audience {request.audience!r}) for {pod.metadata.name}: not supported; "
            "set automountServiceAccountToken: false"
        )

    def services(self) -> tuple[Service, ...]:
        """Return the services known now."""
        return self._services()

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
            answer = _Answer(asyncio.create_task(self._read(model, namespace, name)), now)
            if len(self._answers) < _REMEMBERED:
                self._answers[key] = answer
        found = await asyncio.shield(answer.found)
        assert found is None or isinstance(found, model), found
        return found

    async def _read(self, model: type[Resource], namespace: str, name: str) -> Resource | None:
        try:
            return await self._resources.get(model, name, namespace=namespace)
        except NotFound:
            return None


def _failed(task: "asyncio.Task[Resource | None]") -> bool:
    return task.cancelled() or task.exception() is not None
