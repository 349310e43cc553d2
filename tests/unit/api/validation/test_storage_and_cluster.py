"""What is said of wrong volumes, claims, classes, drivers, data and objects of the cluster, in the real server's words."""

import pytest

from tests.unit.api.validation.objects import changed, faults_of, faults_of_change, said

VOLUME = {
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/srv"},
        "storageClassName": "a",
    }
}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
CLASS = {"provisioner": "example.com/disk"}
ATTACHMENT = {"spec": {"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}
CSI_NODE = {"spec": {"drivers": [{"name": "a.b", "nodeID": "n"}]}}
ROOM = {"storageClassName": "a"}
BINDING = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}}
USER = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "u"}
RANGE = {"spec": {"limits": [{"type": "Container"}]}}
LIMIT = "spec.limits.0"
EVENT = {"involvedObject": {"namespace": "default"}}
NEW_EVENT = {
    **EVENT, "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "a.b/c", "reportingInstance": "i",
    "action": "Act", "reason": "Why", "type": "Normal",
}  # fmt: skip
ALSO_IMMUTABLE = "field is immutable when `immutable` is set"


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("PersistentVolume", VOLUME), ("PersistentVolumeClaim", CLAIM), ("StorageClass", CLASS),
        ("VolumeAttachment", ATTACHMENT), ("CSINode", CSI_NODE), ("CSIStorageCapacity", ROOM), ("CSIDriver", {}),
        ("RoleBinding", BINDING | {"subjects": [USER]}), ("LimitRange", RANGE), ("ResourceQuota", {"spec": {}}),
        ("Event", EVENT), ("Event", NEW_EVENT), ("ConfigMap", {}), ("Secret", {}), ("PriorityClass", {"value": 1}),
        ("RuntimeClass", {"handler": "h"}), ("Node", {}), ("Namespace", {}),
        ("Secret", {"data": {"a": "YWJj\r\nZGVm\n"}}),
    ],
)  # fmt: skip
def test_nothing_is_said_of_right_ones(kind, document):
    assert faults_of(kind, document) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.accessModes", [], ["spec.accessModes: Required value"]),
        ("spec.accessModes", ["x"], ['spec.accessModes: Unsupported value: "x": supported values: "ReadOnlyMany", ']),
        (
            "spec.accessModes", ["ReadWriteOncePod", "ReadOnlyMany"],
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        (
            "spec.capacity", {},
            ["spec.capacity: Required value", "spec.capacity: Unsupported value: "],
        ),
        ("spec.capacity.storage", "0", ['spec.capacity[storage]: Invalid value: "0": must be greater than zero']),
        (
            "spec.persistentVolumeReclaimPolicy", "x",
            ['spec.persistentVolumeReclaimPolicy: Unsupported value: "x": supported values: "Delete", "Recycle", "Retain"'],
        ),
        ("spec.nodeAffinity", {}, ["spec.nodeAffinity.required: Required value: must specify required node constraints"]),
        ("spec.hostPath", None, ["spec: Required value: must specify a volume type"]),
        ("spec.hostPath.path", "", ["spec.hostPath.path: Required value"]),
        ("spec.hostPath.path", "/a/../b", ['spec.hostPath.path: Invalid value: "/a/../b": must not contain \'..\'']),
        ("spec.hostPath.type", "x", ['spec.hostPath.type: Unsupported value: "x": supported values: "", ']),
        ("spec.nfs", {"server": "s", "path": "/a"}, ["spec.nfs: Forbidden: may not specify more than 1 volume type"]),
        ("spec.storageClassName", "A_", ['spec.storageClassName: Invalid value: "A_": a lowercase RFC 1123 subdomain']),
        ("spec.volumeMode", "x", ['spec.volumeMode: Unsupported value: "x": supported values: "Block", "Filesystem"']),
    ],
)  # fmt: skip
def test_volumes(path, value, expected):
    said(faults_of("PersistentVolume", VOLUME, path, value), expected)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"local": {"path": "/a"}}, ["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
        ({"nfs": {"server": "", "path": "a"}}, [
            "spec.nfs.server: Required value", 'spec.nfs.path: Invalid value: "a": must be an absolute path',
        ]),
        ({"csi": {"driver": "a.b", "volumeHandle": ""}}, ["spec.csi.volumeHandle: Required value"]),
        (
            {"csi": {"driver": "", "volumeHandle": "h"}},
            ["spec.csi.driver: Required value", 'spec.csi.driver: Invalid value: "": a lowercase RFC 1123 subdomain'],
        ),
        (
            {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"},
            ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
        ),
    ],
)  # fmt: skip
def test_where_a_volume_lies(source, expected):
    document = {"spec": {**changed(VOLUME, "spec.hostPath", None)["spec"], **source}}
    said(faults_of("PersistentVolume", document), expected)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("spec.accessModes", [], ["spec.accessModes: Required value: at least 1 access mode is required"]),
        ("spec.resources.requests", {}, ["spec.resources[storage]: Required value"]),
        (
            "spec.resources.requests.storage", "0",
            ['spec.resources[storage]: Invalid value: "0": must be greater than zero'],
        ),
        ("spec.storageClassName", "A", ['spec.storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain']),
        ("spec.selector", {"matchLabels": {"-": "b"}}, ['spec.selector.matchLabels: Invalid value: "-": name part']),
        ("spec.dataSource", {"kind": "Other", "name": "a"}, ["spec.dataSource: Invalid value: "]),
        ("spec.dataSource", {"kind": "PersistentVolumeClaim", "name": ""}, ["spec.dataSource.name: Required value"]),
    ],
)  # fmt: skip
def test_claims(path, value, expected):
    found = faults_of("PersistentVolumeClaim", CLAIM, path, value)
    said([each for each in found if "dataSourceRef" not in each.partition(":")[0]], expected)


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("StorageClass", CLASS, "provisioner", "", ["provisioner: Required value"]),
        ("StorageClass", CLASS, "provisioner", "-", ['provisioner: Invalid value: "-": name part must consist of']),
        ("StorageClass", CLASS, "reclaimPolicy", "Recycle", ['reclaimPolicy: Unsupported value: "Recycle": ']),
        ("StorageClass", CLASS, "volumeBindingMode", "x", ['volumeBindingMode: Unsupported value: "x": supported values: ']),
        ("StorageClass", CLASS, "parameters", {"": "x"}, ['parameters: Invalid value: "": field can not be empty.']),
        (
            "StorageClass", CLASS, "allowedTopologies", [{"matchLabelExpressions": [{"key": "a", "values": []}]}],
            ["allowedTopologies[0].matchLabelExpressions[0].values: Required value"],
        ),
        ("VolumeAttachment", ATTACHMENT, "spec.attacher", "", ["spec.attacher: Required value"]),
        (
            "VolumeAttachment", ATTACHMENT, "spec.source", {},
            ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
        ),
        ("VolumeAttachment", ATTACHMENT, "spec.nodeName", "A", ['spec.nodeName: Invalid value: "A": a lowercase RFC 1123']),
        ("CSIDriver", {}, "spec.fsGroupPolicy", "x", ['spec.fsGroupPolicy: Unsupported value: "x": supported values: ']),
        ("CSIDriver", {}, "spec.volumeLifecycleModes", ["x"], ['spec.volumeLifecycleModes: Unsupported value: "x": ']),
        (
            "CSIDriver", {}, "spec.tokenRequests", [{"audience": "a"}, {"audience": "a", "expirationSeconds": 1}],
            ['spec.tokenRequests[1].audience: Duplicate value: "a"',
             "spec.tokenRequests[1].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes"],
        ),
        ("CSINode", CSI_NODE, "spec.drivers.0.nodeID", "", ["spec.drivers[0].nodeID: Required value"]),
        ("CSINode", CSI_NODE, "spec.drivers.0.topologyKeys", ["a", "a"], ['spec.drivers[0]: Duplicate value: "a"']),
        ("CSIStorageCapacity", ROOM, "storageClassName", "", ['storageClassName: Invalid value: "": a lowercase RFC 1123']),
        (
            "CSIStorageCapacity", ROOM, "capacity", "-1",
            ['capacity: Invalid value: "-1": must be greater than or equal to 0'],
        ),
        ("PriorityClass", {"value": 1}, "value", 2_000_000_000, ["value: Forbidden: maximum allowed value of a user "]),
        ("RuntimeClass", {}, "handler", "A", ['handler: Invalid value: "A": a lowercase RFC 1123 label must consist of']),
        ("Node", {}, "spec.podCIDRs", ["x"], ['spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value, ']),
        ("Namespace", {}, "spec.finalizers", ["x"], ['spec.finalizers: Invalid value: "x": name is neither a standard ']),
    ],
)  # fmt: skip
def test_classes_drivers_and_the_cluster(kind, document, path, value, expected):
    said(faults_of(kind, document, path, value), expected)


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("ClusterRole", {}, "rules", [{"apiGroups": [""], "resources": ["pods"]}], ["rules[0].verbs: Required value"]),
        (
            "ClusterRole", {}, "rules", [{"verbs": ["get"]}],
            ["rules[0].apiGroups: Required value: resource rules must supply at least one api group",
             "rules[0].resources: Required value: resource rules must supply at least one resource"],
        ),
        (
            "Role", {}, "rules", [{"verbs": ["get"], "nonResourceURLs": ["/x"]}],
            ['rules[0].nonResourceURLs: Invalid value: []string{"/x"}: namespaced rules cannot apply to non-resource URLs'],
        ),
        (
            "RoleBinding", BINDING, "roleRef.kind", "x",
            ['roleRef.kind: Unsupported value: "x": supported values: "Role", "ClusterRole"'],
        ),
        ("RoleBinding", BINDING, "roleRef.name", "", ["roleRef.name: Required value"]),
        (
            "RoleBinding", BINDING, "subjects", [USER | {"kind": "x"}],
            ['subjects[0].kind: Unsupported value: "x": supported values: "ServiceAccount", "User", "Group"'],
        ),
        (
            "RoleBinding", BINDING, "subjects", [{"kind": "ServiceAccount", "name": "a"}],
            ["subjects[0].namespace: Required value"],
        ),
        ("LimitRange", RANGE, f"{LIMIT}.type", "x", ['spec.limits[0].type: Invalid value: "x": ']),
        (
            "LimitRange", RANGE, LIMIT, {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}},
            ['spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
             'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1',
             'spec.limits[0].default[cpu]: Invalid value: "1": min value 2 is greater than default value 1'],
        ),
        (
            "LimitRange", RANGE, f"{LIMIT}.maxLimitRequestRatio", {"cpu": "500m"},
            ['spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1'],
        ),
        ("ResourceQuota", {}, "spec.hard", {"pods": "-1"}, ['spec.hard[pods]: Invalid value: "-1": must be greater than ']),
        (
            "ResourceQuota", {}, "spec.scopes", ["BestEffort", "NotBestEffort"],
            ['spec.scopes: Invalid value: []string{"BestEffort", "NotBestEffort"}: conflicting scopes'],
        ),
        (
            "ResourceQuota", {"spec": {"hard": {"cpu": "1"}}}, "spec.scopes", ["BestEffort"],
            ['spec.scopes: Invalid value: []string{"BestEffort"}: unsupported scope applied to resource'],
        ),
        ("ConfigMap", {}, "data", {"a b": "c"}, ['data[a b]: Invalid value: "a b": a valid config key must consist of ']),
        ("ConfigMap", {"data": {"a": ""}}, "binaryData", {"a": ""}, ['data[a]: Invalid value: "a": duplicate of key present']),
        ("ConfigMap", {}, "data", {"a": "x" * 1_048_577}, [": Too long: may not be more than 1048576 bytes"]),
        (
            "Secret", {}, "type", "kubernetes.io/tls", ["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        ("Secret", {}, "type", "kubernetes.io/ssh-auth", ["data[ssh-privatekey]: Required value"]),
        (
            "Secret", {"type": "kubernetes.io/dockerconfigjson"}, "data", {".dockerconfigjson": "eA=="},
            ['data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": '],
        ),
        (
            "Event", EVENT, "involvedObject.namespace", "other",
            ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
        ),
        ("Event", NEW_EVENT, "reportingComponent", "a b", ['reportingController: Invalid value: "a b": name part must ']),
        ("Event", NEW_EVENT, "action", "x" * 129, ['action: Invalid value: "": can have at most 128 characters']),
    ],
)  # fmt: skip
def test_access_limits_and_data(kind, document, path, value, expected):
    said(faults_of(kind, document, path, value), expected)


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("PersistentVolume", VOLUME, "spec.capacity.storage", "2Gi", []),
        (
            "PersistentVolume", VOLUME, "spec.hostPath.path", "/other",
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
        ),
        ("PersistentVolume", VOLUME, "spec.volumeMode", "Block", ['volumeMode: Invalid value: "Block": field is immutable']),
        (
            "PersistentVolumeClaim", CLAIM, "spec.resources.requests.storage", "2Gi",
            ["spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName "],
        ),
        (
            "PersistentVolumeClaim", CLAIM, "spec.accessModes", ["ReadOnlyMany"],
            ["spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName "],
        ),
        ("StorageClass", CLASS, "provisioner", "b", ["provisioner: Forbidden: updates to provisioner are forbidden."]),
        ("StorageClass", CLASS, "parameters", {"a": "b"}, ["parameters: Forbidden: updates to parameters are forbidden."]),
        ("VolumeAttachment", ATTACHMENT, "spec.nodeName", "m", ["spec: Invalid value: "]),
        ("CSIStorageCapacity", ROOM, "storageClassName", "b", ['storageClassName: Invalid value: "b": field is immutable']),
        ("ConfigMap", {"immutable": True}, "data", {"a": "b"}, [f"data: Forbidden: {ALSO_IMMUTABLE}"]),
        ("ConfigMap", {"immutable": True}, "immutable", False, [f"immutable: Forbidden: {ALSO_IMMUTABLE}"]),
        ("Secret", {"immutable": True}, "data", {"a": "Yg=="}, [f"data: Forbidden: {ALSO_IMMUTABLE}"]),
        ("Secret", {}, "type", "other", ['type: Invalid value: "other": field is immutable']),
        ("RoleBinding", BINDING, "roleRef.name", "s", ["roleRef: Invalid value: "]),
        ("PriorityClass", {"value": 1}, "value", 2, ["value: Forbidden: may not be changed in an update."]),
        ("RuntimeClass", {"handler": "a"}, "handler", "b", ['handler: Invalid value: "b": field is immutable']),
        ("ResourceQuota", {"spec": {}}, "spec.scopes", ["BestEffort"], ["spec.scopes: Invalid value: "]),
    ],
)  # fmt: skip
def test_changes(kind, document, path, value, expected):
    said(faults_of_change(kind, document, path, value), expected)
