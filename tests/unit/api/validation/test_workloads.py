"""What is wrong with kinds that keep pods running, in the real server's words."""

import pytest

from api.validation.objects import faults_on_status
from tests.unit.api.validation.objects import (
    CONTAINER,
    LABELLED,
    POD,
    SELECTOR,
    an_object,
    changed,
    faults_of,
    faults_of_change,
    said,
    texts,
)

OWNER = {"spec": {"selector": SELECTOR, "template": LABELLED | POD}}
STATEFUL = changed(OWNER, "spec.serviceName", "s")
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
CONTROLLER = {"spec": {"selector": {"a": "b"}, "template": LABELLED | POD}}
ONCE = {"containers": [CONTAINER], "restartPolicy": "Never"}
JOB = {"spec": {"selector": SELECTOR, "template": LABELLED | {"spec": ONCE}}}
INDEXED = changed(changed(JOB, "spec.completionMode", "Indexed"), "spec.completions", 2)
CRON = {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": ONCE}}}}}
NO_MATCH = "`selector` does not match template `labels`"
RULE = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Deployment", OWNER, "", None, []),
        ("Deployment", OWNER, "spec.selector", None, [
            "spec.selector: Required value",
            f'spec.template.metadata.labels: Invalid value: map[string]string{{"a":"b"}}: {NO_MATCH}']),
        ("Deployment", OWNER, "spec.template.metadata.labels", {"a": "c"},
         [f'spec.template.metadata.labels: Invalid value: map[string]string{{"a":"c"}}: {NO_MATCH}']),
        ("Deployment", OWNER, "spec.template.spec.restartPolicy", "Never",
         ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"']),
        ("Deployment", OWNER, "spec.template.spec.activeDeadlineSeconds", 5,
         ["spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"]),
        ("Deployment", OWNER, "spec.strategy", {"type": "Recreate", "rollingUpdate": {}},
         ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]),
        ("Deployment", OWNER, "spec.strategy", {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}},
         ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]),
        ("Deployment", OWNER, "spec.strategy", {"rollingUpdate": {"maxSurge": "half", "maxUnavailable": "101%"}}, [
            ('spec.strategy.rollingUpdate.maxSurge: Invalid value: "half": a valid percent string must be a numeric string '
            "followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"),
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%']),
        ("Deployment", OWNER, "spec.progressDeadlineSeconds", 0,
         ["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"]),
        ("ReplicaSet", OWNER, "spec.minReadySeconds", -1,
         ["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"]),
        ("StatefulSet", STATEFUL, "metadata", {"name": "a.b"}, ['metadata.name: Invalid value: "a.b": must not contain dots']),
        ("StatefulSet", STATEFUL, "spec.podManagementPolicy", "Any",
         ["spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"]),
        ("StatefulSet", STATEFUL, "spec.updateStrategy", {"type": "OnDelete", "rollingUpdate": {"partition": 1}},
         ['spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for updateStrategy']),
        ("StatefulSet", STATEFUL, "spec.updateStrategy", {"type": "Now"},
         ['spec.updateStrategy: Invalid value: {"type":"Now"}: must be \'RollingUpdate\' or \'OnDelete\'']),
        ("StatefulSet", STATEFUL, "spec.persistentVolumeClaimRetentionPolicy", {"whenScaled": "Keep"},
         ['spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: "Keep": supported values: "Delete", "Retain"']),
        ("StatefulSet", changed(STATEFUL, "spec.volumeClaimTemplates", [{"metadata": {"name": "v"}, "spec": CLAIM}]),
         "spec.template.spec.containers.0.volumeMounts", [{"name": "v", "mountPath": "/v"}], []),
        ("DaemonSet", OWNER, "spec.updateStrategy", {"rollingUpdate": {"maxSurge": 1}},
         ["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"]),
        ("DaemonSet", OWNER, "spec.updateStrategy", {"rollingUpdate": {"maxUnavailable": 0}},
         ["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"]),
        ("ReplicationController", CONTROLLER, "spec.selector", {"a": "c"},
         [f'spec.template.metadata.labels: Invalid value: map[string]string{{"a":"b"}}: {NO_MATCH}']),
        ("ReplicationController", CONTROLLER, "spec.template.spec.ephemeralContainers", [CONTAINER | {"name": "d"}],
         ["spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"]),
        ("Job", JOB, "", None, []),
        ("Job", JOB, "spec.template.spec.restartPolicy", None,
         ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
        ("Job", JOB, "spec.backoffLimitPerIndex", 1,
         ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]),
        ("Job", INDEXED, "spec.completions", None, []),
        ("Job", changed(INDEXED, "spec.parallelism", 1), "spec.completions", None,
         ["spec.completions: Required value: when completion mode is Indexed"]),
        ("Job", INDEXED, "spec.parallelism", 100_001,
         ["spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"]),
        ("Job", INDEXED, "metadata", {"name": "x" * 62}, [
            f'metadata.name: Invalid value: "{"x" * 62}": will not able to create pod with invalid DNS label: {"x" * 62}-1']),
        ("Job", JOB, "spec.managedBy", "me", ['spec.managedBy: Invalid value: "me": must be a domain-prefixed path']),
        ("Job", JOB, "spec.podFailurePolicy", {"rules": [RULE]}, []),
        ("Job", changed(JOB, "spec.template.spec.restartPolicy", "OnFailure"), "spec.podFailurePolicy", {"rules": [RULE]}, [
            'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is']),
        ("Job", JOB, "spec.podFailurePolicy", {"rules": [RULE | {"onExitCodes": {"operator": "In", "values": [2, 0]}}]}, [
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0]: must be ordered"]),
        ("Job", JOB, "spec.podFailurePolicy", {"rules": [{"action": "Ignore"}]}, [
            ('spec.podFailurePolicy.rules[0]: Invalid value: {"action":"Ignore"}: specifying one of OnExitCodes and '
            "OnPodConditions is required")]),
        ("CronJob", CRON, "", None, []),
        ("CronJob", CRON, "metadata", {"name": "x" * 53},
         [f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 characters']),
        ("CronJob", CRON, "spec.schedule", "TZ=UTC * * * * *",
         ['spec.schedule: Invalid value: "TZ=UTC * * * * *": cannot use TZ or CRON_TZ in schedule, use timeZone field instead']),
        ("CronJob", CRON, "spec.timeZone", "Europe/Berlin", []),
        ("CronJob", CRON, "spec.timeZone", "Europe", ['spec.timeZone: Invalid value: "Europe": unknown time zone Europe']),
        ("CronJob", CRON, "spec.timeZone", "local",
         ['spec.timeZone: Invalid value: "local": timeZone must be an explicit time zone as defined in']),
        ("CronJob", CRON, "spec.jobTemplate.spec.manualSelector", True,
         ['spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"']),
    ],
)  # fmt: skip
def test_new_ones(kind, document, path, value, expected):
    said(faults_of(kind, document, path, value), expected)


SUSPENDED = changed(JOB, "spec.suspend", True)
OTHER = 'v1.LabelSelector{MatchLabels:map[string]string{"a":"b", "c":"d"}, MatchExpressions:[]v1.LabelSelectorRequirement(nil)}'


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Deployment", changed(OWNER, "spec.template.metadata.labels", {"a": "b", "c": "d"}), "spec.selector.matchLabels",
         {"a": "b", "c": "d"}, [f"spec.selector: Invalid value: {OTHER}: field is immutable"]),
        ("StatefulSet", STATEFUL, "spec.replicas", 5, []),
        ("StatefulSet", STATEFUL, "spec.minReadySeconds", 5, []),
        ("StatefulSet", STATEFUL, "spec.serviceName", "t",
         ["spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"]),
        ("Job", changed(JOB, "spec.completions", 1), "spec.parallelism", 5, []),
        ("Job", JOB, "spec.template.spec.nodeSelector", {"a": "b"}, ["spec.template: Invalid value: "]),
        ("Job", SUSPENDED, "spec.template.spec.nodeSelector", {"a": "b"}, []),
        ("Job", SUSPENDED, "spec.template.spec.affinity", {"nodeAffinity": {}}, []),
        ("Job", SUSPENDED, "spec.template.spec.hostname", "h", ["spec.template: Invalid value: "]),
        ("Job", INDEXED, "spec.completions", 5,
         ["spec.completions: Invalid value: 5: can only be modified in tandem with spec.parallelism"]),
        ("Job", JOB, "spec.completions", 5, ["spec.completions: Invalid value: 5: field is immutable"]),
        # A name that was accepted once stays so.
        ("CronJob", changed(CRON, "metadata", {"name": "x" * 53}), "spec.suspend", True, []),
    ],
)  # fmt: skip
def test_changes(kind, document, path, value, expected):
    said(faults_of_change(kind, document, path, value), expected)


