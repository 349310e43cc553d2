"""What is wrong with a pod, in the real server's words: a row for each rule, and one for what comes near."""

import pytest

from tests.unit.api.validation.objects import CONTAINER, POD, changed, faults_of, faults_of_change, said

C = "spec.containers.0"
AT = "spec.containers[0]"
NEGATIVE = "must be greater than or equal to 0"
MOUNTED = changed(POD, "spec.volumes", [{"name": "v", "emptyDir": {}}])
SIDECAR = CONTAINER | {"name": "s", "restartPolicy": "Always"}
LABEL = "a lowercase RFC 1123 label must consist of"
SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of"
KEY = "name part must consist of alphanumeric characters"

CONTAINERS = [
    (f"{C}.name", "a.b", [f'{AT}.name: Invalid value: "a.b": must not contain dots']),
    (f"{C}.name", "A", [f'{AT}.name: Invalid value: "A": {LABEL}']),
    (f"{C}.name", "x" * 64, [f'{AT}.name: Invalid value: "{"x" * 64}": must be no more than 63 characters']),
    (f"{C}.image", " i", [f'{AT}.image: Invalid value: " i": must not have leading or trailing whitespace']),
    (f"{C}.restartPolicy", "Always", [f"{AT}.restartPolicy: Forbidden: may not be set for non-init containers"]),
    (f"{C}.terminationMessagePolicy", "Pipe",
     [f'{AT}.terminationMessagePolicy: Unsupported value: "Pipe": supported values: "File", "FallbackToLogsOnError"']),
    (f"{C}.ports", [{"containerPort": 80, "name": "A--b-"}], [
        f'{AT}.ports[0].name: Invalid value: "A--b-": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
        f'{AT}.ports[0].name: Invalid value: "A--b-": must not contain consecutive hyphens',
        f'{AT}.ports[0].name: Invalid value: "A--b-": must not begin or end with a hyphen']),
    (f"{C}.ports", [{"containerPort": 80, "name": "1"}],
     [f'{AT}.ports[0].name: Invalid value: "1": must contain at least one letter (a-z)']),
    (f"{C}.ports", [{"containerPort": 80, "hostPort": 70000}],
     [f"{AT}.ports[0].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]),
    (f"{C}.ports", [{"containerPort": 80, "hostPort": 8}, {"containerPort": 81, "hostPort": 8}],
     [f'{AT}.ports[1].hostPort: Duplicate value: "TCP//8"']),
    (f"{C}.ports", [{"containerPort": 80, "hostPort": 8}, {"containerPort": 81, "hostPort": 8, "protocol": "UDP"}], []),
    (f"{C}.env", [{"name": "a=b"}],
     [f'{AT}.env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of']),
    (f"{C}.env", [{"name": "E", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
     [f'{AT}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty']),
    (f"{C}.env", [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.nam"}}}],
     [(f'{AT}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.nam": '
      "error converting fieldPath: field label not supported: metadata.nam")]),
    (f"{C}.env", [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}],
     [f'{AT}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name"']),
    (f"{C}.env", [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b/c']"}}}],
     [f'{AT}.env[0].valueFrom.fieldRef: Invalid value: "a/b/c": a qualified name must consist of']),
    (f"{C}.env", [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}], []),
    (f"{C}.env", [{"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}],
     [f'{AT}.env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.gpu": supported values: "limits.cpu"']),
    (f"{C}.env", [{"name": "E", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}],
     [(f'{AT}.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": '
      "only divisor's values 1m and 1 are supported with the cpu resource")]),
    (f"{C}.env", [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": ".."}}}],
     [f'{AT}.env[0].valueFrom.configMapKeyRef.key: Invalid value: "..": must not be \'..\'']),
    (f"{C}.envFrom", [{"prefix": "p"}],
     [f'{AT}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`']),
    (f"{C}.envFrom", [{"configMapRef": {"name": "m-"}}], []),
    (f"{C}.envFrom", [{"configMapRef": {"name": "M"}}],
     [f'{AT}.envFrom[0].configMapRef.name: Invalid value: "M": {SUBDOMAIN}']),
    (f"{C}.volumeMounts", [{"name": "v", "mountPath": "/x"}], [f'{AT}.volumeMounts[0].name: Not found: "v"']),
    (f"{C}.volumeDevices", [{"name": "v", "devicePath": "/x"}], [f'{AT}.volumeDevices[0].name: Not found: "v"']),
]  # fmt: skip
RESOURCES = [
    ({"requests": {"cpus": "1"}}, [
        f'{AT}.resources.requests[cpus]: Invalid value: "cpus": must be a standard resource type or fully qualified',
        f'{AT}.resources.requests[cpus]: Invalid value: "cpus": must be a standard resource for containers']),
    ({"requests": {"requests.cpu": "1"}}, [
        f'{AT}.resources.requests[requests.cpu]: Invalid value: "requests.cpu": must be a standard resource for containers']),
    ({"requests": {"cpu": "-1"}}, [f'{AT}.resources.requests[cpu]: Invalid value: "-1": {NEGATIVE}']),
    ({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
     [f'{AT}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
    ({"requests": {"a.b/gpu": "1"}}, [f"{AT}.resources.limits: Required value: Limit must be set for non overcommitable resources"]),
    ({"requests": {"a.b/gpu": "1"}, "limits": {"a.b/gpu": "2"}},
     [f'{AT}.resources.requests: Invalid value: "1": must be equal to a.b/gpu limit of 2']),
    ({"limits": {"a.b/gpu": "500m"}}, [
        f'{AT}.resources.limits[a.b/gpu]: Invalid value: "500m": must be an integer',
        f'{AT}.resources.requests[a.b/gpu]: Invalid value: "500m": must be an integer']),
    ({"limits": {"hugepages-2Mi": "2Mi"}}, [f"{AT}.resources: Forbidden: HugePages require cpu or memory"]),
    ({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}, [
        f'{AT}.resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi',
        f'{AT}.resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi']),
    ({"limits": {"hugepages-2Mi": "4Mi", "cpu": "1"}}, []),
    ({"claims": [{"name": "x"}]}, [
        f'{AT}.resources.claims[0]: Not found: "x": must be one of the names in pod.spec.resourceClaims which is empty']),
]  # fmt: skip
PROBES = [
    ("livenessProbe", {}, [f"{AT}.livenessProbe: Required value: must specify a handler type"]),
    ("livenessProbe", {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}},
     [f"{AT}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"]),
    ("livenessProbe", {"exec": {}}, [f"{AT}.livenessProbe.exec.command: Required value"]),
    ("livenessProbe", {"httpGet": {"port": "Web"}},
     [f'{AT}.livenessProbe.httpGet.port: Invalid value: "Web": must contain only alpha-numeric characters']),
    ("livenessProbe", {"httpGet": {"port": 1, "scheme": "FTP"}},
     [f'{AT}.livenessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"']),
    ("livenessProbe", {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}},
     [f'{AT}.livenessProbe.httpGet.httpHeaders: Invalid value: "a b": a valid HTTP header must consist of']),
    ("livenessProbe", {"grpc": {"port": 0}}, [f"{AT}.livenessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535"]),
    ("startupProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2},
     [f"{AT}.startupProbe.successThreshold: Invalid value: 2: must be 1"]),
    ("readinessProbe", {"tcpSocket": {"port": 1}, "successThreshold": 2}, []),
    ("readinessProbe", {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 2},
     [f"{AT}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 2: must not be set for readinessProbes"]),
    ("readinessProbe", {"tcpSocket": {"port": 1}, "periodSeconds": -2},
     [f"{AT}.readinessProbe.periodSeconds: Invalid value: -2: {NEGATIVE}"]),
    ("lifecycle", {"preStop": {"sleep": {"seconds": 60}}},
     [f"{AT}.lifecycle.preStop.sleep: Invalid value: 60: must be greater than 0 and less than terminationGracePeriodSeconds (30)"]),
    ("lifecycle", {"preStop": {"sleep": {"seconds": 30}}}, []),
]  # fmt: skip
VOLUMES = [
    ({"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}},
     ["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"]),
    ({"name": "v", "hostPath": {"path": "/a/../b"}},
     ['spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain \'..\'']),
    ({"name": "v", "hostPath": {"path": "/a", "type": "Odd"}},
     [('spec.volumes[0].hostPath.type: Unsupported value: "Odd": supported values: "", "BlockDevice", "CharDevice", '
      '"Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"')]),
    ({"name": "v", "secret": {"secretName": "s", "defaultMode": 0o1000}},
     ["spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"]),
    ({"name": "v", "configMap": {"name": "m", "items": [{"key": "", "path": "/abs"}]}}, [
        "spec.volumes[0].configMap.items[0].key: Required value",
        'spec.volumes[0].configMap.items[0].path: Invalid value: "/abs": must be a relative path']),
    ({"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "..x"}]}},
     ['spec.volumes[0].configMap.items[0].path: Invalid value: "..x": must not start with \'..\'']),
    ({"name": "v", "nfs": {"server": "s", "path": "x"}},
     ['spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path']),
    ({"name": "v", "iscsi": {"targetPortal": "t", "iqn": "x", "lun": 256}}, [
        'spec.volumes[0].iscsi.iqn: Invalid value: "x": must be valid format starting with iqn, eui, or naa',
        "spec.volumes[0].iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive"]),
    ({"name": "v", "downwardAPI": {"items": [{"path": "p"}]}},
     ["spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"]),
    ({"name": "v", "downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
     ["spec.volumes[0].downwardAPI.resourceFieldRef.containerName: Required value"]),
    ({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}]}}, [
        ("spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 10: "
        "may not specify a duration less than 10 minutes"),
        ("spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when "
        "serviceAccountName is not set")]),
    ({"name": "v", "projected": {"sources": [{"secret": {"name": "s"}, "configMap": {"name": "m"}}]}},
     ["spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"]),
    ({"name": "v", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
                                             {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}]}},
     ['spec.volumes[0].projected: Invalid value: "m": conflicting duplicate paths']),
    ({"name": "v", "csi": {"driver": "x" * 64}}, ["spec.volumes[0].csi.driver: Too long: may not be more than 63 bytes"]),
    ({"name": "v", "ephemeral": {}}, ["spec.volumes[0].ephemeral.volumeClaimTemplate: Required value"]),
    ({"name": "v", "ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "n"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
     ["spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set"]),
    ({"name": "V", "emptyDir": {}}, [f'spec.volumes[0].name: Invalid value: "V": {LABEL}']),
]  # fmt: skip
SECURITY = [
    (f"{C}.securityContext", {"runAsUser": -1},
     [f"{AT}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"]),
    (f"{C}.securityContext", {"privileged": True, "allowPrivilegeEscalation": False},
     [(f'{AT}.securityContext: Invalid value: {{"allowPrivilegeEscalation":false,"privileged":true}}: '
      "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")]),
    (f"{C}.securityContext", {"procMount": "Unmasked"},
     [f'{AT}.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`']),
    (f"{C}.securityContext", {"seccompProfile": {"type": "Localhost"}},
     [f"{AT}.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"]),
    ("spec.securityContext", {"seccompProfile": {"type": "Mine"}},
     [('spec.securityContext.seccompProfile.type: Unsupported value: "Mine": supported values: "Localhost", '
      '"RuntimeDefault", "Unconfined"')]),
    ("spec.securityContext", {"appArmorProfile": {"type": "Unconfined", "localhostProfile": "x"}},
     ['spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost']),
    ("spec.securityContext", {"sysctls": [{"name": "a..b", "value": "1"}]},
     ['spec.securityContext.sysctls[0].name: Invalid value: "a..b": must have at most 253 characters and match regex']),
    ("spec.securityContext", {"sysctls": [{"name": "kernel.sem", "value": "1"}, {"name": "kernel.sem", "value": "1"}]},
     ['spec.securityContext.sysctls[1].name: Duplicate value: "kernel.sem"']),
    ("spec.securityContext", {"fsGroupChangePolicy": "Never"},
     ['spec.securityContext.fsGroupChangePolicy: Unsupported value: "Never": supported values: "Always", "OnRootMismatch"']),
    ("spec.securityContext", {"supplementalGroups": [1, -1]},
     ["spec.securityContext.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive"]),
]  # fmt: skip
SPEC = [
    ("spec.restartPolicy", "Maybe",
     ['spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"']),
    ("spec.dnsPolicy", "Any", [
        'spec.dnsPolicy: Unsupported value: "Any": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"']),
    ("spec.dnsPolicy", "None", ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]),
    ("spec.dnsConfig", {"nameservers": ["1.1.1.1"] * 4, "searches": ["A"]}, [
        ('spec.dnsConfig.nameservers: Invalid value: []string{"1.1.1.1", "1.1.1.1", "1.1.1.1", "1.1.1.1"}: '
        "must not have more than 3 nameservers"), f'spec.dnsConfig.searches[0]: Invalid value: "A": {SUBDOMAIN}']),
    ("spec.activeDeadlineSeconds", 0, ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
    ("spec.terminationGracePeriodSeconds", -1, []),
    ("spec.hostname", "a.b", ['spec.hostname: Invalid value: "a.b": must not contain dots']),
    ("spec.nodeName", "A", [f'spec.nodeName: Invalid value: "A": {SUBDOMAIN}']),
    ("spec.preemptionPolicy", "Mine",
     ['spec.preemptionPolicy: Unsupported value: "Mine": supported values: "PreemptLowerPriority", "Never"']),
    ("spec.readinessGates", [{"conditionType": "a b"}], [f'spec.readinessGates[0].conditionType: Invalid value: "a b": {KEY}']),
    ("spec.schedulingGates", [{"name": "g"}, {"name": "g"}], ['spec.schedulingGates[1]: Duplicate value: "g"']),
    ("spec.os", {"name": "minix"}, ['spec.os: Unsupported value: "minix": supported values: "linux", "windows"']),
    ("spec.ephemeralContainers", [CONTAINER | {"name": "d"}], ["spec.ephemeralContainers: Forbidden: cannot be set on create"]),
    ("spec.tolerations", [{"key": "k", "operator": "Near"}],
     ['spec.tolerations[0].operator: Unsupported value: "Near": supported values: "Equal", "Exists"']),
    ("spec.tolerations", [{"operator": "Equal"}],
     [('spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means '
      '"match all values and all keys"')]),
    ("spec.tolerations", [{"key": "k", "effect": "NoWay"}],
     ['spec.tolerations[0].effect: Unsupported value: "NoWay": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"']),
    ("spec.nodeSelector", {"a b": "c d"}, [f'spec.nodeSelector: Invalid value: "a b": {KEY}',
                                           'spec.nodeSelector: Invalid value: "c d": a valid label must be an empty string']),
    ("spec.topologySpreadConstraints", [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}] * 2, [
        'spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, ScheduleAnyway}"',
        ("spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if "
        "whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"),
        "spec.topologySpreadConstraints[1].minDomains: Invalid value: 1: can only use minDomains if"]),
    ("spec.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a", "b"]}]}]}}}, [
        ("spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values: "
        "Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector"),
        ("spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: "
        'Invalid value: "spec.x": not a valid field selector key')]),
    ("spec.affinity", {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 101, "podAffinityTerm": {"topologyKey": "z"}}]}},
     [("spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: "
      "must be in the range 1-100")]),
    ("metadata.annotations", {"controller.kubernetes.io/pod-deletion-cost": "x"},
     ['metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "x": must be a 32bit integer']),
    ("spec.initContainers", [CONTAINER], ['spec.initContainers[0].name: Duplicate value: "c"']),
    ("spec.initContainers", [CONTAINER | {"name": "n", "readinessProbe": {"tcpSocket": {"port": 1}}}],
     ["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"]),
    ("spec.initContainers", [SIDECAR | {"readinessProbe": {"tcpSocket": {"port": 1}}}], []),
    ("spec.initContainers", [SIDECAR | {"restartPolicy": "Never"}],
     ['spec.initContainers[0].restartPolicy: Unsupported value: "Never": supported values: "Always"']),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "expected"), [*CONTAINERS, *SECURITY, *SPEC])
