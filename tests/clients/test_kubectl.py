"""A tour through every command of kubectl that touches the server, with an old and a new kubectl."""

import contextlib
import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.cluster import Cluster, Failed, until, version_of


class Shell:
    """kubectl in a namespace of its own."""

    def __init__(self, cluster: Cluster, binary: str, namespace: str) -> None:
        self.cluster = cluster
        self.binary = binary
        self.namespace = namespace
        self.old = version_of(binary) == "1.20"

    def __call__(self, line: str, *more: str, **options: Any) -> str:
        """Run a line of words; raises Failed if kubectl does not succeed, unless check=False."""
        words = [*line.split(), *more]
        return self.cluster.kubectl("-n", self.namespace, *words, binary=self.binary, **options)

    def get(self, line: str) -> Any:
        return json.loads(self(f"get {line} -o json"))

    def refused(self, line: str, *more: str) -> str:
        """Return what kubectl says where it must not succeed."""
        with pytest.raises(Failed):
            self(line, *more)
        return self(line, *more, check=False)


@pytest.fixture(scope="module")
def shell(cluster: Cluster, kubectl: str) -> Iterator[Shell]:
    shell = Shell(cluster, kubectl, f"tour-{'old' if version_of(kubectl) == '1.20' else 'new'}")
    cluster.kubectl("create", "namespace", shell.namespace)
    yield shell
    cluster.kubectl("delete", "namespace", shell.namespace, "--timeout=60s", timeout_s=70)


