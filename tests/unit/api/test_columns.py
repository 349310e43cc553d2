"""What kubectl get shows, kind by kind: a table of objects and the lines people know for them."""

import pytest

from api import codec, columns
from api.durations import human, since
from api.kinds.table import ROWS, TABLE

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
CREATED = "2025-12-31T23:55:00Z"  # 5m before


def line(group, version, plural, document, *, wide=False):
    """The cells of one object as text, by column name; only those shown without -o wide unless asked."""
    kind = TABLE.resource(group, version, plural)
    document = {**document, "metadata": {"name": "x", "creationTimestamp": CREATED, **document.get("metadata", {})}}
    obj = codec.decode(kind, document)
    shown = zip(columns.of(kind), columns.cells(kind, obj, NOW), strict=True)
    return {column.name: cell for column, cell in shown if wide or not column.priority}


@pytest.mark.parametrize(
    ("status", "condition"),
    [
        ({}, "Pending"),
        ({"conditions": [{"type": "Approved", "status": "True"}]}, "Approved"),
        ({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "eA=="}, "Approved,Issued"),
        (
            {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]},
            "Approved,Failed",
        ),
        ({"conditions": [{"type": "Denied", "status": "True"}]}, "Denied"),
    ],
)
def test_signing_requests(status, condition):
    spec = {"signerName": "x.example.com/y", "username": "bob", "request": "eA==", "expirationSeconds": 7200}
    found = line("certificates.k8s.io", "v1", "certificatesigningrequests", {"spec": spec, "status": status})
    assert found == {
        "Name": "x", "Age": "5m", "SignerName": "x.example.com/y", "Requestor": "bob", "RequestedDuration": "120m",
        "Condition": condition,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (600, "10m"),
        (10_799, "179m"), (10_800, "3h"), (11_000, "3h3m"), (28_800, "8h"), (172_799, "47h"), (172_800, "2d"),
        (180_000, "2d2h"), (691_200, "8d"), (63_072_000, "2y"), (70_000_000, "2y80d"), (300_000_000, "9y"),
    ],
)  # fmt: skip
def test_spans_get_coarser(seconds, text):
    assert human(seconds) == text


def test_an_absent_time_is_unknown():
    assert since("", NOW) == "<unknown>"


@pytest.mark.parametrize("kind", ROWS, ids=lambda row: f"{row.group}/{row.plural}")
def test_an_empty_object_of_every_kind_has_a_cell_for_each_column(kind):
    obj = codec.decode(kind, {"metadata": {"name": "x"}})
    cells = columns.cells(kind, obj, NOW)
    assert len(cells) == len(columns.of(kind))
    for column, cell in zip(columns.of(kind), cells, strict=True):
        if column.type == "integer":
            assert isinstance(cell, int), column
        else:
            assert isinstance(cell, str), column


def pod(status, *, spec=None, **metadata):
    spec = {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}], **(spec or {})}
    return line("", "v1", "pods", {"spec": spec, "status": status, "metadata": metadata})


def running(name="a", *, ready=True, restarts=0, **more):
    state = {"running": {"startedAt": CREATED}}
    return {"name": name, "ready": ready, "restartCount": restarts, "state": state, **more}


def waiting(reason, name="a"):
    return {"name": name, "ready": False, "restartCount": 0, "state": {"waiting": {"reason": reason}}}


def ended(name="a", *, code=0, reason="", signal=0):
    terminated = {"exitCode": code, "reason": reason, "signal": signal}
    return {"name": name, "ready": False, "restartCount": 0, "state": {"terminated": terminated}}


