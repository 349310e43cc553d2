"""Service-account tokens of the pods on this node: asked for once, renewed before they expire.

A token is renewed when a fifth of its life is left, or after a day; while no master answers the old one serves as long
as it is valid.
"""

import asyncio
import logging
from typing import NamedTuple

from api.errors import ApiError
from api.kinds.authentication import BoundObjectReference, TokenRequestSpec
from api.kinds.pods import Pod
from client.clock import Clock, seconds_of
from client.resources import Resources
from node_agent.pods.operations import shared
from node_agent.pods.volume_files import TokenRequest
from node_agent.pods.volumes import VolumeFailed

log = logging.getLogger(__name__)

RENEWED_AT = 0.8  # of its life
LONGEST_S = 24 * 3600.0


class _Key(NamedTuple):
    uid: str
    request: TokenRequest


class Held(NamedTuple):
    """A token and its life, in seconds since the epoch."""

    token: str
    issued: float
    expires: float

    def due(self, now: float) -> bool:
        """Return whether it should be renewed."""
        return now - self.issued >= min((self.expires - self.issued) * RENEWED_AT, LONGEST_S)


class PodTokens:
    """Asks the masters for tokens, each bound to its pod."""

    def __init__(self, resources: Resources, clock: Clock) -> None:
        self._resources = resources
        self._clock = clock
        self._held: dict[_Key, Held] = {}
        self._asking: dict[_Key, asyncio.Task[Held]] = {}

    async def token(self, pod: Pod, request: TokenRequest) -> str:
        """Return a token of the pod's service account; raises VolumeFailed if there is none that is valid."""
        key, now = _Key(pod.metadata.uid, request), self._clock.time()
        held = self._held.get(key)
        if held is not None and not held.due(now):
            return held.token
        try:
            return (await self._ask(key, pod)).token
        except ApiError as exc:
            if held is not None and now < held.expires:
                log.warning("token not renewed pod=%s/%s error=%s", pod.metadata.namespace, pod.metadata.name, exc)
                return held.token
            raise VolumeFailed(f"failed to fetch token: {exc.message}") from exc

    async def _ask(self, key: _Key, pod: Pod) -> Held:
        """Share one question among the volumes that ask at the same time."""
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = shared(asyncio.create_task(self._fetch(key, pod), name="token"))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _fetch(self, key: _Key, pod: Pod) -> Held:
        meta, audience = pod.metadata, key.request.audience
        spec = TokenRequestSpec(
            audiences=(audience,) if audience else (),
            expiration_seconds=key.request.expiration_s,
            bound_object_ref=BoundObjectReference(api_version="v1", kind="Pod", name=meta.name, uid=meta.uid),
        )
        account = pod.spec.service_account_name or "default"
        answer = await self._resources.request_token(account, spec, namespace=meta.namespace)
        now = self._clock.time()
        self._forget_expired(now)
        held = self._held[key] = Held(answer.token, now, seconds_of(answer.expiration_timestamp))
        return held

    def _forget_expired(self, now: float) -> None:
        """Drop what nobody asks for any more: pods that are gone."""
        self._held = {key: held for key, held in self._held.items() if now < held.expires}
