"""The audit log: who asked what, when, and what came of it; a line of JSON for each request, as audit.k8s.io/v1 Events.

A policy says how much of a request is told; the first rule that matches counts. What secrets, config maps and tokens
hold is never told, whatever a policy says. Lines go to a file that is rotated by size; a bounded queue stands before
it, so that a disk that stalls costs lines, which are counted, and no request waits for it.
Source: kubernetes.io, "Auditing".
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from client.clock import micro_timestamp
from master.access.rules import Request
from master.access.user import User

log = logging.getLogger(__name__)

Level = Literal["None", "Metadata", "Request", "RequestResponse"]

MAX_BYTES = 10 * 1024 * 1024
KEPT_FILES = 4
QUEUED = 20_000  # lines
QUEUED_BYTES = 16 * 1024 * 1024  # of them: a line may carry a whole request and its answer
FLUSH_S = 0.5
# Objects whose content is nobody's business: (group, resource).
CONFIDENTIAL = frozenset({
    ("", "secrets"), ("", "configmaps"), ("", "serviceaccounts/token"), ("authentication.k8s.io", "tokenreviews"),
})  # fmt: skip


class GroupResources(msgspec.Struct, frozen=True, rename="camel"):
    """Resources of one group; none named: all of them."""

    group: str = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class PolicyRule(msgspec.Struct, frozen=True, rename="camel"):
    """What a rule of a policy matches, and how much is told of it. What a rule leaves open matches everything."""

    level: Level
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool | None = None


class Policy(msgspec.Struct, frozen=True, rename="camel"):
    """The rules, in their order."""

    rules: tuple[PolicyRule, ...] = ()
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False
    api_version: str = "audit.k8s.io/v1"
    kind: str = "Policy"


# Without a policy of one's own: no reads by the cluster's own parts and no heartbeats, of everything else who and what.
DEFAULT_POLICY = Policy(
    rules=(
        PolicyRule(level="None", non_resource_urls=("/healthz*", "/livez*", "/readyz*", "/version", "/metrics")),
        PolicyRule(level="None", user_groups=("system:nodes",), verbs=("get", "list", "watch")),
        PolicyRule(
            level="None",
            user_groups=("system:nodes",),
            resources=(
                GroupResources(resources=("nodes/status", "pods/status", "events")),
                GroupResources("coordination.k8s.io", ("leases",)),
                GroupResources("events.k8s.io"),
            ),
        ),
        PolicyRule(level="Metadata"),
    ),
)


def load_policy(path: Path) -> Policy:
    """Return the policy in a YAML file; raises OSError, ValueError."""
    import yaml  # noqa: PLC0415 - without a policy of one's own, a start needs none

    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Policy)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{path}: no audit policy: {error}") from None


def pick_rule(policy: Policy, request: Request) -> PolicyRule:
    """Return the first rule that matches; what none matches is not told."""
    return next((each for each in policy.rules if _matches(each, request)), PolicyRule(level="None"))


def _matches(rule: PolicyRule, request: Request) -> bool:
    user = request.user
    if rule.users and user.name not in rule.users:
        return False
    if rule.user_groups and not set(rule.user_groups) & set(user.groups):
        return False
    if rule.verbs and request.verb not in rule.verbs and "*" not in rule.verbs:
        return False
    if request.path:
        urls = rule.non_resource_urls
        open_ = not rule.resources and not rule.namespaces and not urls
        return open_ or any(_covers(each, request.path) for each in urls)
    if rule.non_resource_urls:
        return False
    if rule.namespaces and request.namespace not in rule.namespaces:
        return False
    return not rule.resources or any(_names(each, request) for each in rule.resources)


def _covers(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def _names(group: GroupResources, request: Request) -> bool:
    if group.group not in (request.group, "*"):
        return False
    if group.resource_names and request.name not in group.resource_names:
        return False
    wanted = group.resources
    patterns = (request.qualified, "*", f"{request.resource}/*", f"*/{request.subresource}")
    return not wanted or any(
        each in patterns and (each != f"{request.resource}/*" or bool(request.subresource)) for each in wanted
    )


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a server knows of a request when it is over. Times are seconds since the epoch."""

    request: Request
    real_user: User  # who sent it, also when it acted as somebody else
    audit_id: str
    uri: str
    code: int
    received: float
    done: float
    stage: str = "ResponseComplete"
    version: str = ""  # of the resource
    source: str = ""  # address of the client
    agent: str = ""
    annotations: Mapping[str, str] = {}
    request_body: bytes = b""
    response_body: bytes = b""


