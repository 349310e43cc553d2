"""What ``/version`` says: the level of the API that is spoken, and that it is Trireme which speaks it."""

import platform
from collections.abc import Mapping
from functools import cache

MAJOR, MINOR = "1", "32"


def _own_version() -> str:
    from importlib import metadata  # noqa: PLC0415 - it looks through everything that is installed

    try:
        return metadata.version("trireme")
    except metadata.PackageNotFoundError:
        return "0"


@cache
def version_document() -> Mapping[str, str]:
    """Return the document."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+trireme",
        "gitCommit": f"trireme-{_own_version()}",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"none; Python {platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine().replace('x86_64', 'amd64').replace('aarch64', 'arm64')}",
    }
