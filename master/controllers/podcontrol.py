"""Making and removing pods for an owner: many at once, and each told of in the owner's events.

Creation starts with one pod and doubles: a template that the server refuses costs one refused request, not five
hundred.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from api.errors import ApiError
from api.kinds.pods import Pod
from api.meta import Resource
from client.events import EventRecorder
from client.resources import Resources
from master.controllers.removal import remove


async def create_pod(api: Resources, pod: Pod, *, owner: Resource, recorder: EventRecorder) -> None:
    """Create a pod and tell of it; raises ApiError, which is told of too."""
    try:
        made = await api.create(pod)
    except ApiError as error:
        recorder.event(owner, kind="Warning", reason="FailedCreate", message=f"Error creating: {error.message}")
        raise
    recorder.event(owner, kind="Normal", reason="SuccessfulCreate", message=f"Created pod: {made.metadata.name}")


async def delete_pod(api: Resources, pod: Pod, *, owner: Resource, recorder: EventRecorder) -> None:
    """Delete a pod, unless it has gone, and tell of it; raises ApiError, which is told of too."""
    try:
        if not await remove(api, pod):
            return
    except ApiError as error:
        recorder.event(owner, kind="Warning", reason="FailedDelete", message=f"Error deleting: {error.message}")
        raise
    recorder.event(owner, kind="Normal", reason="SuccessfulDelete", message=f"Deleted pod: {pod.metadata.name}")


async def first_error(work: Sequence[Awaitable[None]]) -> ApiError | None:
    """Do ``work`` side by side; return the first refusal, raise what is no refusal."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, ApiError):
            raise result
    return next((result for result in results if isinstance(result, ApiError)), None)


async def slow_start(create: Callable[[], Awaitable[None]], count: int) -> ApiError | None:
    """Call ``create`` ``count`` times in batches of 1, 2, 4, ...; a batch with a refusal is the last."""
    batch = 1
    while count > 0:
        batch = min(batch, count)
        if (error := await first_error([create() for _ in range(batch)])) is not None:
            return error
        count -= batch
        batch *= 2
    return None