def render(told: Told, rule: PolicyRule, *, omit_managed_fields: bool = False) -> dict[str, Any] | None:
    """Return the event that a rule lets be told of a request; None for nothing."""
    if rule.level == "None" or told.stage in rule.omit_stages:
        return None
    request = told.request
    level: Level = "Metadata" if (request.group, request.qualified) in CONFIDENTIAL else rule.level
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": level,
        "auditID": told.audit_id,
        "stage": told.stage,
        "requestURI": told.uri,
        "verb": request.verb,
        "user": _user(told.real_user),
    }
    if request.user != told.real_user:
        event["impersonatedUser"] = _user(request.user)
    if told.source:
        event["sourceIPs"] = [told.source]
    if told.agent:
        event["userAgent"] = told.agent
    if not request.path:
        event["objectRef"] = _reference(told)
    event["responseStatus"] = {"metadata": {}, "code": told.code}
    omit = omit_managed_fields if rule.omit_managed_fields is None else rule.omit_managed_fields
    if level in ("Request", "RequestResponse") and (body := _object(told.request_body, omit=omit)) is not None:
        event["requestObject"] = body
    if level == "RequestResponse" and (body := _object(told.response_body, omit=omit)) is not None:
        event["responseObject"] = body
    event["requestReceivedTimestamp"] = micro_timestamp(told.received)
    event["stageTimestamp"] = micro_timestamp(told.done)
    if told.annotations:
        event["annotations"] = dict(told.annotations)
    return event


def _user(user: User) -> dict[str, Any]:
    fields = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": dict(user.extra)}
    return {name: value for name, value in fields.items() if value}


def _reference(told: Told) -> dict[str, str]:
    request = told.request
    fields = {
        "resource": request.resource,
        "namespace": request.namespace,
        "name": request.name,
        "apiGroup": request.group,
        "apiVersion": told.version,
        "subresource": request.subresource,
    }
    return {name: value for name, value in fields.items() if value}


def _object(body: bytes, *, omit: bool) -> Any:
    try:
        value = msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return None
    if omit and isinstance(value, dict) and isinstance(value.get("metadata"), dict):
        value["metadata"].pop("managedFields", None)
    return value


def _line(event: Mapping[str, Any]) -> bytes:
    """Return an event as a line: also one with bytes of a client that are no UTF-8, by which none goes untold."""
    try:
        return msgspec.json.encode(event) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


class AuditFile:
    """The file that the lines go to: ``path`` is the newest, ``path``.1 the one before it. Blocks; call in a thread."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT_FILES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines; raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        size = self._path.stat().st_size if self._path.exists() else 0
        data = b"".join(lines)
        if size and size + len(data) > self._max_bytes:
            self._rotate()
        with self._path.open("ab") as file:
            self._path.chmod(0o600)  # it tells names, addresses and what people do
            file.write(data)

    def _rotate(self) -> None:
        for number in range(self._kept - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                newer.replace(older)


class AuditLog:
    """Takes what servers tell and writes what the policy lets through."""

    def __init__(self, file: AuditFile, policy: Policy = DEFAULT_POLICY) -> None:
        self._file = file
        self._policy = policy
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0

    def rule(self, request: Request) -> PolicyRule:
        """Return how much is told of a request."""
        return pick_rule(self._policy, request)

    def tell(self, told: Told) -> None:
        """Take note of a request; never waits."""
        rule = self.rule(told.request)
        if told.stage in self._policy.omit_stages:
            return
        event = render(told, rule, omit_managed_fields=self._policy.omit_managed_fields)
        if event is None:
            return
        line = _line(event)
        if len(self._lines) >= QUEUED or self._bytes + len(line) > QUEUED_BYTES:
            self._lost += 1
            return
        self._lines.append(line)
        self._bytes += len(line)

    async def run(self) -> None:
        """Write until cancelled; the rest is written then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self._flush()
        finally:
            self.close()

    def close(self) -> None:
        """Write what is still told when ``run`` has ended. Blocks."""
        self._write(self._take())
        self._tell_lost()

    async def _flush(self) -> None:
        if lines := self._take():
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, lines))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                # Else the thread would write beside ``close``, or never begin, if all threads are busy just then.
                await asyncio.wait({writing})
                raise
        self._tell_lost()

    def _tell_lost(self) -> None:
        if self._lost:
            log.warning("audit lines lost, the disk is too slow count=%d", self._lost)
            self._lost = 0

    def _take(self) -> list[bytes]:
        lines = list(self._lines)
        self._lines.clear()
        self._bytes = 0
        return lines

    def _write(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        try:
            self._file.write(lines)
        except OSError as error:
            log.error("audit lines not written count=%d error=%s", len(lines), error)  # noqa: TRY400 - says it all
