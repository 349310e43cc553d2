"""Removing an object that may have gone meanwhile: that is what was wanted."""

from api.errors import NotFound
from api.meta import Resource
from client.resources import Resources


async def remove(api: Resources, obj: Resource, *, propagation: str = "") -> bool:
    """Delete this very object; return whether it was still there. Raises ApiError (Conflict: it is another by now).

    propagation: what becomes of its dependents; by default what its kind says.
    """
    meta = obj.metadata
    try:
        await api.delete(type(obj), meta.name, namespace=meta.namespace, uid=meta.uid, propagation=propagation)
    except NotFound:
        return False
    return True
