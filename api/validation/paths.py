"""Where paths inside a pod's volumes may lead: never out of them."""

from api.errors import Fault
from api.faults import wrong

_MODES = range(0o777 + 1)


def climb_faults(path: str, field: str) -> list[Fault]:
    """Return the fault of a path that climbs up."""
    return [wrong(field, path, "must not contain '..'")] if ".." in path.split("/") else []


def local_path_faults(path: str, field: str) -> list[Fault]:
    """Return the faults of a path that does not lead down from where it starts."""
    faults = [wrong(field, path, "must be a relative path")] if path.startswith("/") else []
    return faults + climb_faults(path, field)


def file_path_faults(path: str, field: str) -> list[Fault]:
    """Return the faults of the path of a file that is made in a volume; names with ``..`` are the volume's own."""
    faults = local_path_faults(path, field)
    if path.startswith("..") and not path.startswith("../") and path != "..":
        faults.append(wrong(field, path, "must not start with '..'"))
    return faults


def mode_faults(mode: int | None, field: str) -> list[Fault]:
    """Return the fault of a file's mode."""
    if mode is None or mode in _MODES:
        return []
    return [wrong(field, mode, "must be a number between 0 and 0777 (octal), both inclusive")]
