"""What a CustomResourceDefinition goes through when it is created, changed and deleted: pure functions.

Names and conditions are the controller's (``master.controllers.definitions``); the rows that follow from them are every
master's own (``master.custom``).
"""

from typing import cast

from msgspec.structs import replace

from api.custom.definitions import FINALIZER, condition_of, storage_version
from api.custom.naming import Condition, with_condition
from api.kinds.extensions import CustomResourceDefinition, CustomResourceDefinitionStatus
from api.meta import Resource


def on_create(obj: Resource) -> Resource:
    """Return a new definition, whose status says what version its objects will be stored in."""
    definition = cast("CustomResourceDefinition", obj)
    return _with_stored_version(replace(definition, status=CustomResourceDefinitionStatus()))


def on_change(old: Resource, new: Resource) -> Resource:  # noqa: ARG001 - one signature for all rows
    """Return a changed definition; a new storage version is remembered beside those before."""
    return _with_stored_version(cast("CustomResourceDefinition", new))


def _with_stored_version(definition: CustomResourceDefinition) -> CustomResourceDefinition:
    storage, stored = storage_version(definition), definition.status.stored_versions
    if storage is None or storage.name in stored:
        return definition
    return replace(definition, status=replace(definition.status, stored_versions=(*stored, storage.name)))


def on_delete(obj: Resource) -> Resource:
    """Return a definition that is being deleted: it stays until its objects are gone."""
    definition = cast("CustomResourceDefinition", obj)
    if condition_of(definition, "Terminating") == "True":
        return definition
    meta = definition.metadata
    if FINALIZER not in meta.finalizers:
        meta = replace(meta, finalizers=(*meta.finalizers, FINALIZER))
    reason = Condition(
        type="Terminating",
        status="True",
        reason="InstanceDeletionPending",
        message="CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    )
    conditions = with_condition(definition.status.conditions, reason, meta.deletion_timestamp)
    return replace(definition, metadata=meta, status=replace(definition.status, conditions=conditions))
