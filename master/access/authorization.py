"""Whether a user may do something: fixed rules for the cluster's own parts, RBAC objects for everyone else.

Rules only allow; what no rule allows is forbidden. Source: kubernetes.io, "Using RBAC Authorization" and "Using Node
Authorization".
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from api.errors import Forbidden
from api.kinds.pods import Pod
from api.kinds.rbac import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject
from master.access.user import AUTHENTICATED, SYSTEM_MASTERS, User


class Request(NamedTuple):
    """What a user wants to do: a verb on a resource, or, with ``path``, on a path that is no resource."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def qualified(self) -> str:
        """Return ``pods/log``, or ``pods``: how rules name the resource."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


class Decision(NamedTuple):
    """Whether, and by which rule."""

    allowed: bool
    reason: str = ""


class Policies(Protocol):
    """The RBAC objects and pods as a master's cache has them now; reading them does not wait for the store."""

    async def cluster_role(self, name: str) -> ClusterRole | None:
        """Return a cluster role."""

    async def role(self, namespace: str, name: str) -> Role | None:
        """Return a role."""

    async def cluster_role_bindings(self) -> Iterable[ClusterRoleBinding]:
        """Return all bindings for the whole cluster."""

    async def role_bindings(self, namespace: str) -> Iterable[RoleBinding]:
        """Return the bindings of one namespace."""

    async def pods_of_node(self, node: str) -> Iterable[Pod]:
        """Return the pods bound to a node."""


_READ = ("get", "list", "watch")


def _rule(
    verbs: Sequence[str], *resources: str, groups: Sequence[str] = ("",), paths: Sequence[str] = ()
) -> PolicyRule:
    return PolicyRule(
        verbs=tuple(verbs),
        api_groups=tuple(groups) if resources else (),
        resources=resources,
        non_resource_urls=tuple(paths),
    )


# What anyone may, without saying who.
PUBLIC = (
    _rule(
        ("get",),
        paths=("/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version", "/version/"),
    ),
)
# What everyone may whom we know.
KNOWN_USERS = (
    _rule(("get",), paths=("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")),
    _rule(("create",), "selfsubjectaccessreviews", "selfsubjectrulesreviews", groups=("authorization.k8s.io",)),
    _rule(("create",), "selfsubjectreviews", groups=("authentication.k8s.io",)),
)
# What every node agent may, wherever; that it writes only what belongs to its node is admission's to see.
NODES = (
    _rule(("get",), paths=("/metrics",)),
    _rule(_READ, "services", "endpoints", "namespaces", "pods"),
    _rule(_READ, "endpointslices", groups=("discovery.k8s.io",)),
    _rule(("get", "list", "watch", "create", "update", "patch"), "nodes"),
    _rule(("get", "update", "patch"), "nodes/status"),
    _rule(("create", "delete"), "pods"),
    _rule(("get", "update", "patch"), "pods/status"),
    _rule(("create",), "pods/eviction"),
    _rule(("create", "update", "patch"), "events", groups=("", "events.k8s.io")),
    _rule(("get", "create", "update", "patch", "delete"), "leases", groups=("coordination.k8s.io",)),
    _rule(("create", "get", "list", "watch"), "certificatesigningrequests", groups=("certificates.k8s.io",)),
    _rule(_READ, "runtimeclasses", groups=("node.k8s.io",)),
    _rule(_READ, "csidrivers", "csinodes", "storageclasses", groups=("storage.k8s.io",)),
    _rule(("get",), "persistentvolumes", "persistentvolumeclaims"),
    _rule(("create",), "subjectaccessreviews", "localsubjectaccessreviews", groups=("authorization.k8s.io",)),
    _rule(("create",), "tokenreviews", groups=("authentication.k8s.io",)),
)


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
        request = Request(user, verb, group, resource, subresource, namespace, name)
        decision = await self.decide(request)
        if not decision.allowed:
            raise forbidden(request)

    async def authorize_path(self, user: User, verb: str, path: str) -> None:
        """Return if ``user`` may ``verb`` (a method in lower case) a path that is no resource; raises Forbidden."""
        request = Request(user, verb, path=path)
        decision = await self.decide(request)
        if not decision.allowed:
            raise forbidden(request)

    async def decide(self, request: Request) -> Decision:
        """Return whether a request is allowed, and why."""
        user = request.user
        if SYSTEM_MASTERS in user.groups:
            return Decision(True, f"group {SYSTEM_MASTERS} may do everything")
        if _any_allows(PUBLIC, request):
            return Decision(True, "anyone may")
        if AUTHENTICATED in user.groups and _any_allows(KNOWN_USERS, request):
            return Decision(True, "every known user may")
        if user.node and await self._node_may(request):
            return Decision(True, f"node agents may, and this is the one of {user.node}")
        return await self._by_roles(request)

    async def _node_may(self, request: Request) -> bool:
        if _any_allows(NODES, request):
            return True
        if request.verb != "get" or not request.name or request.group:
            return False
        match request.resource:
            case "secrets":
                return any(request.name in secrets_of(pod) for pod in await self._pods(request))
            case "configmaps":
                return any(request.name in config_maps_of(pod) for pod in await self._pods(request))
            case "serviceaccounts":
                return any(request.name == pod.spec.service_account_name for pod in await self._pods(request))
        return False

    async def _pods(self, request: Request) -> list[Pod]:
        pods = await self._policies.pods_of_node(request.user.node)
        return [pod for pod in pods if pod.metadata.namespace == request.namespace]

    async def _by_roles(self, request: Request) -> Decision:
        for cluster_binding in await self._policies.cluster_role_bindings():
            if _binds(cluster_binding.subjects, request.user, "") and _any_allows(
                await self._rules(cluster_binding.role_ref, ""), request
            ):
                name = cluster_binding.metadata.name
                return Decision(
                    True, f'RBAC: allowed by ClusterRoleBinding "{name}" of {_named(cluster_binding.role_ref)}'
                )
        if request.namespace:
            for binding in await self._policies.role_bindings(request.namespace):
                if _binds(binding.subjects, request.user, request.namespace) and _any_allows(
                    await self._rules(binding.role_ref, request.namespace), request
                ):
                    name = f"{binding.metadata.name}/{request.namespace}"
                    return Decision(True, f'RBAC: allowed by RoleBinding "{name}" of {_named(binding.role_ref)}')
        return Decision(False)

    async def rules_for(self, user: User, namespace: str) -> tuple[PolicyRule, ...]:
        """Return every rule that holds for ``user`` in ``namespace``: what ``kubectl auth can-i --list`` prints."""
        rules = [*PUBLIC]
        if SYSTEM_MASTERS in user.groups:
            rules += [_rule(("*",), "*", groups=("*",)), _rule(("*",), paths=("*",))]
        if AUTHENTICATED in user.groups:
            rules += KNOWN_USERS
        if user.node:
            rules += NODES
        for cluster_binding in await self._policies.cluster_role_bindings():
            if _binds(cluster_binding.subjects, user, ""):
                rules += await self._rules(cluster_binding.role_ref, "")
        for binding in await self._policies.role_bindings(namespace) if namespace else ():
            if _binds(binding.subjects, user, namespace):
                rules += [rule for rule in await self._rules(binding.role_ref, namespace) if rule.resources]
        return tuple(rules)

    async def _rules(self, reference: RoleRef, namespace: str) -> Sequence[PolicyRule]:
        """Return the rules of the role that a binding names; none if it is gone."""
        role: ClusterRole | Role | None = None
        if reference.kind == "ClusterRole":
            role = await self._policies.cluster_role(reference.name)
        elif reference.kind == "Role" and namespace:
            role = await self._policies.role(namespace, reference.name)
        return role.rules if role is not None else ()


