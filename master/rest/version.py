"""What ``/version`` says: the level of the API that is spoken, and that it is Trireme which speaks it."""

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

MAJOR, MINOR = "1", "32"


def _digest_of_code() -> str:
    """Return what tells this code from other code: in the form of a commit, of which hosts know none."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in ("api", "client", "master"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:40]


@cache
def version_document() -> Mapping[str, str]:
    """Return the document."""
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+trireme",
        "gitCommit": _digest_of_code(),
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"none; Python {platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"linux/{platform.machine().replace('x86_64', 'amd64').replace('aarch64', 'arm64')}",
    }
