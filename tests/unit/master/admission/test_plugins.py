"""Admission, plugin by plugin: what pods become, and who is refused why."""

import pytest

from api.errors import Forbidden, Invalid
from api.kinds.rbac import ClusterRoleBinding
from api.kinds.table import TABLE
from master.access.authorization import Authorizer
from master.access.user import AUTHENTICATED, User
from master.admission.chain import Chain, Rule
from master.admission.defaultclasses import newest_default
from master.admission.escalation import Escalation
from master.admission.limits import claim_faults, items_of, pod_faults, with_defaults
from master.admission.noderestriction import NodeRestriction
from master.admission.ownerreferences import OwnerReferences
from master.admission.podsecurity import policies_of
from master.admission.podsecuritychecks import Subject, violations
from master.admission.priority import default_class
from master.admission.runtimeclass import RuntimeClasses
from master.admission.tolerations import (
    TaintNodesByCondition,
    with_default_tolerations,
    with_extended_tolerations,
)
from tests.unit.master.access.test_authorization import Policies, binding, role, rule
from tests.unit.master.admission.objects import attributes, made, pod

ALICE = User("alice", ("devs", AUTHENTICATED))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
GROUP = {"kind": "Group", "name": "devs"}


async def test_plugins_change_in_their_order_and_judge_after_all():
    seen = []

    class Noting(Rule):
        def __init__(self, name):
            self.name = name

        async def mutate(self, attributes, obj):
            seen.append(("mutate", self.name))
            return obj

        async def judge(self, attributes):
            seen.append(("judge", self.name))

    chain, found = Chain([Noting("a"), Noting("b")]), attributes(pod())
    await chain.judge(found) if await chain.mutate(found, found.obj) else None
    assert seen == [("mutate", "a"), ("mutate", "b"), ("judge", "a"), ("judge", "b")]


# Limit ranges


def items(*limits):
    return items_of([made("v1", "LimitRange", spec={"limits": list(limits)})])


def resources(found):
    (container,) = found.spec.containers
    return container.resources.requests, container.resources.limits


