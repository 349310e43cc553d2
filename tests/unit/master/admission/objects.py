"""Objects in the few words that a test of admission needs."""

from typing import Any

from api import codec
from api.defaults import apply_defaults
from api.kinds.table import TABLE
from api.meta import Resource
from master.access.user import User
from master.admission.chain import Attributes

ADMIN = User("admin", ("system:masters",))


def made(api_version: str, kind: str, **document: Any) -> Any:
    """Return an object as a client would have made it."""
    row = TABLE.kind(api_version, kind)
    assert row is not None, kind
    complete = {"metadata": {"name": "x", "namespace": "shop"}, "apiVersion": api_version, "kind": kind, **document}
    apply_defaults(row, complete)
    return codec.decode(row, complete)


def pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> Any:
    """Return a pod; without containers it has one called c."""
    listed = [{"image": "i", "name": "c", **each} for each in containers or ({},)]
    meta = {"name": "p", "namespace": "shop", **(metadata or {})}
    return made("v1", "Pod", metadata=meta, spec={"containers": listed, **spec})


def attributes(obj: Resource | None, *, old: Resource | None = None, user: User = ADMIN, **more: Any) -> Attributes:
    """Return what a plugin sees: a creation, or an update of ``old``."""
    shown = obj if obj is not None else old
    assert shown is not None
    fields: dict[str, Any] = {
        "kind": more.pop("kind", None) or TABLE.of(type(shown)),
        "operation": "CREATE" if old is None else "UPDATE" if obj is not None else "DELETE",
        "namespace": shown.metadata.namespace,
        "name": shown.metadata.name,
        "user": user,
        "obj": obj,
        "old": old,
    }
    return Attributes(**(fields | more))
