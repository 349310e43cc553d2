"""Whether a user may do something: the cluster's masters everything, node agents what their node needs, everyone what
RBAC objects allow.

Rules only allow; what no rule allows is forbidden. What every user may, and who asks without a name, is in RBAC objects
too: ``master.access.default_roles``. Source: kubernetes.io, "Using RBAC Authorization" and "Using Node Authorization".
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from api.errors import Forbidden
from api.kinds.pods import Pod
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject
from master.access.node_rules import NODES, claims_of, owns, pods_reach
from master.access.rules import Request, allows, any_allows, make_rule
from master.access.user import SYSTEM_MASTERS, User
from master.notes import annotate

__all__ = ["Authorizer", "Decision", "Policies", "Request", "allows", "forbidden"]


class Decision(NamedTuple):
    """Whether, and by which rule."""

    allowed: bool
    reason: str = ""


class Rules(NamedTuple):
    """All rules that hold for a user; ``incomplete`` says why there may be more."""

    rules: tuple[PolicyRule, ...]
    incomplete: str = ""


class Policies(Protocol):
    """The RBAC objects and pods as a master's cache has them now; reading them does not wait for the store."""

    async def cluster_role(self, name: str) -> ClusterRole | None:
        """Return a cluster role."""

    async def role(self, namespace: str, name: str) -> Role | None:
        """Return a role."""

    async def cluster_role_bindings(self, user: User) -> Iterable[ClusterRoleBinding]:
        """Return the bindings for the whole cluster that name ``user``, or more."""

    async def role_bindings(self, namespace: str, user: User) -> Iterable[RoleBinding]:
        """Return the bindings of one namespace that name ``user``, or more."""

    async def pods_of_node(self, node: str) -> Iterable[Pod]:
        """Return the pods bound to a node."""

    async def claim_of_volume(self, name: str) -> tuple[str, str] | None:
        """Return (namespace, name) of the claim that a persistent volume is bound to."""


EVERYTHING = (make_rule("*", "*", groups=("*",)), make_rule("*", paths="*"))


