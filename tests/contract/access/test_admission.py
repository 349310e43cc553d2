"""What becomes of what one asks for: defaults, refusals and warnings of the admission chain, by kubectl."""

import json
import threading

import pytest

from tests.contract.access.cluster import Cluster, Refused, running


def pod(name: str, namespace: str, *, resources: dict | None = None, **spec) -> dict:
    container = {"name": "c", "image": "busybox", **({"resources": resources} if resources else {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], **spec},
    }


def made(kind: str, api: str, name: str, namespace: str = "", **body) -> dict:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": {**meta, **body.pop("metadata", {})}, **body}


def test_a_pod_gets_its_account_and_its_token(cluster, namespace):
    cluster.apply(pod("p", namespace))
    spec = cluster.get("pod", "p", "-n", namespace)["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    sources = {next(iter(each)): next(iter(each.values())) for each in volume["projected"]["sources"]}
    assert sources["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    assert sources["configMap"]["name"] == "kube-root-ca.crt"
    mount = spec["containers"][0]["volumeMounts"][0]
    assert mount == {
        "name": volume["name"], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True,
    }  # fmt: skip
    assert spec["priority"] == 0
    assert {(each["key"], each["effect"]) for each in spec["tolerations"]} == {
        ("node.kubernetes.io/not-ready", "NoExecute"), ("node.kubernetes.io/unreachable", "NoExecute"),
    }  # fmt: skip


def test_who_wants_no_token_gets_none(cluster, namespace):
    cluster.apply(pod("p", namespace, automountServiceAccountToken=False))
    assert "volumes" not in cluster.get("pod", "p", "-n", namespace)["spec"]
    with pytest.raises(
        Refused, match=f'error looking up service account {namespace}/nobody: serviceaccount "nobody" not found'
    ):
        cluster.apply(pod("q", namespace, serviceAccountName="nobody"))


def test_limit_ranges(cluster, namespace):
    limits = [
        {"type": "Container", "max": {"cpu": "1"}, "min": {"memory": "16Mi"}, "default": {"memory": "64Mi"},
         "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"memory": "100Mi"}},
    ]  # fmt: skip
    cluster.apply(made("LimitRange", "v1", "l", namespace, spec={"limits": limits}))
    cluster.apply(pod("p", namespace))
    found = cluster.get("pod", "p", "-n", namespace)
    assert found["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "1", "memory": "64Mi"},
    }  # fmt: skip
    assert "cpu, memory request for container c" in found["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
    with pytest.raises(Refused) as refused:
        cluster.apply(
            pod(
                "q",
                namespace,
                resources={"limits": {"cpu": "2", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "8Mi"}},
            )
        )
    for told in (
        "maximum cpu usage per Container is 1, but limit is 2",
        "minimum memory usage per Container is 16Mi, but request is 8Mi",
        "cpu max limit to request ratio per Container is 4, but provided ratio is 20.000000",
        "maximum memory usage per Pod is 100Mi, but limit is 128Mi",
    ):
        assert told in str(refused.value)


def quota(cluster: Cluster, namespace: str, name: str = "q", **spec) -> None:
    cluster.apply(made("ResourceQuota", "v1", name, namespace, spec=spec))
    cluster.until(
        "the quota is counted", lambda: cluster.get("quota", name, "-n", namespace).get("status", {}).get("hard")
    )


def used(cluster: Cluster, namespace: str, name: str = "q") -> dict:
    return cluster.get("quota", name, "-n", namespace)["status"]["used"]


def test_a_quota_of_compute(cluster, namespace):
    quota(cluster, namespace, hard={"requests.cpu": "1", "limits.memory": "1Gi", "pods": "3"})
    with pytest.raises(Refused, match=r"failed quota: q: must specify limits.memory for: c; requests.cpu for: c"):
        cluster.apply(pod("p", namespace))
    half = {"requests": {"cpu": "600m"}, "limits": {"memory": "256Mi"}}
    cluster.apply(pod("p", namespace, resources=half))
    assert used(cluster, namespace) == {"requests.cpu": "600m", "limits.memory": "256Mi", "pods": "1"}
    with pytest.raises(Refused) as refused:
        cluster.apply(pod("r", namespace, resources=half))
    assert (
        'pods "r" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, '
        "limited: requests.cpu=1" in str(refused.value)
    )
    cluster.kubectl("delete", "pod", "p", "-n", namespace, "--grace-period=0", "--force")
    cluster.until("it is given back", lambda: used(cluster, namespace)["pods"] == "0")
    cluster.apply(pod("r", namespace, resources=half))


def test_a_quota_of_objects(cluster, namespace):
    quota(cluster, namespace, hard={"count/deployments.apps": "1", "configmaps": "2", "services.nodeports": "1"})
    assert used(cluster, namespace)["configmaps"] == "1"  # the authority's certificate
    cluster.kubectl("create", "configmap", "a", "-n", namespace)
    with pytest.raises(
        Refused, match="exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"
    ):
        cluster.kubectl("create", "configmap", "b", "-n", namespace)
    cluster.kubectl("create", "deployment", "d", "--image=x", "--replicas=0", "-n", namespace)
    with pytest.raises(Refused, match=r"requested: count/deployments.apps=1"):
        cluster.kubectl("create", "deployment", "e", "--image=x", "-n", namespace)
    cluster.kubectl("create", "service", "nodeport", "s", "--tcp=80", "-n", namespace)
    with pytest.raises(Refused, match=r"services.nodeports=1"):
        cluster.kubectl("create", "service", "nodeport", "t", "--tcp=80", "-n", namespace)
    cluster.kubectl("create", "service", "clusterip", "t", "--tcp=80", "-n", namespace)
    with pytest.raises(Refused, match=r"services.nodeports=1"):
        cluster.kubectl("patch", "service", "t", "-n", namespace, "-p", '{"spec":{"type":"NodePort"}}')


def test_scopes(cluster, namespace):
    quota(cluster, namespace, "best", hard={"pods": "1"}, scopes=["BestEffort"])
    selector = {
        "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}]
    }
    quota(cluster, namespace, "critical", hard={"pods": "0"}, scopeSelector=selector)
    cluster.apply(pod("a", namespace))
    with pytest.raises(Refused, match="exceeded quota: best"):
        cluster.apply(pod("b", namespace))
    cluster.apply(pod("b", namespace, resources={"requests": {"cpu": "1m"}}))
    with pytest.raises(Refused, match="exceeded quota: critical"):
        cluster.apply(
            pod("c", namespace, resources={"requests": {"cpu": "1m"}}, priorityClassName="system-node-critical")
        )


def test_a_dry_run_charges_nothing(cluster, namespace):
    quota(cluster, namespace, hard={"pods": "1"})
    for _ in range(2):
        cluster.kubectl("run", "p", "--image=x", "-n", namespace, "--dry-run=server")
    assert used(cluster, namespace)["pods"] == "0"


def test_priority_classes(cluster, namespace):
    cluster.apply(
        made("PriorityClass", "scheduling.k8s.io/v1", f"high-{namespace}", value=1000, preemptionPolicy="Never")
    )
    cluster.apply(pod("p", namespace, priorityClassName=f"high-{namespace}"))
    spec = cluster.get("pod", "p", "-n", namespace)["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    cluster.apply(pod("s", namespace, priorityClassName="system-cluster-critical"))
    assert cluster.get("pod", "s", "-n", namespace)["spec"]["priority"] == 2000000000
    with pytest.raises(Refused, match="no PriorityClass with name nope was found"):
        cluster.apply(pod("q", namespace, priorityClassName="nope"))
    with pytest.raises(Refused, match="the integer value of priority"):
        cluster.apply(pod("q", namespace, priority=7))
    with pytest.raises(Refused, match="reserved for system use only"):
        cluster.apply(made("PriorityClass", "scheduling.k8s.io/v1", "system-mine", value=1))
    with pytest.raises(Refused, match="maximum allowed value of a user defined priority is 1000000000"):
        cluster.apply(made("PriorityClass", "scheduling.k8s.io/v1", "too-high", value=1000000001))


def test_default_storage_class(cluster, namespace):
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    mark = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    cluster.apply(
        made("StorageClass", "storage.k8s.io/v1", f"fast-{namespace}", provisioner="x.example.com/y", metadata=mark)
    )
    cluster.apply(made("PersistentVolumeClaim", "v1", "a", namespace, spec=claim))
    cluster.apply(made("PersistentVolumeClaim", "v1", "b", namespace, spec={**claim, "storageClassName": ""}))
    assert cluster.get("pvc", "a", "-n", namespace)["spec"]["storageClassName"] == f"fast-{namespace}"
    assert cluster.get("pvc", "b", "-n", namespace)["spec"]["storageClassName"] == ""
    cluster.kubectl("delete", "storageclass", f"fast-{namespace}")


def test_pod_security(cluster, namespace):
    label = "pod-security.kubernetes.io"
    cluster.apply(pod("before", namespace, hostNetwork=True))
    told = cluster.kubectl(
        "label", "namespace", namespace, f"{label}/enforce=baseline", f"{label}/warn=restricted", both=True
    )
    assert (
        f'Warning: existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "baseline:latest"'
        in told
    )
    assert "Warning: before: host namespaces" in told
    with pytest.raises(Refused) as refused:
        cluster.apply(pod("p", namespace, hostNetwork=True, hostPID=True))
    assert (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true, hostPID=true)'
        in str(refused.value)
    )
    told = cluster.apply(pod("q", namespace), both=True)
    assert (
        'Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "c"'
        in told
    )
    assert 'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])' in told
    told = cluster.kubectl("create", "deployment", "d", "--image=x", "--replicas=0", "-n", namespace, both=True)
    assert "Warning: would violate PodSecurity" in told
    with pytest.raises(Refused, match="must be one of privileged, baseline, restricted"):
        cluster.kubectl("label", "namespace", namespace, f"{label}/enforce=strict", "--overwrite")


def test_a_namespace_that_is_missing_or_going(cluster):
    with pytest.raises(Refused, match='namespaces "nowhere" not found'):
        cluster.kubectl("create", "configmap", "x", "-n", "nowhere")
    with pytest.raises(Refused, match="this namespace may not be deleted"):
        cluster.kubectl("delete", "namespace", "kube-system", "--wait=false")


def test_a_quota_holds_against_three_masters(tmp_path):
    """Goal: never more than the limit, whoever creates where. Method: 60 creates at once, by three masters, of 10 allowed."""
    with running(tmp_path, masters=3) as cluster:
        cluster.kubectl("create", "namespace", "shared")
        cluster.until("it is furnished", lambda: cluster.get("sa", "default", "-n", "shared"))
        quota(cluster, "shared", hard={"count/secrets": "10"})
        outcomes: list[int] = []

        def create(number: int) -> None:
            import ssl
            import urllib.error
            import urllib.request

            context = ssl.create_default_context(cafile=f"{cluster.authority.path}.crt")
            context.load_cert_chain(f"{cluster.admin}.crt", f"{cluster.admin}.key")
            body = json.dumps(made("Secret", "v1", f"s{number}", "shared")).encode()
            url = f"{cluster.urls[number % 3]}/api/v1/namespaces/shared/secrets"
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                    outcomes.append(answer.status)
            except urllib.error.HTTPError as error:
                outcomes.append(error.code)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes.count(201) == 10
        assert set(outcomes) == {201, 403}
        assert len(cluster.get("secrets", "-n", "shared")["items"]) == 10
        assert used(cluster, "shared")["count/secrets"] == "10"
