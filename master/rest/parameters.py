"""Query parameters, read as the real server reads them."""

from collections.abc import Mapping

from api.errors import BadRequest
from api.meta import DeleteOptions, Preconditions
from master.access.user import User
from master.rest.seam import Query, WriteOptions


def read_bool(parameters: Mapping[str, str], name: str) -> bool:
    """Return whether a flag is set; a bare ``?watch`` is, and so is any value but ``false`` and ``0``."""
    value = parameters.get(name)
    return value is not None and value.lower() not in ("false", "0")


def read_int(parameters: Mapping[str, str], name: str) -> int | None:
    """Return a whole number, or None if the parameter is absent or empty; raises BadRequest for anything else."""
    text = parameters.get(name, "")
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax (query parameter {name})')
    return int(text)


def read_resource_version(parameters: Mapping[str, str]) -> str:
    """Return the resourceVersion asked for as the text of a number, or the empty string."""
    text = parameters.get("resourceVersion", "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f'Invalid value: "{text}": invalid resource version (query parameter resourceVersion)')
    return text


def read_query(parameters: Mapping[str, str], *, namespace: str, name: str = "") -> Query:
    """Return what a list, watch or deletecollection asks for; ``name`` narrows it to one object."""
    version = read_resource_version(parameters)
    match = parameters.get("resourceVersionMatch", "")
    watch = read_bool(parameters, "watch")
    if match not in ("", "NotOlderThan", "Exact"):
        raise BadRequest(
            f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        )
    if match and not version and not watch:
        raise BadRequest(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match == "Exact" and version == "0":
        raise BadRequest(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        )
    limit = read_int(parameters, "limit") or 0
    fields = parameters.get("fieldSelector", "")
    if name:
        fields = ",".join(filter(None, (fields, f"metadata.name={name}")))
    return Query(
        namespace=namespace,
        label_selector=parameters.get("labelSelector", ""),
        field_selector=fields,
        resource_version=version,
        resource_version_match=match,
        limit=max(0, limit),
        continue_token=parameters.get("continue", ""),
        bookmarks=read_bool(parameters, "allowWatchBookmarks"),
        initial_events=read_bool(parameters, "sendInitialEvents") if "sendInitialEvents" in parameters else None,
    )


def _is_dry_run(values: list[str]) -> bool:
    if unknown := [each for each in values if each != "All"]:
        raise BadRequest(f'dryRun: Unsupported value: "{unknown[0]}": supported values: "All"')
    return bool(values)


def read_write_options(parameters: Mapping[str, str], user: User, *, agent: str) -> WriteOptions:
    """Return what a write says beside its body; without a field manager the client program's name stands in."""
    validation = parameters.get("fieldValidation", "")
    if validation not in ("", "Strict", "Warn", "Ignore"):
        supported = '"Ignore", "Strict", "Warn"'
        raise BadRequest(f'fieldValidation: Unsupported value: "{validation}": supported values: {supported}')
    manager = parameters.get("fieldManager", "")
    if len(manager) > 128 or not manager.isprintable():
        raise BadRequest("fieldManager: Invalid value: must be at most 128 printable characters")
    return WriteOptions(
        user=user,
        dry_run=_is_dry_run([parameters["dryRun"]] if parameters.get("dryRun") else []),
        field_manager=manager or agent.partition("/")[0][:128],
        field_validation=validation,
        force=read_bool(parameters, "force"),
    )


def read_delete_options(parameters: Mapping[str, str], body: DeleteOptions | None) -> DeleteOptions:
    """Return the options of a delete: the body's if there is one, else the query's."""
    if body is not None:
        options = body
    else:
        version, uid = (parameters.get(f"preconditions.{part}", "") for part in ("resourceVersion", "uid"))
        options = DeleteOptions(
            dry_run=(parameters["dryRun"],) if parameters.get("dryRun") else (),
            grace_period_seconds=read_int(parameters, "gracePeriodSeconds"),
            orphan_dependents=read_bool(parameters, "orphanDependents") if "orphanDependents" in parameters else None,
            propagation_policy=parameters.get("propagationPolicy", ""),
            preconditions=Preconditions(resource_version=version, uid=uid) if version or uid else None,
        )
    _is_dry_run(list(options.dry_run))
    if options.propagation_policy not in ("", "Orphan", "Background", "Foreground"):
        supported = '"Foreground", "Background", "Orphan"'
        raise BadRequest(
            f'propagationPolicy: Unsupported value: "{options.propagation_policy}": supported values: {supported}'
        )
    if options.propagation_policy and options.orphan_dependents is not None:
        raise BadRequest("orphanDependents and deletionPropagation cannot be both set")
    return options