HPA = {"spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "maxReplicas": 3}}
CPU = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
POLICY = {"type": "Pods", "value": 1, "periodSeconds": 1}
TARGET = "spec.metrics[0].resource.target"


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("HorizontalPodAutoscaler", HPA, "spec.minReplicas", 0,
         ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]),
        ("HorizontalPodAutoscaler", HPA, "spec.scaleTargetRef.name", "a/b",
         ["spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"]),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics", [{}], ["spec.metrics[0].type: Required value: must specify a metric source type"]),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics", [{"type": "Odd"}],
         ['spec.metrics[0].type: Unsupported value: "Odd": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"']),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics", [{"type": "Resource", "pods": {"metric": {"name": "m"}, "target": {"type": "Value"}}}], [
            "spec.metrics[0].resource: Required value: must populate information for the given metric source",
            "spec.metrics[0].pods: Forbidden: must populate the given metric source only"]),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics", [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Odd"}}}], [
            f'{TARGET}.type: Invalid value: "Odd": must be either Utilization, Value, or AverageValue',
            f"{TARGET}.averageUtilization: Required value: must set either a target raw value or a target utilization"]),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics", [{"type": "ContainerResource", "containerResource": CPU}],
         ["spec.metrics[0].containerResource.container: Required value: must specify a container"]),
        ("HorizontalPodAutoscaler", HPA, "spec.metrics",
         [{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "-1"}}}], [
            'spec.metrics[0].pods.target.averageValue: Invalid value: "-1": must be positive',
            "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue"]),
        ("HorizontalPodAutoscaler", HPA, "spec.behavior", {"scaleUp": {"policies": [POLICY | {"periodSeconds": 1801}]},
                                                           "scaleDown": {"stabilizationWindowSeconds": 3601}}, [
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            "spec.behavior.scaleDown.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"]),
        ("HorizontalPodAutoscaler", HPA, "spec.behavior", {"scaleUp": {"selectPolicy": "Odd"}},
         ['spec.behavior.scaleUp.selectPolicy: Unsupported value: "Odd": supported values: "Disabled", "Max", "Min"']),
        ("PodDisruptionBudget", {"spec": {}}, "spec.minAvailable", "200%",
         ['spec.minAvailable: Invalid value: "200%": must not be greater than 100%']),
        ("PodDisruptionBudget", {"spec": {}}, "spec.unhealthyPodEvictionPolicy", "Odd",
         ['spec.unhealthyPodEvictionPolicy: Unsupported value: "Odd": supported values: "AlwaysAllow", "IfHealthyBudget"']),
    ],
)  # fmt: skip
def test_scaling(kind, document, path, value, expected):
    said(faults_of(kind, document, path, value), expected)