@pytest.fixture(scope="module")
def web(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A deployment that has rolled out, applied from a file."""
    from tests.clients.conftest import MANIFEST

    path = tmp_path_factory.mktemp("web") / "web.yaml"
    path.write_text(MANIFEST)
    assert "deployment.apps/web created" in shell(f"apply -f {path}")
    assert "successfully rolled out" in shell("rollout status deployment/web --timeout=60s", timeout_s=70)
    return str(path)


def test_apply_again_changes_nothing(shell: Shell, web: str) -> None:
    before = shell.get("deployment web")["metadata"]
    assert "deployment.apps/web unchanged" in shell(f"apply -f {web}")
    assert shell.get("deployment web")["metadata"]["generation"] == before["generation"]


def test_diff(shell: Shell, web: str, tmp_path: Path) -> None:
    assert shell(f"diff -f {web}", check=False) == ""
    changed = tmp_path / "changed.yaml"
    changed.write_text(Path(web).read_text().replace("replicas: 2", "replicas: 4"))
    assert re.search(r"^\+  replicas: 4$", shell(f"diff -f {changed}", check=False), re.MULTILINE)
    assert shell.get("deployment web")["spec"]["replicas"] == 2


def test_create_replace_and_delete_from_files(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1'}\n")
    assert shell(f"create -f {path}") == "configmap/m created\n"
    assert "already exists" in shell.refused(f"create -f {path}")
    path.write_text(path.read_text().replace("'1'", "'2'"))
    assert shell(f"replace -f {path}") == "configmap/m replaced\n"
    assert shell.get("configmap m")["data"] == {"a": "2"}
    assert shell(f"delete -f {path}") == 'configmap "m" deleted\n'
    assert 'configmaps "m" not found' in shell.refused("get configmap m")


def test_apply_on_the_server_owns_and_conflicts(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: '1'}\n")
    assert "serverside-applied" in shell(f"apply --server-side --field-manager=one -f {path}")
    path.write_text(path.read_text().replace("'1'", "'2'"))
    refused = shell.refused(f"apply --server-side --field-manager=two -f {path}")
    assert 'Apply failed with 1 conflict: conflict with "one": .data.a' in refused
    shell(f"apply --server-side --field-manager=two --force-conflicts -f {path}")
    shown = "" if shell.old else "--show-managed-fields"
    managers = {entry["manager"] for entry in shell.get(f"configmap owned {shown}")["metadata"]["managedFields"]}
    assert managers == {"two"}


def test_patch_scale_label_annotate_and_set(shell: Shell, web: str) -> None:
    shell("patch deployment web --type=json", "-p", '[{"op": "replace", "path": "/spec/replicas", "value": 1}]')
    shell("patch deployment web --type=merge", "-p", '{"metadata": {"labels": {"m": "1"}}}')
    strategic = {
        "spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}
    }
    shell("patch deployment web", "-p", json.dumps(strategic))
    shell("label deployment web tier=front")
    shell("annotate deployment web note=x")
    shell("scale deployment web --replicas=2")
    shell("set image deployment/web main=nginx:2")
    shell("set env deployment/web B=2")
    shell("set resources deployment/web --requests=cpu=1m")
    found = shell.get("deployment web")
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["resources"]["requests"]) == ("nginx:2", {"cpu": "1m"})
    assert {each["name"]: each["value"] for each in container["env"]} == {"A": "1", "B": "2"}
    assert found["metadata"]["labels"] == {"app": "web", "m": "1", "tier": "front"}
    assert found["spec"]["replicas"] == 2
    shell("rollout status deployment/web --timeout=60s", timeout_s=70)


def test_rollouts(shell: Shell, web: str) -> None:
    assert re.search(r"^1 +<none>$", shell("rollout history deployment/web"), re.MULTILINE)
    shell("rollout pause deployment/web")
    assert shell.get("deployment web")["spec"]["paused"] is True
    shell("rollout resume deployment/web")
    shell("rollout restart deployment/web")
    shell("rollout status deployment/web --timeout=60s", timeout_s=70)
    shell("rollout undo deployment/web")
    shell("rollout status deployment/web --timeout=60s", timeout_s=70)


CREATED = [
    ("create configmap c --from-literal=a=1", "configmap c", {"a": "1"}, "data"),
    ("create secret generic s --from-literal=a=1", "secret s", {"a": "MQ=="}, "data"),
    ("create serviceaccount sa", "serviceaccount sa", None, ""),
    ("create job j --image=busybox -- true", "job j", None, ""),
    ("create quota q --hard=pods=100", "resourcequota q", {"hard": {"pods": "100"}}, "spec"),
    ("create role r --verb=get --resource=pods", "role r", None, ""),
    ("create rolebinding rb --role=r --user=u", "rolebinding rb", None, ""),
    ("create service clusterip cip --tcp=80:80", "service cip", None, ""),
    ("create ingress i --rule=a.b/x=web:80", "ingress i", None, ""),
    ("create deployment d --image=nginx", "deployment d", None, ""),
    ("expose deployment web --name=exposed --port=80", "service exposed", None, ""),
    ("autoscale deployment web --max=3", "hpa web", None, ""),
]


@pytest.mark.parametrize(("line", "made", "value", "field"), CREATED, ids=[each[0].split(" --")[0] for each in CREATED])
def test_create_commands(shell: Shell, web: str, line: str, made: str, value: Any, field: str) -> None:
    shell(line)
    found = shell.get(made)
    assert value is None or found[field] == value
    assert made.split()[1] in shell(f"get {made}")


def test_cron_jobs_and_budgets_in_the_versions_of_each_kubectl(shell: Shell, web: str) -> None:
    shell("create cronjob cj --image=busybox", "--schedule=*/5 * * * *", "--", "true")
    shell("create pdb pdb --selector=app=web --min-available=1")
    assert shell.get("cronjobs.v1beta1.batch cj")["apiVersion"] == "batch/v1beta1"
    assert shell.get("cronjobs.v1.batch cj")["apiVersion"] == "batch/v1"
    assert shell.get("pdb pdb")["spec"]["minAvailable"] == 1
    until("it is counted", lambda: shell.get("pdb pdb")["status"].get("disruptionsAllowed") == 1)
    # What the drain below evicts from the only node finds no other: it would wait for this budget for ever.
    shell("delete pdb pdb")


def test_dry_run_writes_nothing(shell: Shell) -> None:
    assert "a: b" in shell("create configmap dry --from-literal=a=b --dry-run=server -o yaml")
    assert "not found" in shell.refused("get configmap dry")


def test_get_in_every_form(shell: Shell, web: str) -> None:
    assert re.search(r"^deployment.apps/web +\d/\d", shell("get all"), re.MULTILINE)
    assert "NOMINATED NODE" in shell("get pods -o wide")
    assert shell("get deployment web -o jsonpath={.metadata.name}") == "web"
    assert shell("get deployment web -o name") == "deployment.apps/web\n"
    assert shell("get pods --chunk-size=1 -o name").count("pod/") >= 2
    assert "web-" in shell("get pods -l", "app in (web, x)")
    assert "field label not supported" in shell.refused("get pods --field-selector=spec.foo=x")
    assert shell("get --raw", f"/api/v1/namespaces/{shell.namespace}/pods").startswith('{"kind":"PodList"')
    assert "the server doesn't have a resource type" in shell.refused("get nonsense")


def test_describe(shell: Shell, web: str) -> None:
    assert "RollingUpdateStrategy" in shell("describe deployment web")
    assert "Node:" in shell("describe pods -l app=web")
    assert "TargetPort" in shell("describe service web")
    assert "Allocated resources" in shell("describe node node0")
    assert shell.namespace in shell(f"describe namespace {shell.namespace}")


def test_watch_and_wait(shell: Shell, web: str) -> None:
    command = [shell.binary, "-n", shell.namespace, "get", "configmaps", "--watch-only", "-o", "name"]
    environment = {"KUBECONFIG": str(shell.cluster.kubeconfig), "HOME": str(shell.cluster.files), "PATH": "/usr/bin"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        try:
            # The watch says nothing when it is open: what it shows first is one of several changes.
            until("the watch shows a change", lambda: _changes(shell) and _readable(watching))
            assert watching.stdout.readline() == "configmap/seen\n"
        finally:
            watching.kill()
    assert "condition met" in shell("wait --for=condition=Available deployment/web --timeout=30s", timeout_s=40)
    if shell.old:
        return  # it calls waiting for what has gone already an error
    shell("create configmap doomed")
    shell("delete configmap doomed --wait=false")
    shell("wait --for=delete configmap/doomed --timeout=20s", timeout_s=30)


def _changes(shell: Shell) -> bool:
    shell("create configmap seen", check=False)
    shell("annotate configmap seen --overwrite", f"at={time.monotonic()}")
    return True


def _readable(process: "subprocess.Popen[str]") -> bool:
    import select

    return bool(select.select([process.stdout], [], [], 0.2)[0])


def test_explain_and_discovery(shell: Shell) -> None:
    assert "strategy" in shell("explain deployment.spec")
    of_either_type = "string" if shell.old else "IntOrString"
    assert f"maxSurge\t<{of_either_type}>" in shell("explain deployment.spec.strategy.rollingUpdate")
    assert "apps/v1" in shell("api-versions")
    assert re.search(r"^deployments +deploy +", shell("api-resources"), re.MULTILINE)
    assert "trireme" in shell("version")
    assert "is running at" in shell("cluster-info")


def test_client_side_validation(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndota: {a: '1'}\n")
    assert re.search(r"unknown field \"?(dota|io\.k8s|.*dota)", shell.refused(f"create -f {path}"))
    assert "created" in shell(f"create --validate=false -f {path}")


def test_logs_exec_attach_copy_and_forward(shell: Shell, web: str, tmp_path: Path) -> None:
    pod = shell("get pods -l app=web -o jsonpath={.items[0].metadata.name}")
    assert shell(f"logs {pod} --tail=1") == ""
    assert shell(f"exec {pod} -- true") == ""
    shell(f"exec -i {pod} -- cat", text="hello")
    shell(f"attach {pod}")
    source = tmp_path / "file"
    source.write_text("x")
    shell(f"cp {source} {pod}:/tmp/file")
    assert "not found" in shell.refused("logs nothing")


@contextlib.contextmanager
def _serving(shell: Shell, line: str, pattern: str) -> Iterator[str]:
    """Run a kubectl that serves until it is stopped; yield what the pattern finds in its first line."""
    environment = {"KUBECONFIG": str(shell.cluster.kubeconfig), "HOME": str(shell.cluster.files), "PATH": "/usr/bin"}
    command = [shell.binary, "-n", shell.namespace, *line.split()]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        try:
            first = run.stdout.readline()
            found = re.search(pattern, first)
            assert found is not None, first
            yield found[1]
        finally:
            run.kill()


def test_proxy(shell: Shell) -> None:
    with (
        _serving(shell, "proxy --port=0", r"127\.0\.0\.1:(\d+)") as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/namespaces/{shell.namespace}", timeout=10) as answer,
    ):
        assert json.load(answer)["metadata"]["name"] == shell.namespace


def test_port_forward_connects(shell: Shell, web: str) -> None:
    with _serving(shell, "port-forward deployment/web :80", r"127\.0\.0\.1:(\d+)") as port:
        assert int(port) > 0


def test_top_nodes(shell: Shell) -> None:
    until("the agent has measured", lambda: "node0" in shell("top nodes"))


def test_cordon_taint_and_drain(shell: Shell, web: str) -> None:
    shell("cordon node0")
    assert "SchedulingDisabled" in shell("get node node0")
    shell("taint node node0 tour=1:PreferNoSchedule")
    shell("taint node node0 tour-")
    shell(
        "drain node0 --force --ignore-daemonsets --grace-period=0 --timeout=60s", "--pod-selector=app=web", timeout_s=70
    )
    shell("uncordon node0")
    assert "SchedulingDisabled" not in shell("get node node0")
    shell("rollout status deployment/web --timeout=60s", timeout_s=70)


def test_authorization_questions(shell: Shell) -> None:
    assert shell("auth can-i get pods") == "yes\n"
    assert "no" in shell("auth can-i get pods --as=nobody", check=False)
    assert "Non-Resource URLs" in shell("auth can-i --list")


def test_events(shell: Shell, web: str) -> None:
    assert "Scheduled" in shell("get events")
    if not shell.old:
        assert "Scheduled" in shell("events")


def test_debug_adds_a_container(shell: Shell, web: str) -> None:
    if shell.old:
        pytest.skip("kubectl 1.20 debugs by an API that was never stable")
    pod = shell("get pods -l app=web -o jsonpath={.items[0].metadata.name}")
    shell(f"debug {pod} --image=busybox --attach=false --profile=general")
    assert len(shell.get(f"pod {pod}")["spec"]["ephemeralContainers"]) == 1


def test_delete_in_every_way(shell: Shell, web: str) -> None:
    shell("run lone --image=busybox --restart=Never")
    shell("wait --for=condition=Ready pod/lone --timeout=30s", timeout_s=40)
    shell("delete pod lone --grace-period=0 --force")
    shell("create deployment orphaning --image=nginx")
    until("there is a replica set", lambda: shell("get rs -l app=orphaning -o name"))
    shell("delete deployment orphaning --cascade=orphan")
    assert shell("get rs -l app=orphaning -o name")
    shell("delete rs -l app=orphaning --cascade=foreground", timeout_s=60)
    assert shell("get rs -l app=orphaning -o name") == ""
    shell("delete configmaps --all")
    shell("delete deployment,service -l app=web --wait=false")
