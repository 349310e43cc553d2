"""Every fault of an object at once, with its path, in the real server's words: a row for each rule."""

import json

import pytest

from api import codec, names
from api.defaults import apply_defaults
from api.kinds.table import TABLE
from api.validation.objects import faults_on_create, faults_on_update

TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
JOB = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, **TEMPLATE}}}
CRON = {"spec": {"schedule": "*/5 * * * 1-5", "jobTemplate": {"spec": {"template": TEMPLATE}}}}
HPA = {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
INGRESS = {
    "spec": {"rules": [{"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}]}
}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
BOUND = CLAIM | {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
VOLUME = {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}
SLICE = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}
NO_KEY = [f'Invalid value: "": {each}' for each in names.qualified("")]
POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def _changed(document, path, value):
    """Return a copy of ``document`` with ``value`` at a dotted path; None takes it out."""
    made = json.loads(json.dumps(document))
    *way, last = path.split(".")
    node = made
    for step in way:
        node = node[int(step)] if step.isdigit() else node.setdefault(step, {})
    if value is None:
        node.pop(last, None)
    else:
        node[int(last) if last.isdigit() else last] = value
    return made


def _object(kind, document):
    row = next(row for row in TABLE if row.kind == kind and row.stored_as is None)
    metadata = {"name": "a"} | ({"namespace": "default"} if row.namespaced else {})
    document = {"apiVersion": row.group_version, "kind": kind, "metadata": metadata} | document
    document = json.loads(json.dumps(document))
    apply_defaults(row, document)
    return row, codec.decode(row, document)


def _faults(kind, document):
    return [f"{fault.field}: {fault.message}" for fault in faults_on_create(*_object(kind, document))]


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("Job", JOB), ("CronJob", CRON), ("HorizontalPodAutoscaler", HPA), ("Ingress", INGRESS), ("Pod", POD),
        ("PersistentVolumeClaim", CLAIM), ("PersistentVolume", VOLUME), ("EndpointSlice", SLICE),
        ("PodDisruptionBudget", {"spec": {"minAvailable": "50%"}}), ("StorageClass", {"provisioner": "x"}),
        ("PriorityClass", {"value": 5}), ("RuntimeClass", {"handler": "x"}), ("IngressClass", {"spec": {"controller": "a.b/c"}}),
        ("Lease", {"spec": {"leaseDurationSeconds": 5}}), ("NetworkPolicy", {"spec": {"podSelector": {}}}),
        ("Role", {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ("LimitRange", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
    ],
)  # fmt: skip
def test_good_objects_have_no_faults(kind, document):
    assert _faults(kind, document) == []


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Job", JOB, "spec.backoffLimit", -1, ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]),
        ("Job", JOB, "spec.completionMode", "Indexed",
         []),
        ("Job", JOB, "spec.template.spec.restartPolicy", "Always",
         ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
        ("CronJob", CRON, "spec.schedule", "* * * *",
         ['spec.schedule: Invalid value: "* * * *": expected exactly 5 fields, found 4: [* * * *]']),
        ("CronJob", CRON, "spec.schedule", "99 * * * *",
         ['spec.schedule: Invalid value: "99 * * * *": end of range (99) above maximum (59): 99']),
        ("CronJob", CRON, "spec.schedule", None, ["spec.schedule: Required value"]),
        ("CronJob", CRON, "spec.concurrencyPolicy", "Maybe",
         ['spec.concurrencyPolicy: Unsupported value: "Maybe": supported values: "Allow", "Forbid", "Replace"']),
        ("CronJob", CRON, "spec.timeZone", "Mars/Base", ['spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base']),
        ("HorizontalPodAutoscaler", HPA, "spec.maxReplicas", 0,
         ["spec.maxReplicas: Invalid value: 0: must be greater than 0",
          "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`"]),
        ("HorizontalPodAutoscaler", HPA, "spec.scaleTargetRef.name", "", ["spec.scaleTargetRef.name: Required value"]),
        ("PodDisruptionBudget", {"spec": {"minAvailable": 1}}, "spec.maxUnavailable", 1,
         ['spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: minAvailable and maxUnavailable cannot be both set']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.pathType", None,
         ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.path", "x",
         ['spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path']),
        ("Ingress", INGRESS, "spec.rules", [], ["spec: Invalid value: []networking.IngressRule(nil): either `defaultBackend` or `rules` must be specified"]),
        ("NetworkPolicy", {"spec": {}}, "spec.ingress", [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}],
         [('spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0/33": must be a valid CIDR value, '
          "(e.g. 10.9.8.0/24 or 2001:db8::/64)")]),
        ("EndpointSlice", SLICE, "endpoints.0.addresses", [], ["endpoints[0].addresses: Required value: must contain at least 1 address"]),
        ("EndpointSlice", SLICE, "endpoints.0.addresses", ["127.0.0.9"],
         ['endpoints[0].addresses[0]: Invalid value: "127.0.0.9": may not be in the loopback range (127.0.0.0/8, ::1/128)']),
        ("EndpointSlice", SLICE, "endpoints.0.addresses", ["169.254.169.254"],
         [('endpoints[0].addresses[0]: Invalid value: "169.254.169.254": may not be in the link-local range '
           "(169.254.0.0/16, fe80::/10)")]),
        ("Endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}, "subsets.0.addresses.0.ip", "::ffff:127.0.0.1",
         [('subsets[0].addresses[0].ip: Invalid value: "::ffff:127.0.0.1": may not be in the loopback range '
           "(127.0.0.0/8, ::1/128)")]),
        ("Endpoints", {"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}, "subsets.0.notReadyAddresses.0.ip", "0.0.0.0",
         ['subsets[0].notReadyAddresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)']),
        ("Endpoints", {"subsets": [{"addresses": [{"ip": "10.0.0.1"}]}]}, "subsets.0.addresses.0.ip", "224.0.0.5",
         [('subsets[0].addresses[0].ip: Invalid value: "224.0.0.5": may not be in the link-local multicast range '
           "(224.0.0.0/24, ff02::/10)")]),
        ("EndpointSlice", SLICE, "addressType", "IPv5",
         ['addressType: Unsupported value: "IPv5": supported values: "FQDN", "IPv4", "IPv6"']),
        ("Lease", {"spec": {}}, "spec.leaseDurationSeconds", 0, ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]),
        ("PersistentVolumeClaim", CLAIM, "spec.accessModes", [], ["spec.accessModes: Required value: at least 1 access mode is required"]),
        ("PersistentVolumeClaim", CLAIM, "spec.resources", None, ["spec.resources[storage]: Required value"]),
        ("PersistentVolume", VOLUME, "spec.hostPath", None, ["spec: Required value: must specify a volume type"]),
        ("PersistentVolume", VOLUME, "spec.nfs", {"server": "a", "path": "/b"},
         ["spec.nfs: Forbidden: may not specify more than 1 volume type"]),
        ("StorageClass", {}, "provisioner", None, ["provisioner: Required value"]),
        ("PriorityClass", {}, "metadata.name", "system-x",
         [("metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. "
           "error: system-x is not a known system priority class")]),
        ("PriorityClass", {}, "value", 2_000_000_000,
         ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
        ("Role", {"rules": [{"verbs": []}]}, "metadata.labels", {},
         ["rules[0].verbs: Required value: verbs must contain at least one value",
          "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
          "rules[0].resources: Required value: resource rules must supply at least one resource"]),
        ("LimitRange", {"spec": {}}, "spec.limits", [{"type": "Pod", "default": {"cpu": "1"}}],
         ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]),
        ("Pod", POD, "spec.volumes", [{"name": "v", "secret": {}}], ["spec.volumes[0].secret.secretName: Required value"]),
        ("Pod", POD, "spec.containers.0.env", [{"name": "E", "valueFrom": {}}],
         [('spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, '
          "`configMapKeyRef` or `secretKeyRef`")]),
        ("Pod", POD, "spec.topologySpreadConstraints", [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}],
         ["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"]),
        ("Pod", POD, "spec.hostAliases", [{"ip": "x"}],
         ['spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
        ("Pod", POD, "spec.affinity", {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
         ["spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
          *(f"spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: {each}" for each in NO_KEY)]),
    ],
)  # fmt: skip
def test_each_rule_is_told_with_its_path(kind, document, path, value, expected):
    if path == "spec.completionMode":
        document = _changed(_changed(document, "spec.completions", 1), "spec.parallelism", 1)
    made = _changed(document, path, value)
    if path.startswith("metadata."):
        made["metadata"] = {"name": "a"} | made["metadata"] | ({"namespace": "default"} if kind == "Role" else {})
    assert _faults(kind, made) == expected


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Job", JOB, "spec.template.spec.containers.0.image", "j", "field is immutable"),
        ("Job", JOB | {"spec": JOB["spec"] | {"completions": 1}}, "spec.parallelism", 5, ""),
        ("PersistentVolumeClaim", CLAIM, "spec.accessModes", ["ReadOnlyMany"], "spec is immutable after creation"),
        ("PersistentVolumeClaim", CLAIM, "spec.volumeName", "pv", ""),
        ("PersistentVolumeClaim", CLAIM, "spec.resources.requests.storage", "2Gi", "spec is immutable after creation"),
        ("PersistentVolumeClaim", BOUND, "spec.resources.requests.storage", "2Gi", ""),
        ("PersistentVolumeClaim", BOUND, "spec.resources.requests.storage", "1Mi", "field can not be less than"),
        ("PersistentVolume", VOLUME, "spec.hostPath.path", "/y", "is immutable after creation"),
        ("StorageClass", {"provisioner": "x"}, "parameters", {"a": "b"}, "updates to parameters are forbidden."),
        ("PriorityClass", {"value": 1}, "value", 2, "may not be changed in an update."),
        ("IngressClass", {"spec": {"controller": "a.b/c"}}, "spec.controller", "a.b/d", "field is immutable"),
        ("EndpointSlice", SLICE, "addressType", "FQDN", "field is immutable"),
        ("Pod", POD, "spec.containers.0.image", "j", ""),
        ("Pod", POD, "spec.nodeName", "n", "pod updates may not change fields other than"),
        ("Pod", POD, "spec.terminationGracePeriodSeconds", 5, "pod updates may not change fields other than"),
        ("Pod", POD, "spec.tolerations", [{"operator": "Exists"}], ""),
    ],
)  # fmt: skip
def test_what_an_update_may_not_change(kind, document, path, value, expected):
    row, old = _object(kind, document)
    _, new = _object(kind, _changed(document, path, value))
    messages = [fault.message for fault in faults_on_update(row, old, new)]
    assert bool(messages) is bool(expected), messages
    assert not expected or any(expected in message for message in messages), messages