STATUS = OWNER | {"status": {"replicas": 3, "readyReplicas": 2, "availableReplicas": 1}}


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Deployment", STATUS, "status.replicas", 5, []),
        ("Deployment", STATUS, "status.readyReplicas", 4,
         ["status.readyReplicas: Invalid value: 4: cannot be greater than status.replicas"]),
        ("ReplicaSet", STATUS, "status.availableReplicas", 3,
         ["status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas"]),
        ("Deployment", changed(STATUS, "status.collisionCount", 2), "status.collisionCount", 1,
         ["status.collisionCount: Invalid value: 1: cannot be decremented"]),
        ("DaemonSet", OWNER | {"status": {}}, "status.numberReady", -1,
         ["status.numberReady: Invalid value: -1: must be greater than or equal to 0"]),
        ("Namespace", {}, "status", {"phase": "Terminating"},
         ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]),
        ("Service", {"spec": {}}, "status", {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}},
         ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]),
        ("Service", {"spec": {"type": "LoadBalancer"}}, "status", {"loadBalancer": {"ingress": [{"ip": "1.1"}]}},
         ['status.loadBalancer.ingress[0].ip: Invalid value: "1.1": must be a valid IP address']),
        ("Ingress", {"spec": {}}, "status", {"loadBalancer": {"ingress": [{"hostname": "1.1.1.1"}]}},
         ['status.loadBalancer.ingress[0].hostname: Invalid value: "1.1.1.1": must be a DNS name, not an IP address']),
        # What a write to the status changes of the metadata is judged, too.
        ("Deployment", STATUS, "metadata.annotations", {"a b": ""}, ['metadata.annotations: Invalid value: "a b": name part']),
    ],
)  # fmt: skip
def test_statuses(kind, document, path, value, expected):
    row, old = an_object(kind, document)
    _, new = an_object(kind, changed(document, path, value))
    said(texts(faults_on_status(row, old, new)), expected)
