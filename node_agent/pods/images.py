"""Images of pods: whether they are here, whether to fetch them, and how long to leave a failing registry alone."""

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Mapping, Sequence

import msgspec

from api.kinds.core import Secret
from node_agent.errors import NodeError
from node_agent.pods.plan import FIRST_DELAY_S, MAX_DELAY_S
from node_agent.pods.situation import Failure
from node_agent.runtime.base import ContainerRuntime, Credentials, Image, PullFailed

log = logging.getLogger(__name__)

_PARALLEL_PULLS = 3
_HUB = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")


class NeverPulled(NodeError):
    """imagePullPolicy Never, and the image is not here."""


class ImageNotFetched(NodeError):
    """The image could not be fetched; ``image`` names it."""

    def __init__(self, image: str, why: str) -> None:
        super().__init__(f'rpc error: failed to pull image "{image}": {why}')
        self.image = image


def pull_policy(given: str, image: str) -> str:
    """Return the policy; without one it is Always for ``:latest`` and for no tag, IfNotPresent otherwise."""
    if given:
        return given
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} else "IfNotPresent"


def registry_of(image: str) -> str:
    """Return the registry that an image name means."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def find_credentials(image: str, secrets: Sequence[Secret]) -> Credentials | None:
    """Return what the first fitting pull secret says of the image's registry."""
    registry = registry_of(image)
    names = _HUB if registry == "docker.io" else (registry, f"https://{registry}")
    for secret in secrets:
        for host, entry in _entries(secret).items():
            if host.rstrip("/") in {name.rstrip("/") for name in names}:
                found = _credentials(entry)
                if found is not None:
                    return found
    return None


def _entries(secret: Secret) -> Mapping[str, Mapping[str, str]]:
    try:
        if ".dockerconfigjson" in secret.data:
            text = base64.b64decode(secret.data[".dockerconfigjson"])
            return dict(msgspec.json.decode(text).get("auths", {}))
        return dict(msgspec.json.decode(base64.b64decode(secret.data.get(".dockercfg", "e30="))))
    except (ValueError, binascii.Error, msgspec.DecodeError) as exc:
        log.warning("pull secret unreadable secret=%s error=%s", secret.metadata.name, exc)
        return {}


def _credentials(entry: Mapping[str, str]) -> Credentials | None:
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode(errors="replace").partition(":")
        return Credentials(user, password)
    if entry.get("username"):
        return Credentials(entry["username"], entry.get("password", ""))
    return None


def pull_failure(image: str, message: str, *, before: Failure | None, now: float) -> Failure:
    """Return what to show and when to try again: 10 s, 20 s ... 5 min."""
    delay_s = min(before.delay_s * 2, MAX_DELAY_S) if before and before.delay_s else FIRST_DELAY_S
    return Failure(
        reason="ErrImagePull",
        message=message,
        failed_at=now,
        retry_at=now + delay_s,
        delay_s=delay_s,
        later_reason="ImagePullBackOff",
        later_message=f'Back-off pulling image "{image}"',
    )


class Images:
    """The node's images; several pods that want one image share its pull."""

    def __init__(self, runtime: ContainerRuntime) -> None:
        self._runtime = runtime
        self._slots = asyncio.Semaphore(_PARALLEL_PULLS)
        self._pulls: dict[tuple[str, Credentials | None], asyncio.Task[Image]] = {}

    async def present(self, image: str) -> Image | None:
        """Return the image if it is here."""
        return await self._runtime.image(image)

    async def pull(self, image: str, secrets: Sequence[Secret]) -> tuple[Image, float]:
        """Fetch the image; returns it and how long that took. Raises ImageNotFetched."""
        started = time.monotonic()
        key = (image, find_credentials(image, secrets))
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = asyncio.create_task(self._pull(image, key[1]), name=f"pull {image}")
            task.add_done_callback(lambda ended: self._forget(key, ended))
        try:
            # A pod that goes away must not end the pull for the others.
            found = await asyncio.shield(task)
        except PullFailed as exc:
            raise ImageNotFetched(image, str(exc)) from exc
        return found, time.monotonic() - started

    def _forget(self, key: tuple[str, Credentials | None], ended: asyncio.Task[Image]) -> None:
        self._pulls.pop(key, None)
        if not ended.cancelled() and ended.exception() is not None:
            log.warning("image not pulled image=%s error=%s", key[0], ended.exception())

    async def _pull(self, image: str, credentials: Credentials | None) -> Image:
        async with self._slots:
            return await self._runtime.pull(image, credentials)

    async def close(self) -> None:
        """Cancel the pulls under way."""
        tasks = tuple(self._pulls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