def test_specs(path, value, expected):
    said(faults_of("Pod", POD, path, value), expected)


@pytest.mark.parametrize(("resources", "expected"), RESOURCES)
def test_resources(resources, expected):
    said(faults_of("Pod", POD, f"{C}.resources", resources), expected)


@pytest.mark.parametrize(("field", "value", "expected"), PROBES)
def test_what_is_done_to_containers(field, value, expected):
    said(faults_of("Pod", POD, f"{C}.{field}", value), expected)


@pytest.mark.parametrize(("volume", "expected"), VOLUMES)
def test_volumes(volume, expected):
    said(faults_of("Pod", POD, "spec.volumes", [volume]), expected)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("volumeMounts", [{"name": "v", "mountPath": "/x"}] * 2,
         [f'{AT}.volumeMounts[1].mountPath: Invalid value: "/x": must be unique']),
        ("volumeMounts", [{"name": "v", "mountPath": "/x", "subPath": "a", "subPathExpr": "../b"}], [
            f'{AT}.volumeMounts[0].subPathExpr: Invalid value: "../b": subPathExpr and subPath are mutually exclusive',
            f'{AT}.volumeMounts.subPathExpr: Invalid value: "../b": must not contain \'..\'']),
        ("volumeMounts", [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}],
         [f"{AT}.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged"]),
        ("volumeMounts", [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}],
         [f"{AT}.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"]),
        ("volumeDevices", [{"name": "v", "devicePath": "/x"}],
         [f'{AT}.volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim']),
    ],
)  # fmt: skip
def test_mounts(field, value, expected):
    said(faults_of("Pod", MOUNTED, f"{C}.{field}", value), expected)