class Authorizer:
    """Decides from the fixed rules and the RBAC objects of the moment."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies

    async def authorize(
        self,
        user: User,
        verb: str,
        group: str,
        resource: str,
        subresource: str = "",
        namespace: str = "",
        name: str = "",
    ) -> None:
        """Return if ``user`` may; raises Forbidden in the words of the real server."""
        await self.check(Request(user, verb, group, resource, subresource, namespace, name))

    async def authorize_path(self, user: User, verb: str, path: str) -> None:
        """Return if ``user`` may ``verb`` (a method in lower case) a path that is no resource; raises Forbidden."""
        await self.check(Request(user, verb, path=path))

    async def check(self, request: Request) -> None:
        """Return if a request is allowed; raises Forbidden. The audit log is told of the decision."""
        decision = await self.decide(request)
        annotate("authorization.k8s.io/decision", "allow" if decision.allowed else "forbid")
        annotate("authorization.k8s.io/reason", decision.reason)
        if not decision.allowed:
            raise forbidden(request, decision.reason)

    async def allows(self, request: Request) -> bool:
        """Return whether a request is allowed."""
        return (await self.decide(request)).allowed

    async def decide(self, request: Request) -> Decision:
        """Return whether a request is allowed, and why, or what stood in the way."""
        user = request.user
        if SYSTEM_MASTERS in user.groups:
            return Decision(True)
        if user.node and await self._node_may(user.node, request):
            return Decision(True)
        decision = await self._by_roles(request)
        if user.node and not decision.allowed and request.name and not request.path:
            return Decision(False, f"no relationship found between node '{user.node}' and this object")
        return decision

    async def _node_may(self, node: str, request: Request) -> bool:
        if any_allows(NODES, request) or owns(node, request):
            return True
        if request.group or not request.name:
            return False
        pods = list(await self._policies.pods_of_node(node))
        if request.resource == "persistentvolumes":
            claim = await self._policies.claim_of_volume(request.name)
            return request.verb == "get" and claim is not None and any(_uses(pod, claim) for pod in pods)
        return pods_reach([pod for pod in pods if pod.metadata.namespace == request.namespace], request)

    async def _by_roles(self, request: Request) -> Decision:
        missing: list[str] = []
        for binding, namespace in await self._bindings(request.user, request.namespace):
            reference = binding.role_ref
            rules = await self._rules(reference, namespace)
            if rules is None:
                missing.append(f'{reference.kind.lower()}.rbac.authorization.k8s.io "{reference.name}" not found')
            # A role in a namespace says nothing about paths.
            elif any_allows(rules, request) and not (namespace and request.path):
                return Decision(True, _granted(binding, namespace, reference, request.user))
        return Decision(False, f"RBAC: {_listed(missing)}" if missing else "")

    async def _bindings(self, user: User, namespace: str) -> list[tuple[ClusterRoleBinding | RoleBinding, str]]:
        """Return the bindings that name ``user``, each with the namespace it holds in, or the empty string."""
        found: list[tuple[ClusterRoleBinding | RoleBinding, str]] = [
            (each, "") for each in await self._policies.cluster_role_bindings(user) if binds(each.subjects, user, "")
        ]
        if namespace:
            bindings = await self._policies.role_bindings(namespace, user)
            found += [(each, namespace) for each in bindings if binds(each.subjects, user, namespace)]
        return found

    async def rules_for(self, user: User, namespace: str) -> Rules:
        """Return every rule that holds for ``user`` in ``namespace``: what ``kubectl auth can-i --list`` prints."""
        rules: list[PolicyRule] = [*EVERYTHING] if SYSTEM_MASTERS in user.groups else []
        missing: list[str] = []
        for binding, where in await self._bindings(user, namespace):
            found = await self._rules(binding.role_ref, where)
            if found is None:
                missing.append(
                    f'{binding.role_ref.kind.lower()}.rbac.authorization.k8s.io "{binding.role_ref.name}" not found'
                )
            else:
                rules += [rule for rule in found if rule.resources or not where]
        if user.node:
            missing.append("node authorizer does not support user rule resolution")
        return Rules(tuple(dict.fromkeys(rules)), _listed(missing))

    async def rules_of_role(self, reference: RoleRef, namespace: str) -> Sequence[PolicyRule] | None:
        """Return the rules of the role that a binding in ``namespace`` ("": the cluster) names; None without it."""
        return await self._rules(reference, namespace)

    async def _rules(self, reference: RoleRef, namespace: str) -> Sequence[PolicyRule] | None:
        role: ClusterRole | Role | None = None
        if reference.kind == "ClusterRole":
            role = await self._policies.cluster_role(reference.name)
        elif reference.kind == "Role" and namespace:
            role = await self._policies.role(namespace, reference.name)
        return role.rules if role is not None else None


def _uses(pod: Pod, claim: tuple[str, str]) -> bool:
    return pod.metadata.namespace == claim[0] and claim[1] in claims_of(pod)


def _listed(problems: list[str]) -> str:
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]" if unique else ""


def _granted(binding: ClusterRoleBinding | RoleBinding, namespace: str, reference: RoleRef, user: User) -> str:
    kind = "RoleBinding" if namespace else "ClusterRoleBinding"
    name = f"{binding.metadata.name}/{namespace}" if namespace else binding.metadata.name
    subject = next(each for each in binding.subjects if is_subject(each, user, namespace))
    who = f"{subject.name}/{subject.namespace or namespace}" if subject.kind == "ServiceAccount" else subject.name
    return f'RBAC: allowed by {kind} "{name}" of {reference.kind} "{reference.name}" to {subject.kind} "{who}"'


def binds(subjects: Sequence[Subject], user: User, namespace: str) -> bool:
    """Return whether a binding in ``namespace`` ("": the cluster) with these subjects is about ``user``."""
    return any(is_subject(each, user, namespace) for each in subjects)


def is_subject(subject: Subject, user: User, namespace: str) -> bool:
    """Return whether a subject of a binding is ``user``."""
    match subject.kind:
        case "User":
            return subject.name == user.name
        case "Group":
            return subject.name in user.groups
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{subject.namespace or namespace}:{subject.name}"
    return False


def forbidden(request: Request, reason: str = "") -> Forbidden:
    """Return the refusal of a request, in the words of the real server."""
    who = f'User "{request.user.name}" cannot {request.verb}'
    why = f": {reason}" if reason else ""
    if request.path:
        return Forbidden(f'forbidden: {who} path "{request.path}"{why}')
    where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    plural = f"{request.resource}.{request.group}" if request.group else request.resource
    what = f'{plural} "{request.name}"' if request.name else plural
    refusal = f'{who} resource "{request.qualified}" in API group "{request.group}" {where}{why}'
    return Forbidden(f"{what} is forbidden: {refusal}", group=request.group, kind=request.resource, name=request.name)
