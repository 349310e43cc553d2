"""Telling, in a pod's status, why a controller is about to delete it."""

from collections.abc import Callable

from api.errors import Conflict, NotFound
from api.kinds.pods import Pod
from client.resources import Resources

_ATTEMPTS = 5


async def mark(api: Resources, pod: Pod, change: Callable[[Pod], Pod]) -> None:
    """Write what ``change`` makes of the pod's newest status: a cache may be behind our own last write to it.

    Raises NotFound if the pod has gone, also if another one has its name; Conflict if others write it all the time.
    """
    meta = pod.metadata
    for attempt in range(_ATTEMPTS):
        newest = await api.get(Pod, meta.name, namespace=meta.namespace)
        if newest.metadata.uid != meta.uid:
            raise NotFound(f"pod {meta.namespace}/{meta.name} is another one by now")
        changed = change(newest)
        if changed == newest:
            return
        try:
            await api.update(changed, subresource="status")
        except Conflict:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return
