"""Write ``docs/compatibility.md``: what of the Kubernetes API is served, and what is not.

What is served says the table of kinds; what there is say the paths that PyPI's ``kubernetes`` client can ask for.
``tests/unit/api/test_compatibility.py`` checks that the committed file is current.

Run: ``python tools/generate_compatibility.py``.
"""

import inspect
import pkgutil
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

warnings.simplefilter("ignore")

from kubernetes.client import api as client_api  # noqa: E402 - its import warns

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from api.kinds.table import STANDARD_VERBS, TABLE, Kind  # noqa: E402 - needs the path above

PATH = ROOT / "docs" / "compatibility.md"
_PLACE = re.compile(
    r"/apis?/(?:(?P<group>[^/]*\.[^/]*|apps|batch|policy|autoscaling)/)?(?P<version>v\d\w*)/(?P<rest>.+)"
)
Resource = tuple[str, str, str]  # group, version, plural, with "/subresource"


def published() -> Iterator[Resource]:
    """Yield every resource and subresource that the client knows a path of."""
    for module in pkgutil.iter_modules(client_api.__path__):
        source = inspect.getsource(import_module(f"{client_api.__name__}.{module.name}"))
        for path in re.findall(r"resource_path='([^']+)'", source):
            if (found := _PLACE.fullmatch(path)) is None:
                continue
            steps = [each for each in found["rest"].split("/") if each != "watch"]
            if steps[:2] == ["namespaces", "{namespace}"] and len(steps) > 2:
                steps = steps[2:]
            plural, below = steps[0], [each for each in steps[2:] if not each.startswith("{")]
            if not plural.startswith("{"):
                yield found["group"] or "", found["version"], "/".join([plural, *below[:1]])


def served() -> set[Resource]:
    """Return every resource and subresource that the table has."""
    return {
        (kind.group, kind.version, name)
        for kind in TABLE
        for name in (kind.plural, *(f"{kind.plural}/{each}" for each in kind.subresources))
    }


def _verbs(kind: Kind) -> str:
    return "all" if kind.verbs == STANDARD_VERBS else ", ".join(kind.verbs)


def _row(kind: Kind) -> str:
    scope = "namespace" if kind.namespaced else "cluster"
    older = "older version of the same objects" if kind.deprecated and kind.stored_as else ""
    note = older or ("another face of the same objects" if kind.stored_as else "")
    names = f"`{kind.plural}`" + (f" ({', '.join(kind.short_names)})" if kind.short_names else "")
    below = ", ".join(kind.subresources)
    return f"| {kind.group_version} | {kind.kind} | {names} | {scope} | {_verbs(kind)} | {below} | {note} |"


def _missing() -> Mapping[str, list[str]]:
    """Return group and version -> the resources of it that are not served."""
    found: dict[str, list[str]] = defaultdict(list)
    for group, version, name in sorted(set(published()) - served()):
        found[f"{group}/{version}" if group else version].append(name)
    return found


_HEAD = """\
# What of the Kubernetes API is served

Made from the table of kinds by `python tools/generate_compatibility.py`; do not edit. Beside these, kinds that a
CustomResourceDefinition defines are served in every version that it names, with their status and scale.

## Kinds

"all" verbs are {verbs}. Every kind is read and written as JSON and YAML, written as protobuf, and shown as Table and
PartialObjectMetadata; a client that asks for protobuf alone gets 406 and, as client-go does, asks for JSON.

| version | kind | resource | scope | verbs | subresources | |
| --- | --- | --- | --- | --- | --- | --- |
"""

_MISSING = """
## What is not served

Of what the official Python client can ask for; a path that is not served answers 404.

| version | resources |
| --- | --- |
"""

_DIFFERENT = """
## What is served differently

- `metrics.k8s.io` comes from the node agents' own statistics; no aggregated server stands behind it, and hollow nodes
  measure no containers.
- Admission webhooks, aggregated API servers and answers in protobuf are not served.
- `pods/resize` follows the rules of 1.33, in which it became beta: a memory limit is lowered only where the container
  restarts for it. A node agent applies what the whole node could bear and refuses the rest (`PodResizePending`,
  `Infeasible`); it defers nothing for what other pods leave free. No default role may resize: give one `pods/resize`.
- A node agent refuses pods that do not fit as the kubelet does, but ends no others to make room for critical ones.
- The deprecated paths `/api/v1/watch/...` and `/apis/<group>/<version>/watch/...` are served, but not described in the
  OpenAPI documents.
- Requests take turns by flows and priority levels, but the objects that configure them are not served
  ([access.md](access.md)); the `X-Kubernetes-PF-*` headers name a request's schema and level.
"""


def render() -> str:
    """Return the text of the document."""
    rows = "\n".join(_row(kind) for kind in TABLE)
    missing = "\n".join(
        f"| {version} | {', '.join(f'`{name}`' for name in names)} |" for version, names in _missing().items()
    )
    return _HEAD.format(verbs=", ".join(STANDARD_VERBS)) + rows + "\n" + _MISSING + missing + "\n" + _DIFFERENT


if __name__ == "__main__":
    PATH.write_text(render())
