"""Query parameters, read as the real server reads them."""

from collections.abc import Mapping, Sequence

from api.errors import BadRequest, Fault, invalid
from api.faults import forbidden, too_long, unsupported, wrong
from api.meta import DeleteOptions, Preconditions
from api.selectors import parse_fields
from master.access.user import User
from master.rest.seam import Query, WriteOptions

MANAGER_BYTES = 128


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


def _refuse(options: str, faults: Sequence[Fault]) -> None:
    """Raise Invalid if there are faults in the options of a request: "ListOptions", "CreateOptions", ..."""
    if faults:
        raise invalid(options, "", faults, group="meta.k8s.io")


def read_query(parameters: Mapping[str, str], *, namespace: str, name: str = "", watches: bool = False) -> Query:
    """Return what a list, watch or deletecollection asks for; ``name`` narrows it to one object.

    watches: the path says that it is a watch, whatever the parameters say. Raises Invalid for a combination of options
    that means nothing, BadRequest for a selector that does not mean the object that the path names.
    """
    fields = parameters.get("fieldSelector", "")
    if name and fields and parse_fields(fields).exact("metadata.name") != name:
        raise BadRequest("fieldSelector metadata.name doesn't match requested name")
    if name and not fields:
        fields = f"metadata.name={name}"
    query = Query(
        namespace=namespace,
        label_selector=parameters.get("labelSelector", ""),
        field_selector=fields,
        resource_version=read_resource_version(parameters),
        resource_version_match=parameters.get("resourceVersionMatch", ""),
        limit=max(0, read_int(parameters, "limit") or 0),
        continue_token=parameters.get("continue", ""),
        bookmarks=read_bool(parameters, "allowWatchBookmarks"),
        initial_events=read_bool(parameters, "sendInitialEvents") if "sendInitialEvents" in parameters else None,
        timeout_s=float(max(0, read_int(parameters, "timeoutSeconds") or 0)),
    )
    watch = watches or read_bool(parameters, "watch")
    _refuse("ListOptions", _watch_faults(query) if watch else _list_faults(query))
    return query


_MATCH = "resourceVersionMatch"


def _list_faults(query: Query) -> list[Fault]:
    """Source: kubernetes.io, "Resource versions", the table for get and list."""
    faults = []
    match = query.resource_version_match
    if match:
        if not query.resource_version:
            faults.append(forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if query.continue_token:
            faults.append(forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            faults.append(unsupported(_MATCH, match, ("Exact", "NotOlderThan", "")))
        if match == "Exact" and query.resource_version == "0":
            faults.append(forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if query.initial_events is not None:
        faults.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return faults


def _watch_faults(query: Query) -> list[Fault]:
    """Source: kubernetes.io, "Resource versions", the table for watch; "Streaming lists"."""
    faults = []
    match = query.resource_version_match
    if query.initial_events is not None and match != "NotOlderThan":
        faults.append(forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if query.initial_events is None:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            faults.append(forbidden(_MATCH, why))
        if match != "NotOlderThan":
            faults.append(unsupported(_MATCH, match, ("NotOlderThan",)))
        if query.continue_token:
            faults.append(forbidden(_MATCH, "resourceVersionMatch is forbidden when continue is provided"))
    return faults


def _dry_run_faults(values: Sequence[str]) -> list[Fault]:
    return [] if not set(values) - {"All"} else [unsupported("dryRun", values, ("All",))]


def manager_faults(manager: str) -> list[Fault]:
    """Return what is wrong with the name that a client gives itself as a manager of fields."""
    faults = [too_long("fieldManager", MANAGER_BYTES)] if len(manager.encode()) > MANAGER_BYTES else []
    offset = 0
    for letter in manager:
        if not letter.isprintable():
            why = f"invalid character U+{ord(letter):04X} (at position {offset})"
            faults.append(wrong("fieldManager", manager, why))
        offset += len(letter.encode())
    return faults


def read_write_options(parameters: Mapping[str, str], user: User, *, agent: str, options: str) -> WriteOptions:
    """Return what a write says beside its body; without a field manager the client program's name stands in.

    options: what the real server calls these: "CreateOptions", "UpdateOptions" or "PatchOptions".
    """
    validation = parameters.get("fieldValidation", "")
    manager = parameters.get("fieldManager", "")
    dry_run = [parameters["dryRun"]] if parameters.get("dryRun") else []
    faults = manager_faults(manager) + _dry_run_faults(dry_run)
    if validation not in ("", "Strict", "Warn", "Ignore"):
        faults.append(unsupported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    _refuse(options, faults)
    program = "".join(each for each in agent.partition("/")[0] if each.isprintable())
    return WriteOptions(
        user=user,
        dry_run=bool(dry_run),
        field_manager=manager or program[:MANAGER_BYTES],
        field_validation=validation,
        force=read_bool(parameters, "force"),
    )


def read_delete_options(parameters: Mapping[str, str], body: DeleteOptions | None) -> DeleteOptions:
    """Return the options of a delete: the body's if there is one, else the query's; raises Invalid."""
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
    faults = _dry_run_faults(options.dry_run)
    policies = ("Foreground", "Background", "Orphan")
    if options.propagation_policy and options.orphan_dependents is not None:
        why = "orphanDependents and deletionPropagation cannot be both set"
        faults.append(wrong("propagationPolicy", options.propagation_policy, why))
    elif options.propagation_policy not in ("", *policies):
        faults.append(unsupported("propagationPolicy", options.propagation_policy, (*policies, "nil")))
    _refuse("DeleteOptions", faults)
    return options
