"""Who may do what: fixed rules, node agents, RBAC objects."""

import pytest
from msgspec.structs import replace

from api import codec
from api.errors import Forbidden
from api.kinds.rbac import ClusterRole, Role
from api.kinds.table import TABLE
from master.access.authorization import Authorizer, Request, allows
from master.access.default_roles import default_objects
from master.access.node_rules import MIRROR
from master.access.user import ANONYMOUS, AUTHENTICATED, User

RBAC = "rbac.authorization.k8s.io"
ALICE = User("alice", ("devs", AUTHENTICATED))
ROBOT = User("system:serviceaccount:build:robot", (AUTHENTICATED,))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
MASTER = User("admin", ("system:masters", AUTHENTICATED))


def made(plural, group, document):
    return codec.decode(TABLE.preferred(group, plural), document)


def role(name, *rules, namespace=""):
    plural = "roles" if namespace else "clusterroles"
    return made(plural, RBAC, {"metadata": {"name": name, "namespace": namespace}, "rules": list(rules)})


def rule(verbs, resources=(), *, groups=("",), names=(), urls=()):
    return {
        "verbs": verbs.split(),
        "apiGroups": list(groups) if resources else [],
        "resources": list(resources),
        "resourceNames": list(names),
        "nonResourceURLs": list(urls),
    }


def binding(kind, role_name, *subjects, namespace=""):
    plural = "rolebindings" if namespace else "clusterrolebindings"
    document = {
        "metadata": {"name": "b", "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role_name},
        "subjects": list(subjects),
    }
    return made(plural, RBAC, document)


USER = {"kind": "User", "name": "alice"}
GROUP = {"kind": "Group", "name": "devs"}
ACCOUNT = {"kind": "ServiceAccount", "name": "robot", "namespace": "build"}


DEFAULTS = default_objects()


class Policies:
    """RBAC objects and pods in lists, the default roles among them."""

    def __init__(self, roles=(), bindings=(), pods=()):
        kinds = (ClusterRole, Role)
        known = [each for each in DEFAULTS if isinstance(each, kinds)]
        self.roles = {(each.metadata.namespace, each.metadata.name): each for each in (*known, *roles)}
        self.bindings = [*(each for each in DEFAULTS if not isinstance(each, kinds)), *bindings]
        self.pods = pods
        self.claims = {}

    async def cluster_role(self, name):
        return self.roles.get(("", name))

    async def role(self, namespace, name):
        return self.roles.get((namespace, name))

    async def cluster_role_bindings(self, user):
        return [each for each in self.bindings if not each.metadata.namespace]

    async def role_bindings(self, namespace, user):
        return [each for each in self.bindings if each.metadata.namespace == namespace]

    async def pods_of_node(self, node):
        return [pod for pod in self.pods if pod.spec.node_name == node]

    async def claim_of_volume(self, name):
        return self.claims.get(name)


async def may(user, verb, resource="", *, policies=None, **more):
    decision = await Authorizer(policies or Policies()).decide(Request(user, verb, resource=resource, **more))
    return decision.allowed


async def test_masters_may_do_everything():
    assert await may(MASTER, "delete", "nodes")
    assert await may(MASTER, "get", path="/metrics")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
async def test_anyone_may_ask_for_health(path):
    assert await may(ANONYMOUS, "get", path=path)
    assert not await may(ANONYMOUS, "post", path=path)


@pytest.mark.parametrize("path", ["/", "/readyz/store", "/api", "/apis", "/metrics", "/openapi/v2"])
async def test_the_unknown_may_nothing_else(path):
    assert not await may(ANONYMOUS, "get", path=path)
    assert not await may(ANONYMOUS, "list", "pods")


async def test_known_users_may_discover_and_ask_about_themselves():
    assert await may(ALICE, "get", path="/apis/apps/v1")
    assert await may(ALICE, "create", "selfsubjectaccessreviews", group="authorization.k8s.io")
    assert not await may(ANONYMOUS, "create", "selfsubjectaccessreviews", group="authorization.k8s.io")
    assert not await may(ALICE, "list", "pods")


READ_PODS = rule("get list", ["pods"])


@pytest.mark.parametrize("subject", [USER, GROUP])
async def test_a_cluster_binding_holds_everywhere(subject):
    policies = Policies([role("r", READ_PODS)], [binding("ClusterRole", "r", subject)])
    for namespace in ("", "a"):
        assert await may(ALICE, "list", "pods", namespace=namespace, policies=policies)
        assert not await may(ALICE, "delete", "pods", namespace=namespace, policies=policies)
        assert not await may(ROBOT, "list", "pods", namespace=namespace, policies=policies)


@pytest.mark.parametrize("kind", ["Role", "ClusterRole"])
async def test_a_binding_in_a_namespace_holds_there_alone(kind):
    roles = [role("r", READ_PODS, namespace="a" if kind == "Role" else "")]
    policies = Policies(roles, [binding(kind, "r", GROUP, namespace="a")])
    assert await may(ALICE, "get", "pods", namespace="a", name="x", policies=policies)
    assert not await may(ALICE, "get", "pods", namespace="b", policies=policies)
    assert not await may(ALICE, "list", "pods", policies=policies)


async def test_a_cluster_binding_cannot_name_a_role_of_a_namespace():
    policies = Policies([role("r", READ_PODS, namespace="a")], [binding("Role", "r", USER)])
    assert not await may(ALICE, "get", "pods", namespace="a", policies=policies)
    # Not even to a role in the namespace that is no namespace.
    nowhere = role("r", READ_PODS)
    policies.roles["", "r"] = nowhere
    assert not await may(ALICE, "get", "pods", namespace="a", policies=policies)


async def test_service_accounts_are_users_of_their_namespace():
    policies = Policies([role("r", READ_PODS)], [binding("ClusterRole", "r", ACCOUNT)])
    assert await may(ROBOT, "list", "pods", policies=policies)
    other = User("system:serviceaccount:other:robot", (AUTHENTICATED,))
    assert not await may(other, "list", "pods", policies=policies)


async def test_a_binding_to_a_role_that_is_gone_allows_nothing():
    policies = Policies([], [binding("ClusterRole", "gone", USER)])
    assert not await may(ALICE, "list", "pods", policies=policies)


@pytest.mark.parametrize(
    ("given", "request_", "allowed"),
    [
        (rule("*", ["*"], groups=["*"]), {"verb": "delete", "resource": "pods", "group": "x"}, True),
        (rule("get", ["pods"]), {"verb": "get", "resource": "pods", "subresource": "log"}, False),
        (rule("get", ["pods/log"]), {"verb": "get", "resource": "pods", "subresource": "log"}, True),
        (rule("get", ["pods/log"]), {"verb": "get", "resource": "pods"}, False),
        (rule("update", ["*/scale"], groups=["apps"]), {"verb": "update", "resource": "deployments", "group": "apps", "subresource": "scale"}, True),
        (rule("update", ["*/scale"], groups=["apps"]), {"verb": "update", "resource": "deployments", "group": "apps"}, False),
        (rule("get", ["pods"]), {"verb": "get", "resource": "pods", "group": "apps"}, False),
        (rule("get", ["pods"], names=["a"]), {"verb": "get", "resource": "pods", "name": "a"}, True),
        (rule("get", ["pods"], names=["a"]), {"verb": "get", "resource": "pods", "name": "b"}, False),
        (rule("list", ["pods"], names=["a"]), {"verb": "list", "resource": "pods"}, False),
        (rule("get", urls=["/metrics"]), {"verb": "get", "path": "/metrics"}, True),
        (rule("get", urls=["/logs/*"]), {"verb": "get", "path": "/logs/x/y"}, True),
        (rule("get", urls=["/logs/*"]), {"verb": "get", "path": "/logs"}, False),
        (rule("*", urls=["*"]), {"verb": "post", "path": "/x"}, True),
        (rule("*", ["*"], groups=["*"]), {"verb": "get", "path": "/metrics"}, False),
    ],
)  # fmt: skip
def test_rules(given, request_, allowed):
    (found,) = role("r", given).rules
    assert allows(found, Request(ALICE, **request_)) is allowed


def pod(name, node, spec, namespace="a"):
    containers = [{"name": "c", "image": "i", **spec.pop("container", {})}]
    document = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": containers, **spec},
    }
    return made("pods", "", document)


