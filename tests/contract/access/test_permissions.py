"""Whether they may: default roles, aggregation, escalation and node agents, by kubectl."""

import json

import pytest

from tests.contract.access.cluster import Refused


def token_of(cluster, namespace, account="default"):
    return cluster.kubectl("create", "token", account, "-n", namespace).strip()


def test_default_roles_are_there(cluster):
    roles = {each["metadata"]["name"]: each for each in cluster.get("clusterroles")["items"]}
    for name in ("cluster-admin", "admin", "edit", "view", "system:node", "system:discovery", "system:kube-scheduler",
                 "system:controller:job-controller"):  # fmt: skip
        assert roles[name]["metadata"]["labels"]["kubernetes.io/bootstrapping"] == "rbac-defaults"
    verbs = {
        verb for rule in roles["admin"]["rules"] if "secrets" in rule.get("resources", ()) for verb in rule["verbs"]
    }
    assert {"get", "create", "delete"} <= verbs
    assert not [rule for rule in roles["view"]["rules"] if "secrets" in rule.get("resources", ())]


def test_servers_that_extend_the_api_find_whose_certificates_it_accepts(cluster):
    found = cluster.get("configmap", "extension-apiserver-authentication", "-n", "kube-system")
    assert found["data"]["client-ca-file"] == cluster.authority.path.with_suffix(".crt").read_text()
    bound = cluster.kubectl(
        "create", "rolebinding", "extension", "-n", "kube-system",
        "--role=extension-apiserver-authentication-reader", "--serviceaccount=default:default",
    )  # fmt: skip
    assert "created" in bound
    allowed = cluster.kubectl(
        "auth", "can-i", "get", "configmap/extension-apiserver-authentication", "-n", "kube-system",
        "--as=system:serviceaccount:default:default",
    )  # fmt: skip
    assert allowed.strip() == "yes"


