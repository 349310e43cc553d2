"""Which names a definition gets, and what its conditions say: decisions about one definition among the others.

Source: the condition types and reasons of CustomResourceDefinition on kubernetes.io; KEP-1111 for approval.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from api.kinds.extensions import (
    CustomResourceDefinition,
    CustomResourceDefinitionCondition,
    CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
)
from api.kinds.table import Kind

APPROVED = "api-approved.kubernetes.io"
Condition = CustomResourceDefinitionCondition


def is_protected(group: str) -> bool:
    """Return whether ``group`` belongs to the Kubernetes community, which has to approve of APIs in it."""
    return group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")


class _Taken:
    """The names that others of the same group use."""

    def __init__(
        self, definition: CustomResourceDefinition, others: Iterable[CustomResourceDefinition], built_in: Iterable[Kind]
    ) -> None:
        self.resources: set[str] = set()  # plurals, singulars, short names
        self.kinds: set[str] = set()
        group = definition.spec.group
        for each in others:
            names = each.status.accepted_names
            if each.metadata.name != definition.metadata.name and each.spec.group == group and names is not None:
                self._add((names.plural, names.singular, *names.short_names), (names.kind, names.list_kind))
        for row in built_in:
            if row.group == group and row.custom is None:
                self._add((row.plural, row.singular, *row.short_names), (row.kind, row.list_kind))

    def _add(self, resources: Iterable[str], kinds: Iterable[str]) -> None:
        self.resources.update(filter(None, resources))
        self.kinds.update(filter(None, kinds))


def _accept(definition: CustomResourceDefinition, taken: _Taken) -> tuple[CustomResourceDefinitionNames, Condition]:
    """Return the names that are free, the rest as they were accepted before, and the condition NamesAccepted."""
    wanted = definition.spec.names
    accepted = definition.status.accepted_names or CustomResourceDefinitionNames()
    problems: list[tuple[str, str]] = []
    fields: dict[str, object] = {"categories": wanted.categories}
    for attribute, reason, used in (
        ("plural", "PluralConflict", taken.resources),
        ("singular", "SingularConflict", taken.resources),
        ("short_names", "ShortNamesConflict", taken.resources),
        ("kind", "KindConflict", taken.kinds),
        ("list_kind", "ListKindConflict", taken.kinds),
    ):
        value = getattr(wanted, attribute)
        names_wanted = (value,) if isinstance(value, str) else value
        if clashing := [name for name in names_wanted if name in used]:
            problems.append((reason, ", ".join(f'"{name}" is already in use' for name in clashing)))
        else:
            fields[attribute] = value
    names = replace(accepted, **fields)
    if problems:
        reason, message = problems[-1]  # as the real server: the last one found
        return names, Condition(type="NamesAccepted", status="False", reason=reason, message=message)
    return names, Condition(type="NamesAccepted", status="True", reason="NoConflicts", message="no conflicts found")


def _established(definition: CustomResourceDefinition, accepted: Condition) -> Condition:
    present = next((each for each in definition.status.conditions if each.type == "Established"), None)
    if present is not None and present.status == "True":
        return present
    if accepted.status == "True":
        message = "the initial names have been accepted"
        return Condition(type="Established", status="True", reason="InitialNamesAccepted", message=message)
    return Condition(type="Established", status="False", reason="NotAccepted", message="not all names are accepted")


def _approval(definition: CustomResourceDefinition) -> Condition | None:
    if not is_protected(definition.spec.group):
        return None
    type_ = "KubernetesAPIApprovalPolicyConformant"
    text = definition.metadata.annotations.get(APPROVED, "")
    if text.startswith("unapproved"):
        message = f'not approved: "{text}"'
        return Condition(type=type_, status="False", reason="UnapprovedAPI", message=message)
    if text.startswith(("https://", "http://")):
        return Condition(type=type_, status="True", reason="ApprovedAnnotation", message=f"approved in {text}")
    if not text:
        message = f'protected groups must have approval annotation "{APPROVED}"'
        return Condition(type=type_, status="False", reason="MissingAnnotation", message=message)
    message = (
        f'protected groups must have approval annotation "{APPROVED}" with either a URL or a reason starting with '
    )
    return Condition(type=type_, status="False", reason="InvalidAnnotation", message=f'{message}"unapproved"')


def plan_status(
    definition: CustomResourceDefinition,
    others: Sequence[CustomResourceDefinition],
    built_in: Iterable[Kind],
    now: str,
) -> CustomResourceDefinitionStatus:
    """Return the status that ``definition`` should have; equal to the one it has when nothing is to be done."""
    names, accepted = _accept(definition, _Taken(definition, others, built_in))
    wanted = [accepted, _established(definition, accepted)]
    if (approval := _approval(definition)) is not None:
        wanted.append(approval)
    conditions = definition.status.conditions
    for each in wanted:
        conditions = with_condition(conditions, each, now)
    return replace(definition.status, accepted_names=names, conditions=conditions)


def with_condition(present: tuple[Condition, ...], new: Condition, now: str) -> tuple[Condition, ...]:
    """Return ``present`` with the condition ``new``; its time moves only when its status does."""
    old = next((each for each in present if each.type == new.type), None)
    moment = old.last_transition_time if old is not None and old.status == new.status else now
    new = replace(new, last_transition_time=moment)
    if old is None:
        return (*present, new)
    return tuple(new if each.type == new.type else each for each in present)
