"""The pod's object in the API, written through ``Resources``."""

import logging

import msgspec

from api.errors import ApiError, Conflict, NotFound
from api.kinds.pods import Pod, PodStatus
from client.resources import Resources
from node_agent.pods.containers import pod_ref
from node_agent.pods.status import status_patch

log = logging.getLogger(__name__)


class ApiPods:
    """Writes statuses and final deletions of pods that came from the API."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def write_status(self, pod: Pod, old: PodStatus, new: PodStatus) -> None:
        """Write what differs; a pod that is gone, or another one by now, needs nothing."""
        patch = status_patch(pod.metadata.uid, msgspec.json.decode(msgspec.json.encode(old)), new)
        if patch is None:
            return
        meta = pod.metadata
        try:
            await self._resources.patch(Pod, meta.name, patch, namespace=meta.namespace, subresource="status")
        except NotFound:
            log.debug("status of a pod that is gone pod=%s", pod_ref(pod))
        except Conflict as exc:
            if not await self._is_other(pod):
                raise exc from None

    async def finalize(self, pod: Pod) -> None:
        """Delete with grace period 0, this very pod only."""
        meta = pod.metadata
        try:
            await self._resources.delete(Pod, meta.name, namespace=meta.namespace, uid=meta.uid, grace_period_s=0)
        except NotFound:
            return
        except Conflict as exc:
            if not await self._is_other(pod):
                raise exc from None

    async def _is_other(self, pod: Pod) -> bool:
        """Whether the name belongs to another pod by now, or to none."""
        try:
            found = await self._resources.get(Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        except NotFound:
            return True
        return found.metadata.uid != pod.metadata.uid


class MirrorPods:
    """The API's image of a pod that came from a file: made by us, never followed.

    The mirror has a UID of its own; it is made again when somebody deletes it.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._inner = ApiPods(resources)

    async def write_status(self, pod: Pod, old: PodStatus, new: PodStatus) -> None:  # noqa: ARG002 - the mirror knows
        """Write the static pod's status to its mirror."""
        mirror = await self._mirror(pod)
        await self._inner.write_status(mirror, mirror.status, new)

    async def finalize(self, pod: Pod) -> None:
        """Delete the mirror."""
        try:
            mirror = await self._resources.get(Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        except NotFound:
            return
        await self._inner.finalize(mirror)

    async def _mirror(self, pod: Pod) -> Pod:
        try:
            found = await self._resources.get(Pod, pod.metadata.name, namespace=pod.metadata.namespace)
        except NotFound:
            pass
        else:
            if found.metadata.annotations.get(HASH) == pod.metadata.annotations.get(HASH):
                return found
            await self._inner.finalize(found)
        try:
            meta = msgspec.structs.replace(
                pod.metadata,
                uid="",
                resource_version="",
                annotations=pod.metadata.annotations | {MIRROR: pod.metadata.uid},
            )
            return await self._resources.create(msgspec.structs.replace(pod, metadata=meta, status=PodStatus()))
        except ApiError as exc:
            log.warning("mirror pod not created pod=%s error=%s", pod_ref(pod), exc)
            raise


MIRROR = "kubernetes.io/config.mirror"
HASH = "kubernetes.io/config.hash"
SOURCE = "kubernetes.io/config.source"
