"""Pod security: namespaces say by labels which level of the Pod Security Standards their pods must, should or ought to
keep: ``enforce`` refuses, ``audit`` notes, ``warn`` tells the client.

Source: kubernetes.io, "Pod Security Admission".
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from api.errors import Fault, invalid
from api.kinds.core import Namespace
from api.kinds.pods import Pod, PodTemplateSpec
from api.meta import Resource
from master.admission.chain import Attributes, Rule, refusal
from master.admission.podsecuritychecks import LEVELS, Subject, violations
from master.notes import annotate, warn

PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")
_VERSION = re.compile(r"latest|v1\.\d+")
# Existing pods that are looked through when a namespace becomes stricter.
_PODS_LOOKED_AT = 3000
# (group, plural) -> where the pod template is.
_TEMPLATES: Mapping[tuple[str, str], Callable[[Any], PodTemplateSpec | None]] = {
    ("", "podtemplates"): lambda obj: cast("PodTemplateSpec", obj.template),
    ("", "replicationcontrollers"): lambda obj: cast("PodTemplateSpec | None", obj.spec.template),
    ("apps", "deployments"): lambda obj: cast("PodTemplateSpec", obj.spec.template),
    ("apps", "replicasets"): lambda obj: cast("PodTemplateSpec", obj.spec.template),
    ("apps", "statefulsets"): lambda obj: cast("PodTemplateSpec", obj.spec.template),
    ("apps", "daemonsets"): lambda obj: cast("PodTemplateSpec", obj.spec.template),
    ("batch", "jobs"): lambda obj: cast("PodTemplateSpec", obj.spec.template),
    ("batch", "cronjobs"): lambda obj: cast("PodTemplateSpec", obj.spec.job_template.spec.template),
}


class Policy(NamedTuple):
    """A level in a version, as messages tell it."""

    level: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


def policies_of(labels: Mapping[str, str]) -> dict[str, Policy]:
    """Return mode -> policy. A level that does not exist counts as the strictest, a version as the newest."""
    found = {}
    for mode in MODES:
        level = labels.get(PREFIX + mode, "privileged")
        version = labels.get(f"{PREFIX}{mode}-version", "latest")
        found[mode] = Policy(
            level if level in LEVELS else "restricted", version if _VERSION.fullmatch(version) else "latest"
        )
    return found


def label_faults(labels: Mapping[str, str]) -> list[Fault]:
    """Return what is wrong with a namespace's labels of pod security."""
    faults = []
    for mode in MODES:
        level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
        if level is not None and level not in LEVELS:
            what = f'Invalid value: "{level}": must be one of {", ".join(LEVELS)}'
            faults.append(Fault(f"metadata.labels[{PREFIX}{mode}]", what))
        if version is not None and not _VERSION.fullmatch(version):
            what = f'Invalid value: "{version}": must be "latest" or "v1.x"'
            faults.append(Fault(f"metadata.labels[{PREFIX}{mode}-version]", what))
    return faults


def broken(policy: Policy, pod: Subject) -> str:
    """Return ``PodSecurity "level:version": why, why``; empty if the pod keeps the policy."""
    found = violations(policy.level, pod)
    return f'PodSecurity "{policy}": {", ".join(found)}' if found else ""


FindNamespace = Callable[[str], Awaitable[Resource | None]]
ListPods = Callable[[str], Awaitable[Sequence[Pod]]]


class PodSecurity(Rule):
    """Holds pods, and the templates of pods, against the levels of their namespace."""

    def __init__(self, find: FindNamespace, pods: ListPods) -> None:
        self._find = find
        self._pods = pods

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden for a pod that breaks what is enforced; warn and annotate for the rest."""
        if attributes.obj is None:
            return
        if attributes.is_of("", "namespaces"):
            await self._judge_namespace(attributes)
        elif attributes.is_of("", "pods"):
            if attributes.subresource in ("", "ephemeralcontainers") and not _same_security(attributes):
                assert isinstance(attributes.obj, Pod)
                pod = Subject(attributes.obj.metadata, attributes.obj.spec)
                await self._judge_pod(attributes, pod)
        elif (template := self._template(attributes)) is not None:
            await self._tell(attributes, Subject(template.metadata, template.spec))

    @staticmethod
    def _template(attributes: Attributes) -> PodTemplateSpec | None:
        find = _TEMPLATES.get(attributes.kind.place)
        return None if find is None or attributes.subresource else find(attributes.obj)

    async def _policies(self, attributes: Attributes) -> dict[str, Policy]:
        namespace = await self._find(attributes.namespace)
        return policies_of(namespace.metadata.labels if namespace is not None else {})

    async def _judge_pod(self, attributes: Attributes, pod: Subject) -> None:
        policies = await self._policies(attributes)
        enforced = policies["enforce"]
        annotate(f"{PREFIX}enforce-policy", str(enforced))
        if why := broken(enforced, pod):
            raise refusal(attributes, f"violates {why}")
        self._note(policies, pod)

    async def _tell(self, attributes: Attributes, pod: Subject) -> None:
        self._note(await self._policies(attributes), pod)

    @staticmethod
    def _note(policies: Mapping[str, Policy], pod: Subject) -> None:
        if why := broken(policies["audit"], pod):
            annotate(f"{PREFIX}audit-violations", f"would violate {why}")
        if why := broken(policies["warn"], pod):
            warn(f"would violate {why}")

    async def _judge_namespace(self, attributes: Attributes) -> None:
        """Refuse labels that mean nothing; warn of pods that a stricter level would not have let in."""
        assert isinstance(attributes.obj, Namespace)
        labels = attributes.obj.metadata.labels
        old = attributes.old.metadata.labels if attributes.old is not None else {}
        if labels == old or attributes.subresource:
            return
        # What was wrong already does not stand in the way of another change.
        before = label_faults(old)
        if faults := [each for each in label_faults(labels) if each not in before]:
            raise invalid("Namespace", attributes.name, faults)
        policy = policies_of(labels)["enforce"]
        if attributes.operation != "UPDATE" or policy == policies_of(old)["enforce"]:
            return
        found: dict[str, list[str]] = {}
        for pod in list(await self._pods(attributes.name))[:_PODS_LOOKED_AT]:
            if told := violations(policy.level, Subject(pod.metadata, pod.spec)):
                titles = ", ".join(each.partition(" (")[0] for each in told)
                found.setdefault(titles, []).append(pod.metadata.name)
        if found:
            warn(f'existing pods in namespace "{attributes.name}" violate the new PodSecurity enforce level "{policy}"')
        for titles, names in found.items():
            others = f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
            warn(f"{min(names)}{others}: {titles}")


def _same_security(attributes: Attributes) -> bool:
    """Return whether an update touches nothing that the levels are about."""
    old, new = attributes.old, attributes.obj
    if old is None or new is None:
        return False
    assert isinstance(old, Pod), old
    assert isinstance(new, Pod), new
    return old.spec == new.spec and old.metadata.annotations == new.metadata.annotations