def test_can_i(cluster, namespace):
    token = token_of(cluster, namespace)
    may = ("auth", "can-i", "-n", namespace)
    with pytest.raises(Refused, match="no"):
        cluster.kubectl(*may, "list", "pods", token=token)
    cluster.kubectl(
        "create", "rolebinding", "e", "--clusterrole=edit", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    assert "yes" in cluster.kubectl(*may, "list", "pods", token=token)
    assert "yes" in cluster.kubectl(*may, "create", "pods", "--subresource=exec", token=token)
    with pytest.raises(Refused, match="no"):
        cluster.kubectl("auth", "can-i", "list", "pods", "-n", "kube-system", token=token)
    listed = cluster.kubectl(*may, "--list", token=token)
    assert "deployments.apps" in listed
    assert "selfsubjectrulesreviews.authorization.k8s.io" in listed
    assert "/healthz" in listed
    assert "yes" in cluster.kubectl("auth", "can-i", "*", "*")
    assert "yes" in cluster.kubectl("auth", "can-i", "get", "/version", token=token)


def test_resource_names(cluster, namespace):
    token = token_of(cluster, namespace)
    for name in ("mine", "other"):
        cluster.kubectl("create", "configmap", name, "-n", namespace)
    cluster.kubectl(
        "create",
        "role",
        "one",
        "--verb=get,list,watch",
        "--resource=configmaps",
        "--resource-name=mine",
        "-n",
        namespace,
    )
    cluster.kubectl(
        "create", "rolebinding", "one", "--role=one", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    cluster.until("it may", lambda: cluster.kubectl("get", "cm", "mine", "-n", namespace, token=token))
    with pytest.raises(Refused, match='cannot get resource "configmaps"'):
        cluster.kubectl("get", "cm", "other", "-n", namespace, token=token)
    with pytest.raises(Refused, match='cannot list resource "configmaps"'):
        cluster.kubectl("get", "cm", "-n", namespace, token=token)
    # A list that is narrowed to the name is about that name.
    assert "mine" in cluster.kubectl("get", "cm", "-n", namespace, "--field-selector=metadata.name=mine", token=token)


def test_aggregation(cluster, namespace):
    token = token_of(cluster, namespace)
    cluster.kubectl(
        "create", "rolebinding", "v", "--clusterrole=view", f"--serviceaccount={namespace}:default", "-n", namespace
    )
    with pytest.raises(Refused, match="no"):
        cluster.kubectl("auth", "can-i", "get", "widgets.example.com", "-n", namespace, token=token)
    cluster.kubectl("create", "clusterrole", f"w-{namespace}", "--verb=get", "--resource=leases.coordination.k8s.io")
    cluster.kubectl("label", "clusterrole", f"w-{namespace}", "rbac.authorization.k8s.io/aggregate-to-view=true")
    for role in ("view", "edit", "admin"):
        cluster.until(
            f"{role} has taken it up",
            lambda role=role: any(
                rule["verbs"] == ["get"] and rule["resources"] == ["leases"]
                for rule in cluster.get("clusterrole", role)["rules"]
            ),
        )
    cluster.kubectl("delete", "clusterrole", f"w-{namespace}")
    cluster.until(
        "view has let it go",
        lambda: not any(rule["resources"] == ["leases"] for rule in cluster.get("clusterrole", "view")["rules"]),
    )


def test_nobody_grants_more_than_they_have(cluster, namespace):
    token = token_of(cluster, namespace)
    account = f"--serviceaccount={namespace}:default"
    cluster.kubectl("create", "rolebinding", "a", "--clusterrole=admin", account, "-n", namespace)
    cluster.until("it may", lambda: cluster.kubectl("get", "roles", "-n", namespace, token=token) or True)
    cluster.kubectl("create", "role", "fine", "--verb=get,list", "--resource=pods", "-n", namespace, token=token)
    with pytest.raises(Refused) as refused:
        cluster.kubectl("create", "role", "bad", "--verb=get,delete", "--resource=nodes", "-n", namespace, token=token)
    assert (
        f'is forbidden: user "system:serviceaccount:{namespace}:default" (groups=["system:serviceaccounts" '
        f'"system:serviceaccounts:{namespace}" "system:authenticated"]) is attempting to grant RBAC permissions not '
        'currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get" "delete"]}' in str(refused.value)
    )
    cluster.kubectl("create", "rolebinding", "fine", "--clusterrole=view", account, "-n", namespace, token=token)
    with pytest.raises(Refused, match="attempting to grant RBAC permissions not currently held"):
        cluster.kubectl(
            "create", "rolebinding", "bad", "--clusterrole=cluster-admin", account, "-n", namespace, token=token
        )
    more = '[{"op":"add","path":"/rules/0/resources/-","value":"nodes"}]'
    with pytest.raises(Refused, match="attempting to grant"):
        cluster.kubectl("patch", "role", "fine", "-n", namespace, "--type=json", "-p", more, token=token)
    cluster.kubectl(
        "create",
        "role",
        "binder",
        "--verb=bind",
        "--resource=clusterroles.rbac.authorization.k8s.io",
        "--resource-name=cluster-admin",
        "-n",
        namespace,
    )
    cluster.kubectl("create", "rolebinding", "binder", "--role=binder", account, "-n", namespace)
    cluster.until(
        "it may bind",
        lambda: cluster.kubectl(
            "create", "rolebinding", "b", "--clusterrole=cluster-admin", account, "-n", namespace, token=token
        ),
    )


def test_auth_reconcile(cluster, namespace):
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "r", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    assert "r" in cluster.kubectl("auth", "reconcile", "-f", "-", text=json.dumps(role))
    role["rules"].append({"apiGroups": [""], "resources": ["services"], "verbs": ["list"]})
    cluster.kubectl("auth", "reconcile", "-f", "-", text=json.dumps(role))
    assert len(cluster.get("role", "r", "-n", namespace)["rules"]) == 2


def test_legacy_token_secrets(cluster, namespace):
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "t",
            "namespace": namespace,
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
    }
    cluster.apply(secret)
    data = cluster.until("it is filled", lambda: cluster.get("secret", "t", "-n", namespace).get("data"))
    assert set(data) == {"token", "ca.crt", "namespace"}
    import base64

    token = base64.b64decode(data["token"]).decode()
    assert f"system:serviceaccount:{namespace}:default" in cluster.kubectl("auth", "whoami", token=token)
    cluster.kubectl("delete", "secret", "t", "-n", namespace)
    with pytest.raises(Refused):
        cluster.kubectl("auth", "whoami", token=token)


def test_a_node_reads_what_its_pods_refer_to(cluster, namespace):
    node = cluster.authority.issue("node1", "system:node:node1", "system:nodes")
    cluster.kubectl("create", "secret", "generic", "s", "-n", namespace)
    cluster.kubectl("create", "secret", "generic", "other", "-n", namespace)
    relation = "no relationship found between node 'node1' and this object"
    with pytest.raises(Refused, match=f'User "system:node:node1" cannot get resource "secrets" .*: {relation}'):
        cluster.kubectl("get", "secret", "s", "-n", namespace, certificate=node)
    spec = {"nodeName": "node1", "containers": [{"name": "c", "image": "x", "envFrom": [{"secretRef": {"name": "s"}}]}]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": namespace}, "spec": spec})
    cluster.until("it may", lambda: cluster.kubectl("get", "secret", "s", "-n", namespace, certificate=node))
    with pytest.raises(Refused, match=relation):
        cluster.kubectl("get", "secret", "other", "-n", namespace, certificate=node)
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", "p", "-n", namespace)
    uid = cluster.get("pod", "p", "-n", namespace)["metadata"]["uid"]
    assert cluster.kubectl("create", "token", "default", *bound, "--bound-object-uid", uid, certificate=node)
    for wrong in (("-n", namespace), bound):
        with pytest.raises(Refused, match="requested token"):
            cluster.kubectl("create", "token", "default", *wrong, certificate=node)
    other = cluster.authority.issue("node2", "system:node:node2", "system:nodes")
    with pytest.raises(Refused, match="forbidden"):
        cluster.kubectl("create", "token", "default", *bound, "--bound-object-uid", uid, certificate=other)