@pytest.mark.parametrize(
    ("limit", "given", "requests", "limits"),
    [
        ({"default": {"cpu": "1"}}, {}, {"cpu": "1"}, {"cpu": "1"}),
        ({"max": {"cpu": "2"}}, {}, {"cpu": "2"}, {"cpu": "2"}),
        ({"min": {"cpu": "1"}}, {}, {"cpu": "1"}, {}),
        ({"default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}, {}, {"cpu": "100m"}, {"cpu": "1"}),
        ({"default": {"cpu": "1"}}, {"limits": {"cpu": "3"}}, {"cpu": "3"}, {"cpu": "3"}),
        ({"default": {"cpu": "1"}}, {"requests": {"cpu": "50m"}}, {"cpu": "50m"}, {"cpu": "1"}),
    ],
)
def test_defaults_of_containers(limit, given, requests, limits):
    found = with_defaults(pod({"resources": given}), items({"type": "Container", **limit}))
    assert resources(found) == (requests, limits)


def test_what_was_added_is_told():
    limit = {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "1m"}}
    told = with_defaults(pod({"resources": {"limits": {"memory": "1Mi"}}}), items(limit)).metadata.annotations
    assert told == {
        "kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    }
    untouched = pod({"resources": {"limits": {"cpu": "1", "memory": "1Mi"}}})
    assert with_defaults(untouched, items(limit)) is untouched


@pytest.mark.parametrize(
    ("limit", "given", "faults"),
    [
        ({"type": "Container", "min": {"cpu": "1"}}, {}, ["minimum cpu usage per Container is 1.  No request is specified"]),
        ({"type": "Container", "max": {"cpu": "1"}}, {}, ["maximum cpu usage per Container is 1.  No limit is specified"]),
        ({"type": "Container", "max": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}},
         ["maximum memory usage per Container is 1Gi, but limit is 2Gi"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, {"limits": {"cpu": "1"}, "requests": {"cpu": "400m"}},
         ["cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, {},
         ["cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"]),
        ({"type": "Pod", "min": {"cpu": "1"}}, {"requests": {"cpu": "500m"}}, ["minimum cpu usage per Pod is 1, but request is 500m"]),
        ({"type": "Pod", "max": {"cpu": "1"}}, {"limits": {"cpu": "1"}}, []),
    ],
)  # fmt: skip
def test_limits_that_are_broken(limit, given, faults):
    assert pod_faults(pod({"resources": given}), items(limit)) == faults


def test_claims_have_limits_too():
    found = made("v1", "PersistentVolumeClaim", spec={"resources": {"requests": {"storage": "10Gi"}}})
    limit = {"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}, "min": {"storage": "1Gi"}}
    assert claim_faults(found, items(limit)) == [
        "maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 10Gi"
    ]


# Pod security

SAFE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SAFE_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def told(level, found):
    return violations(level, Subject(found.metadata, found.spec))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pod(hostNetwork=True, hostIPC=True), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (pod({"securityContext": {"privileged": True}}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (pod({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}),
         'non-default capabilities (container "c" must not include "NET_ADMIN" in securityContext.capabilities.add)'),
        (pod(volumes=[{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "hostPath": {"path": "/"}}]),
         'hostPath volumes (volumes "a", "b")'),
        (pod({"ports": [{"containerPort": 1, "hostPort": 80}]}, {"name": "d", "ports": [{"containerPort": 1, "hostPort": 81}]}),
         'hostPort (containers "c", "d" use hostPorts 80, 81)'),
        (pod({"securityContext": {"procMount": "Unmasked"}}),
         'procMount (container "c" must not set securityContext.procMount to "Unmasked")'),
        (pod(securityContext={"seccompProfile": {"type": "Unconfined"}}),
         'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'),
        (pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_syncookies", "value": "1"}]}),
         "forbidden sysctls (kernel.msgmax)"),
        (pod(securityContext={"seLinuxOptions": {"type": "spc_t", "user": "u"}}),
         'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set)'),
        (pod(metadata={"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}),
         'forbidden AppArmor profile (annotation "container.apparmor.security.beta.kubernetes.io/c" may not be set to "unconfined")'),
        (pod(initContainers=[{"name": "i", "image": "i", "securityContext": {"privileged": True}}]),
         'privileged (container "i" must not set securityContext.privileged=true)'),
        (pod(securityContext={"windowsOptions": {"hostProcess": True}}),
         "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"),
    ],
)  # fmt: skip
def test_the_baseline(found, why):
    assert told("baseline", found) == [why]
    assert told("privileged", found) == []


def test_the_restricted_level():
    assert told("restricted", pod()) == [
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])',
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")',
    ]
    safe = pod({"securityContext": SAFE}, securityContext=SAFE_POD)
    assert told("restricted", safe) == []


@pytest.mark.parametrize(
    ("container", "spec", "why"),
    [
        (SAFE | {"runAsUser": 0}, {}, 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (SAFE | {"runAsNonRoot": False}, {}, 'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)'),
        (SAFE | {"capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}, {},
         'unrestricted capabilities (container "c" must not include "CHOWN" in securityContext.capabilities.add)'),
        (SAFE, {"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]},
         'restricted volume types (volume "v" uses restricted volume type "nfs")'),
    ],
)  # fmt: skip
def test_what_restricted_adds(container, spec, why):
    found = pod({"securityContext": container}, securityContext=SAFE_POD, **spec)
    assert told("restricted", found) == [why]
    assert told("baseline", found) == []


def test_levels_of_a_namespace():
    prefix = "pod-security.kubernetes.io/"
    found = policies_of(
        {f"{prefix}enforce": "baseline", f"{prefix}enforce-version": "v1.30", f"{prefix}warn": "nonsense"}
    )
    assert {mode: str(each) for mode, each in found.items()} == {
        "enforce": "baseline:v1.30", "audit": "privileged:latest", "warn": "restricted:latest",
    }  # fmt: skip


# Tolerations, taints, classes


def tolerations(found):
    return [(each.key, each.effect, each.toleration_seconds) for each in found.spec.tolerations]


def test_default_tolerations():
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}
    assert tolerations(with_default_tolerations(pod(tolerations=[own]), 2)) == [
        ("node.kubernetes.io/not-ready", "NoExecute", 9), ("node.kubernetes.io/unreachable", "NoExecute", 2),
    ]  # fmt: skip
    everything = pod(tolerations=[{"operator": "Exists"}])
    assert with_default_tolerations(everything, 2) is everything


def test_extended_resources_are_tolerated():
    found = with_extended_tolerations(pod({"resources": {"limits": {"example.com/gpu": "1", "cpu": "1"}}}))
    assert [(each.key, each.operator) for each in found.spec.tolerations] == [("example.com/gpu", "Exists")]
    assert with_extended_tolerations(found) is found


async def test_a_new_node_is_tainted_once():
    node = made("v1", "Node", metadata={"name": "n"})
    plugin = TaintNodesByCondition()
    tainted = await plugin.mutate(attributes(node), node)
    assert [(each.key, each.effect) for each in tainted.spec.taints] == [("node.kubernetes.io/not-ready", "NoSchedule")]
    assert await plugin.mutate(attributes(tainted), tainted) is tainted
    assert await plugin.mutate(attributes(node, old=node), node) is node


def test_the_default_class_is_the_newest_or_the_least():
    def storage(name, created, mark="true"):
        meta = {"name": name, "creationTimestamp": created, "annotations": {"d": mark}}
        return made("storage.k8s.io/v1", "StorageClass", metadata=meta, provisioner="p")

    classes = [
        storage("a", "2026-01-01T00:00:00Z"),
        storage("b", "2026-01-02T00:00:00Z"),
        storage("c", "2026-01-03T00:00:00Z", "no"),
    ]
    assert newest_default(classes, "d").metadata.name == "b"
    assert newest_default([], "d") is None
    priorities = [
        made("scheduling.k8s.io/v1", "PriorityClass", metadata={"name": str(value)}, value=value, globalDefault=True)
        for value in (5, 3)
    ]
    assert default_class(priorities).value == 3


async def test_runtime_classes():
    cls = made("node.k8s.io/v1", "RuntimeClass", metadata={"name": "vm"}, handler="h", overhead={"podFixed": {"cpu": "1"}},
               scheduling={"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]})  # fmt: skip

    async def find(name):
        return cls if name == "vm" else None

    plugin = RuntimeClasses(find)

    async def admitted(**spec):
        found = pod(**spec)
        return (await plugin.mutate(attributes(found), found)).spec

    spec = await admitted(runtimeClassName="vm")
    assert (spec.overhead, spec.node_selector, [each.key for each in spec.tolerations]) == (
        {"cpu": "1"},
        {"a": "b"},
        ["k"],
    )
    for wrong, why in (
        ({"runtimeClassName": "no"}, 'RuntimeClass "no" not found'),
        ({"overhead": {"cpu": "1"}}, "Overhead set without corresponding RuntimeClass"),
        ({"runtimeClassName": "vm", "overhead": {"cpu": "2"}}, "doesn't match"),
        ({"runtimeClassName": "vm", "nodeSelector": {"a": "c"}}, "conflict"),
    ):
        with pytest.raises(Forbidden, match=why):
            await admitted(**wrong)


# Who may


async def refused(plugin, found):
    try:
        await plugin.judge(found)
    except (Forbidden, Invalid) as error:
        return error.message
    return ""


PODS = rule("get list", ["pods"])
MAKES_ROLES = rule(
    "create update",
    ["roles", "clusterroles", "rolebindings", "clusterrolebindings"],
    groups=["rbac.authorization.k8s.io"],
)


@pytest.mark.parametrize(
    ("extra", "wanted", "fine"),
    [
        ((), PODS, True),
        ((), rule("get", ["pods"]), True),
        ((), rule("*", ["pods"]), False),
        ((), rule("get", ["pods/log"]), False),
        ((rule("escalate", ["roles"], groups=["rbac.authorization.k8s.io"]),), rule("*", ["*"], groups=["*"]), True),
    ],
)
async def test_roles_grant_what_their_author_holds(extra, wanted, fine):
    policies = Policies([role("r", PODS, MAKES_ROLES, *extra)], [binding("ClusterRole", "r", GROUP)])
    found = attributes(role("new", wanted, namespace="a"), user=ALICE)
    assert (await refused(Escalation(Authorizer(policies)), found) == "") is fine


async def test_a_change_that_only_the_collector_makes_is_let_through():
    powerful = role("p", rule("*", ["*"], groups=["*"]))
    plugin = Escalation(Authorizer(Policies()))
    from msgspec.structs import replace

    without = replace(powerful, metadata=replace(powerful.metadata, finalizers=("x",)))
    assert not await refused(plugin, attributes(powerful, old=without, user=ALICE))
    labelled = replace(powerful, metadata=replace(powerful.metadata, labels={"a": "b"}))
    assert "attempting to grant" in await refused(plugin, attributes(labelled, old=powerful, user=ALICE))


async def test_bindings():
    policies = Policies(
        [role("r", PODS), role("all", rule("*", ["*"], groups=["*"]))], [binding("ClusterRole", "r", GROUP)]
    )
    plugin = Escalation(Authorizer(policies))
    assert not await refused(plugin, attributes(binding("ClusterRole", "r", GROUP), user=ALICE))
    assert "attempting to grant" in await refused(plugin, attributes(binding("ClusterRole", "all", GROUP), user=ALICE))
    assert TABLE.of(ClusterRoleBinding)


OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "1"}


@pytest.mark.parametrize(
    ("rules", "references", "why"),
    [
        ((), [], ""),
        ((), [OWNER], ""),
        ((), [OWNER | {"blockOwnerDeletion": True}], "cannot set blockOwnerDeletion if an ownerReference"),
        ((rule("update", ["pods/finalizers"]),), [OWNER | {"blockOwnerDeletion": True}], ""),
        ((), [OWNER | {"blockOwnerDeletion": True, "kind": "Nothing"}], "cannot find RESTMapping"),
    ],
)
async def test_owners_that_are_held_back(rules, references, why):
    policies = Policies([role("r", *rules)], [binding("ClusterRole", "r", GROUP)])
    found = attributes(pod(metadata={"ownerReferences": references}), user=ALICE)
    assert why in await refused(OwnerReferences(Authorizer(policies), TABLE), found)


async def test_whoever_says_whose_an_object_is_may_delete_it():
    found = attributes(pod(metadata={"ownerReferences": [OWNER]}), old=pod(), user=ALICE)
    assert "you can't delete" in await refused(OwnerReferences(Authorizer(Policies()), TABLE), found)
    policies = Policies([role("r", rule("delete", ["pods"]))], [binding("ClusterRole", "r", GROUP)])
    assert not await refused(OwnerReferences(Authorizer(policies), TABLE), found)


MIRROR = {"annotations": {"kubernetes.io/config.mirror": "x"}}


def projected(kind):
    return {"name": "v", "projected": {"sources": [{kind: {"name": "s"}}]}}


def node(**metadata):
    return made("v1", "Node", metadata={"name": "n1", **metadata})


def token_request(audiences=(), **reference):
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", **reference}
    return made_token({"boundObjectRef": bound, "audiences": list(audiences)})


def mounting(*audiences):
    sources = [{"serviceAccountToken": {"path": "token", "audience": each}} for each in audiences]
    return [{"name": "v", "projected": {"sources": sources}}]


def made_token(spec):
    import msgspec

    from api.kinds.authentication import TokenRequest

    return msgspec.convert({"metadata": {"name": "default", "namespace": "shop"}, "spec": spec}, TokenRequest)


def asked_token(request):
    from api.kinds.core import ServiceAccount

    kind = TABLE.of(ServiceAccount)
    return attributes(request, user=NODE, kind=kind, subresource="token")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (attributes(pod(nodeName="n1", metadata=MIRROR), user=NODE), ""),
        (attributes(pod(nodeName="n1"), user=NODE), "can only create mirror pods"),
        (attributes(pod(nodeName="n2", metadata=MIRROR), user=NODE), "can only create pods bound to itself"),
        (attributes(pod(nodeName="n1", metadata=MIRROR, serviceAccountName="x"), user=NODE), "reference a service account"),
        (attributes(pod({"envFrom": [{"secretRef": {"name": "s"}}]}, nodeName="n1", metadata=MIRROR), user=NODE), "reference secrets"),
        (attributes(pod(nodeName="n1", metadata=MIRROR, imagePullSecrets=[{"name": "s"}]), user=NODE), "reference secrets"),
        (attributes(pod(nodeName="n1", metadata=MIRROR, volumes=[projected("secret")]), user=NODE), "reference secrets"),
        (attributes(pod(nodeName="n1", metadata=MIRROR, volumes=[projected("configMap")]), user=NODE), "reference secrets"),
        (attributes(None, old=pod(nodeName="n2"), user=NODE), 'not "n2"'),
        (attributes(None, old=pod(nodeName="n1"), user=NODE), ""),
        (attributes(node(), user=NODE), ""),
        (attributes(node(name="n2"), user=NODE), "not allowed to modify node"),
        (attributes(None, old=node(), user=NODE), "not allowed to delete nodes"),
        (attributes(node(labels={"node-restriction.kubernetes.io/x": "y"}), user=NODE), "node-restriction.kubernetes.io/x"),
        (attributes(node(labels={"kubernetes.io/hostname": "n1", "mine.example.com/a": "b"}), old=node(), user=NODE), ""),
        (attributes(node(labels={"node-role.kubernetes.io/master": ""}), old=node(), user=NODE), "not allowed to modify the following labels"),
        (asked_token(token_request()), ""),
        (asked_token(token_request(uid="")), "without a uid"),
        (asked_token(token_request(uid="other")), "not there"),
        (asked_token(token_request(name="elsewhere", uid="v")), "scheduled on a different node"),
        (asked_token(made_token({})), "not bound to a pod"),
        (asked_token(token_request(audiences=["vault"])), ""),
        (asked_token(token_request(audiences=["other"])), 'audience "other" not found'),
        (asked_token(token_request(audiences=["vault", "other"])), "0 or 1 audiences"),
        (asked_token(token_request(name="bare", uid="w")), 'audience "" not found'),
    ],
)  # fmt: skip
async def test_nodes(found, why):
    pods = {
        "p": pod(nodeName="n1", metadata={"uid": "u"}, volumes=mounting("", "vault")),
        "bare": pod(nodeName="n1", metadata={"uid": "w", "name": "bare"}),
        "elsewhere": pod(nodeName="n2", metadata={"uid": "v", "name": "elsewhere"}),
    }

    async def find(namespace, name):
        return pods.get(name)

    message = await refused(NodeRestriction(find), found)
    assert why in message
    assert bool(message) is bool(why)