def _named(reference: RoleRef) -> str:
    return f'{reference.kind} "{reference.name}"'


def _binds(subjects: Sequence[Subject], user: User, namespace: str) -> bool:
    return any(_is_subject(each, user, namespace) for each in subjects)


def _is_subject(subject: Subject, user: User, namespace: str) -> bool:
    match subject.kind:
        case "User":
            return subject.name == user.name
        case "Group":
            return subject.name in user.groups
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{subject.namespace or namespace}:{subject.name}"
    return False


def _any_allows(rules: Iterable[PolicyRule], request: Request) -> bool:
    return any(allows(rule, request) for rule in rules)


def allows(rule: PolicyRule, request: Request) -> bool:
    """Return whether one rule allows a request."""
    if request.verb not in rule.verbs and "*" not in rule.verbs:
        return False
    if request.path:
        return any(_covers_path(each, request.path) for each in rule.non_resource_urls)
    return (
        (request.group in rule.api_groups or "*" in rule.api_groups)
        and any(_covers_resource(each, request) for each in rule.resources)
        and (not rule.resource_names or request.name in rule.resource_names)
    )


def _covers_path(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def _covers_resource(pattern: str, request: Request) -> bool:
    if pattern in ("*", request.qualified):
        return True
    return bool(request.subresource) and pattern == f"*/{request.subresource}"


def forbidden(request: Request) -> Forbidden:
    """Return the refusal of a request, in the words of the real server."""
    who = f'User "{request.user.name}" cannot {request.verb}'
    if request.path:
        return Forbidden(f'forbidden: {who} path "{request.path}"')
    where = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    plural = f"{request.resource}.{request.group}" if request.group else request.resource
    what = f'{plural} "{request.name}"' if request.name else plural
    why = f'{who} resource "{request.qualified}" in API group "{request.group}" {where}'
    return Forbidden(f"{what} is forbidden: {why}", group=request.group, kind=request.resource, name=request.name)


def secrets_of(pod: Pod) -> frozenset[str]:
    """Return the names of the secrets that a pod's node has to read to run it."""
    names = {each.name for each in pod.spec.image_pull_secrets}
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        names |= {each.secret_ref.name for each in container.env_from if each.secret_ref}
        for variable in container.env:
            if variable.value_from and variable.value_from.secret_key_ref:
                names.add(variable.value_from.secret_key_ref.name)
    for volume in pod.spec.volumes:
        if volume.secret:
            names.add(volume.secret.secret_name)
        for source in volume.projected.sources if volume.projected else ():
            if source.secret:
                names.add(source.secret.name)
    return frozenset(names)


def config_maps_of(pod: Pod) -> frozenset[str]:
    """Return the names of the config maps that a pod's node has to read to run it."""
    names = set()
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        names |= {each.config_map_ref.name for each in container.env_from if each.config_map_ref}
        for variable in container.env:
            if variable.value_from and variable.value_from.config_map_key_ref:
                names.add(variable.value_from.config_map_key_ref.name)
    for volume in pod.spec.volumes:
        if volume.config_map:
            names.add(volume.config_map.name)
        for source in volume.projected.sources if volume.projected else ():
            if source.config_map:
                names.add(source.config_map.name)
    return frozenset(names)