READY = [{"type": "Ready", "status": "True"}]
INIT = {"initContainers": [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}]}
SIDECAR = {"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}]}


@pytest.mark.parametrize(
    ("found", "ready", "status"),
    [
        (pod({"phase": "Pending"}), "0/2", "Pending"),
        (pod({"phase": "Running", "containerStatuses": [running("a"), running("b")]}), "2/2", "Running"),
        (pod({"phase": "Running", "containerStatuses": [running("a"), running("b", ready=False)]}), "1/2", "Running"),
        (pod({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}), "0/2", "ContainerCreating"),
        (pod({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}), "0/2", "CrashLoopBackOff"),
        (pod({"phase": "Succeeded", "containerStatuses": [ended(reason="Completed")]}), "0/2", "Completed"),
        (pod({"phase": "Failed", "containerStatuses": [ended(code=3)]}), "0/2", "ExitCode:3"),
        (pod({"phase": "Failed", "containerStatuses": [ended(code=137, signal=9)]}), "0/2", "Signal:9"),
        (pod({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted"),
        (
            pod({"phase": "Running", "conditions": READY, "containerStatuses": [ended(reason="Completed"), running("b")]}),
            "1/2",
            "Running",
        ),
        (
            pod({"phase": "Running", "containerStatuses": [ended(reason="Completed"), running("b")]}),
            "1/2",
            "NotReady",
        ),
        (pod({"phase": "Running"}, deletionTimestamp=CREATED), "0/2", "Terminating"),
        (pod({"phase": "Succeeded"}, deletionTimestamp=CREATED), "0/2", "Succeeded"),
        (pod({"phase": "Running", "reason": "NodeLost"}, deletionTimestamp=CREATED), "0/2", "Unknown"),
        (pod({"phase": "Pending", "initContainerStatuses": [waiting("PodInitializing", "i")]}, spec=INIT), "0/2", "Init:0/2"),
        (
            pod({"phase": "Pending", "initContainerStatuses": [ended("i"), waiting("ErrImagePull", "j")]}, spec=INIT),
            "0/2",
            "Init:ErrImagePull",
        ),
        (
            pod({"phase": "Pending", "initContainerStatuses": [ended("i"), waiting("", "j")]}, spec=INIT),
            "0/2",
            "Init:1/2",
        ),
        (pod({"phase": "Pending", "initContainerStatuses": [ended("i", code=1)]}, spec=INIT), "0/2", "Init:ExitCode:1"),
        (
            pod(
                {
                    "phase": "Running",
                    "initContainerStatuses": [running("i", started=True)],
                    "containerStatuses": [running("a"), running("b")],
                },
                spec=SIDECAR,
            ),
            "3/3",
            "Running",
        ),
        (
            pod({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
        ),
    ],
)  # fmt: skip
def test_a_pod_in_one_word(found, ready, status):
    assert (found["Ready"], found["Status"]) == (ready, status)


def test_restarts_say_when_the_last_one_was():
    last = {"lastState": {"terminated": {"exitCode": 1, "finishedAt": "2025-12-31T23:58:00Z"}}}
    found = pod({"phase": "Running", "containerStatuses": [running("a", restarts=2, **last), running("b")]})
    assert found["Restarts"] == "2 (2m ago)"
    assert found["Age"] == "5m"


def test_wide_pods_show_where_they_run():
    document = {"spec": {"nodeName": "n1", "containers": []}, "status": {"podIP": "10.1.2.3"}}
    found = line("", "v1", "pods", document, wide=True)
    assert (found["IP"], found["Node"], found["Nominated Node"]) == ("10.1.2.3", "n1", "<none>")


def test_nodes():
    document = {
        "metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.32.0+trireme", "containerRuntimeVersion": "docker://20.10"},
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
        },
    }
    found = line("", "v1", "nodes", document, wide=True)
    assert found["Status"] == "Ready,SchedulingDisabled"
    assert found["Roles"] == "edge,worker"
    assert found["Internal-IP"] == "10.0.0.1"
    assert found["External-IP"] == "<none>"
    assert found["Container-Runtime"] == "docker://20.10"
    assert line("", "v1", "nodes", {})["Status"] == "Unknown"


@pytest.mark.parametrize(
    ("spec", "external", "ports"),
    [
        ({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}, "<none>", "80/TCP"),
        ({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}, "<none>", "80:30080/TCP"),
        ({"type": "LoadBalancer"}, "<pending>", "<none>"),
        ({"type": "ClusterIP", "externalIPs": ["1.2.3.4"]}, "1.2.3.4", "<none>"),
        ({"type": "ExternalName", "externalName": "example.org"}, "example.org", "<none>"),
    ],
)
def test_services(spec, external, ports):
    found = line("", "v1", "services", {"spec": spec})
    assert (found["External-IP"], found["Port(s)"]) == (external, ports)


def test_endpoints_are_shortened():
    addresses = [{"ip": f"10.0.0.{n}"} for n in range(1, 6)]
    found = line("", "v1", "endpoints", {"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]})
    assert found["Endpoints"] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."


def test_deployments_count_replicas():
    template = {"spec": {"containers": [{"name": "a", "image": "i:1"}]}}
    document = {
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
    }
    found = line("apps", "v1", "deployments", document, wide=True)
    assert list(found.values()) == ["x", "2/3", 3, 2, "5m", "a", "i:1", "app=web"]


@pytest.mark.parametrize(
    ("group", "face", "about", "text"),
    [("", "core", "involvedObject", "message"), ("events.k8s.io", "new", "regarding", "note")],
)
def test_both_faces_of_events_show_the_same_line(group, face, about, text):
    times = {"lastTimestamp": CREATED} if face == "core" else {"deprecatedLastTimestamp": CREATED}
    document = {about: {"kind": "Pod", "name": "web"}, text: "went fine\n", "reason": "Fine", "type": "Normal", **times}
    found = line(group, "v1", "events", document)
    assert list(found.values()) == ["5m", "Normal", "Fine", "pod/web", "went fine"]


@pytest.mark.parametrize(
    ("met", "leaving", "shown"),
    [
        ((), False, "Running"),
        (("Suspended",), False, "Suspended"),
        (("Suspended",), True, "Terminating"),
        (("Complete", "SuccessCriteriaMet"), True, "Complete"),
        (("Failed", "FailureTarget"), False, "Failed"),
        (("FailureTarget",), False, "FailureTarget"),
        (("SuccessCriteriaMet",), False, "SuccessCriteriaMet"),
    ],
)
def test_a_job_in_one_word(met, leaving, shown):
    metadata = {"deletionTimestamp": CREATED} if leaving else {}
    status = {"conditions": [{"type": each, "status": "True"} for each in met]}
    assert line("batch", "v1", "jobs", {"metadata": metadata, "status": status})["Status"] == shown


@pytest.mark.parametrize(
    ("hosts", "shown"),
    [
        ([], "*"),
        ([""], "*"),
        (["a", "", "b", "c"], "a,b,c"),
        (["a", "b", "c", "d", "e"], "a,b,c + 2 more..."),
    ],
)
def test_the_hosts_of_an_ingress_are_shortened(hosts, shown):
    rules = [{"host": each} if each else {} for each in hosts]
    assert line("networking.k8s.io", "v1", "ingresses", {"spec": {"rules": rules}})["Hosts"] == shown