GATED = changed(POD, "spec.schedulingGates", [{"name": "g"}])
PLACED = changed(GATED, "spec.nodeSelector", {"a": "b"})
NOT_THAT = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"


@pytest.mark.parametrize(
    ("document", "path", "value", "expected"),
    [
        (POD, f"{C}.image", "j", []),
        (POD, f"{C}.image", "", [f"{AT}.image: Required value"]),
        (POD, "spec.containers", [CONTAINER, CONTAINER | {"name": "d"}],
         ["spec.containers: Forbidden: pod updates may not add or remove containers"]),
        (POD, "spec.initContainers", [CONTAINER | {"name": "d"}],
         ["spec.initContainers: Forbidden: pod updates may not add or remove containers"]),
        (POD, "spec.activeDeadlineSeconds", 5, []),
        (changed(POD, "spec.activeDeadlineSeconds", 5), "spec.activeDeadlineSeconds", 6,
         ["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"]),
        (changed(POD, "spec.activeDeadlineSeconds", 5), "spec.activeDeadlineSeconds", None,
         ['spec.activeDeadlineSeconds: Invalid value: "null": must not update from a positive integer to nil value']),
        (changed(POD, "spec.tolerations", [{"key": "k", "effect": "NoExecute"}]), "spec.tolerations.0.tolerationSeconds", 5, []),
        (changed(POD, "spec.tolerations", [{"key": "k"}]), "spec.tolerations", [],
         ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]),
        (POD, "spec.schedulingGates", [{"name": "g"}],
         ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"]),
        (GATED, "spec.schedulingGates", [], []),
        (POD, "spec.nodeSelector", {"a": "b"}, [NOT_THAT]),
        (GATED, "spec.nodeSelector", {"a": "b"}, []),
        (PLACED, "spec.nodeSelector", {"a": "c"},
         ['spec.nodeSelector: Invalid value: map[string]string{"a":"c"}: only additions to spec.nodeSelector are allowed']),
        (GATED, "spec.affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}, []),
        (POD, "spec.terminationGracePeriodSeconds", 5, [NOT_THAT]),
        (changed(POD, "spec.terminationGracePeriodSeconds", -5), "spec.terminationGracePeriodSeconds", 1, []),
        (POD, "metadata.annotations", {"kubernetes.io/config.mirror": "x"}, [
            'metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod',
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation"]),
    ],
)  # fmt: skip
def test_updates(document, path, value, expected):
    said(faults_of_change("Pod", document, path, value), expected)


DEBUGGED = changed(POD, "spec.ephemeralContainers", [CONTAINER | {"name": "d"}])


@pytest.mark.parametrize(
    ("document", "path", "value", "expected"),
    [
        (POD, "spec.ephemeralContainers", [CONTAINER | {"name": "d"}], []),
        (POD, "spec.ephemeralContainers", [CONTAINER], ['spec.ephemeralContainers[0].name: Duplicate value: "c"']),
        (POD, "spec.ephemeralContainers", [CONTAINER | {"name": "d", "targetContainerName": "x"}],
         ['spec.ephemeralContainers[0].targetContainerName: Not found: "x"']),
        (POD, "spec.ephemeralContainers", [CONTAINER | {"name": "d", "ports": [{"containerPort": 1}]}],
         ["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"]),
        (DEBUGGED, "spec.ephemeralContainers", [],
         ['spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed']),
        (DEBUGGED, "spec.ephemeralContainers.0.image", "j",
         ['spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be changed']),
    ],
)  # fmt: skip
def test_containers_for_debugging(document, path, value, expected):
    said(faults_of_change("Pod", document, path, value), expected)


def test_templates_are_judged_less_strictly():
    template = changed({"template": POD}, "template.spec.hostNetwork", True)
    template = changed(template, "template.spec.containers.0.image", " i")
    template = changed(template, "template.spec.containers.0.ports", [{"containerPort": 80}])
    assert faults_of("PodTemplate", template) == []