ENV = {"container": {"env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}
ENV_FROM = {"container": {"envFrom": [{"secretRef": {"name": "s"}}]}}
VOLUME = {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}
PROJECTED = {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}
PULL = {"imagePullSecrets": [{"name": "s"}]}


@pytest.mark.parametrize("spec", [ENV, ENV_FROM, VOLUME, PROJECTED, PULL])
async def test_a_node_reads_the_secrets_of_its_own_pods_alone(spec):
    wanted = {"namespace": "a", "name": "s"}
    here, there = pod("p", "n1", {**spec}), pod("p", "n2", {**spec})
    assert await may(NODE, "get", "secrets", policies=Policies(pods=[here]), **wanted)
    assert not await may(NODE, "get", "secrets", policies=Policies(pods=[there]), **wanted)
    assert not await may(NODE, "get", "secrets", policies=Policies(pods=[here]), namespace="b", name="s")
    assert not await may(NODE, "get", "secrets", policies=Policies(pods=[here]), namespace="a", name="other")
    assert not await may(NODE, "list", "secrets", policies=Policies(pods=[here]), namespace="a")
    assert not await may(NODE, "delete", "secrets", policies=Policies(pods=[here]), **wanted)
    own = replace(here, metadata=replace(here.metadata, annotations={MIRROR: "x"}))
    assert not await may(NODE, "get", "secrets", policies=Policies(pods=[own]), **wanted), "it made that pod itself"


async def test_a_node_does_its_work():
    for verb, resource, sub in (
        ("update", "nodes", "status"),
        ("update", "pods", "status"),
        ("create", "events", ""),
        ("watch", "services", ""),
    ):
        assert await may(NODE, verb, resource, subresource=sub)
    assert not await may(NODE, "create", "deployments", group="apps")
    # The group alone is not enough: the name says which node.
    assert not await may(User("mallory", ("system:nodes", AUTHENTICATED)), "list", "pods")


async def test_refusals_speak_like_the_real_server():
    with pytest.raises(Forbidden) as refused:
        await Authorizer(Policies()).authorize(ALICE, "get", "apps", "deployments", "scale", "a", "web")
    assert refused.value.message == (
        'deployments.apps "web" is forbidden: User "alice" cannot get resource "deployments/scale" in API group "apps" '
        'in the namespace "a"'
    )
    with pytest.raises(Forbidden) as refused:
        await Authorizer(Policies()).authorize(ALICE, "list", "", "nodes")
    assert refused.value.message.endswith('cannot list resource "nodes" in API group "" at the cluster scope')
