"""Which number each field bears in ``application/vnd.kubernetes.protobuf``: facts of the wire, a row a message.

A row lists JSON names in the order of their numbers, from 1; ``7:name`` goes on at 7. A name after ``*`` is a message
whose fields lie flat in the JSON object (Go's embedded structs); it has a row of its own. What kubectl and client-go
send to the kinds that we serve was checked against their own JSON (``tests/unit/api/test_protobuf.py``).
"""

_ROWS = """
ObjectMeta: name generateName namespace selfLink uid resourceVersion generation creationTimestamp deletionTimestamp
  deletionGracePeriodSeconds labels annotations ownerReferences finalizers 17:managedFields
OwnerReference: kind 3:name uid apiVersion controller blockOwnerDeletion
ManagedFieldsEntry: manager operation apiVersion time 6:fieldsType fieldsV1 subresource
LabelSelector: matchLabels matchExpressions
LabelSelectorRequirement: key operator values
DeleteOptions: gracePeriodSeconds preconditions orphanDependents propagationPolicy dryRun
Preconditions: uid resourceVersion

Namespace: metadata spec status
NamespaceSpec: finalizers
NamespaceStatus: phase conditions
NamespaceCondition: type status 4:lastTransitionTime reason message
ConfigMap: metadata data binaryData immutable
Secret: metadata data type stringData immutable
ServiceAccount: metadata secrets imagePullSecrets automountServiceAccountToken
ObjectReference: kind namespace name uid apiVersion resourceVersion fieldPath
LocalObjectReference: name
TypedLocalObjectReference: apiGroup kind name
Binding: metadata target
Event: metadata involvedObject reason message source firstTimestamp lastTimestamp count type eventTime series action
  related reportingComponent reportingInstance
EventSource: component host
EventSeries: count lastObservedTime
Lease: metadata spec
LeaseSpec: holderIdentity leaseDurationSeconds acquireTime renewTime leaseTransitions strategy preferredHolder
Scale: metadata spec status
ScaleSpec: replicas
ScaleStatus: replicas selector

Service: metadata spec status
ServiceSpec: ports selector clusterIP type externalIPs 7:sessionAffinity loadBalancerIP loadBalancerSourceRanges
  externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses sessionAffinityConfig
  17:ipFamilyPolicy clusterIPs ipFamilies allocateLoadBalancerNodePorts loadBalancerClass internalTrafficPolicy
  trafficDistribution
ServicePort: name protocol port targetPort nodePort appProtocol
ServiceStatus: loadBalancer conditions
LoadBalancerStatus: ingress
LoadBalancerIngress: ip hostname ipMode ports
SessionAffinityConfig: clientIP
ClientIPConfig: timeoutSeconds
Endpoints: metadata subsets
EndpointSubset: addresses notReadyAddresses ports
EndpointAddress: ip targetRef hostname nodeName
EndpointPort: name port protocol appProtocol

Pod: metadata spec status
PodTemplateSpec: metadata spec
PodSpec: volumes containers restartPolicy terminationGracePeriodSeconds activeDeadlineSeconds dnsPolicy nodeSelector
  serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext imagePullSecrets hostname
  subdomain affinity schedulerName initContainers automountServiceAccountToken tolerations hostAliases
  priorityClassName priority dnsConfig shareProcessNamespace readinessGates runtimeClassName enableServiceLinks
  preemptionPolicy overhead topologySpreadConstraints ephemeralContainers setHostnameAsFQDN os hostUsers
  schedulingGates resourceClaims resources
Container: name image command args workingDir ports env resources volumeMounts livenessProbe readinessProbe lifecycle
  terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom terminationMessagePolicy
  volumeDevices startupProbe resizePolicy restartPolicy
EphemeralContainer: *EphemeralContainerCommon targetContainerName
EphemeralContainerCommon: name image command args workingDir ports env resources volumeMounts livenessProbe
  readinessProbe lifecycle terminationMessagePath imagePullPolicy securityContext stdin stdinOnce tty envFrom
  terminationMessagePolicy volumeDevices startupProbe resizePolicy restartPolicy
ContainerPort: name hostPort containerPort protocol hostIP
ContainerResizePolicy: resourceName restartPolicy
EnvVar: name value valueFrom
EnvVarSource: fieldRef resourceFieldRef configMapKeyRef secretKeyRef
EnvFromSource: prefix configMapRef secretRef
ObjectFieldSelector: apiVersion fieldPath
ResourceFieldSelector: containerName resource divisor
ConfigMapKeySelector: *LocalObjectReference key optional
SecretKeySelector: *LocalObjectReference key optional
ConfigMapEnvSource: *LocalObjectReference optional
SecretEnvSource: *LocalObjectReference optional
ResourceRequirements: limits requests claims
VolumeResourceRequirements: limits requests
VolumeMount: name readOnly mountPath subPath mountPropagation subPathExpr recursiveReadOnly
VolumeDevice: name devicePath
Probe: *ProbeHandler initialDelaySeconds timeoutSeconds periodSeconds successThreshold failureThreshold
  terminationGracePeriodSeconds
ProbeHandler: exec httpGet tcpSocket grpc
Lifecycle: postStart preStop stopSignal
LifecycleHandler: exec httpGet tcpSocket sleep
SleepAction: seconds
ExecAction: command
HTTPGetAction: path port host scheme httpHeaders
HTTPHeader: name value
TCPSocketAction: port host
GRPCAction: port service
SecurityContext: capabilities privileged seLinuxOptions runAsUser runAsNonRoot readOnlyRootFilesystem
  allowPrivilegeEscalation runAsGroup procMount windowsOptions seccompProfile appArmorProfile
Capabilities: add drop
PodSecurityContext: seLinuxOptions runAsUser runAsNonRoot supplementalGroups fsGroup runAsGroup sysctls windowsOptions
  fsGroupChangePolicy seccompProfile appArmorProfile supplementalGroupsPolicy
SELinuxOptions: user role type level
SeccompProfile: type localhostProfile
AppArmorProfile: type localhostProfile
Sysctl: name value
Toleration: key operator value effect tolerationSeconds
HostAlias: ip hostnames
PodReadinessGate: conditionType
PodSchedulingGate: name
PodOS: name
PodDNSConfig: nameservers searches options
PodDNSConfigOption: name value
Affinity: nodeAffinity podAffinity podAntiAffinity
NodeAffinity: requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution
NodeSelector: nodeSelectorTerms
NodeSelectorTerm: matchExpressions matchFields
NodeSelectorRequirement: key operator values
PreferredSchedulingTerm: weight preference
PodAffinity: requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution
PodAntiAffinity: requiredDuringSchedulingIgnoredDuringExecution preferredDuringSchedulingIgnoredDuringExecution
PodAffinityTerm: labelSelector namespaces topologyKey namespaceSelector matchLabelKeys mismatchLabelKeys
WeightedPodAffinityTerm: weight podAffinityTerm
TopologySpreadConstraint: maxSkew topologyKey whenUnsatisfiable labelSelector minDomains nodeAffinityPolicy
  nodeTaintsPolicy matchLabelKeys
Volume: name *VolumeSource
VolumeSource: hostPath emptyDir 6:secret nfs 10:persistentVolumeClaim 16:downwardAPI 19:configMap 26:projected 28:csi
  ephemeral image
HostPathVolumeSource: path type
EmptyDirVolumeSource: medium sizeLimit
SecretVolumeSource: secretName items defaultMode optional
ConfigMapVolumeSource: *LocalObjectReference items defaultMode optional
KeyToPath: key path mode
NFSVolumeSource: server path readOnly
PersistentVolumeClaimVolumeSource: claimName readOnly
DownwardAPIVolumeSource: items defaultMode
DownwardAPIVolumeFile: path fieldRef resourceFieldRef mode
ProjectedVolumeSource: sources defaultMode
VolumeProjection: secret downwardAPI configMap serviceAccountToken
SecretProjection: *LocalObjectReference items optional
ConfigMapProjection: *LocalObjectReference items optional
DownwardAPIProjection: items
ServiceAccountTokenProjection: audience expirationSeconds path
PersistentVolumeClaim: metadata spec status
PersistentVolumeClaimSpec: accessModes resources volumeName selector storageClassName volumeMode dataSource
  dataSourceRef volumeAttributesClassName
PersistentVolumeClaimStatus: phase accessModes capacity conditions

ReplicationController: metadata spec status
ReplicationControllerSpec: replicas selector template minReadySeconds
Deployment: metadata spec status
DeploymentSpec: replicas selector template strategy minReadySeconds revisionHistoryLimit paused
  9:progressDeadlineSeconds
DeploymentStrategy: type rollingUpdate
RollingUpdateDeployment: maxUnavailable maxSurge
DeploymentStatus: observedGeneration replicas updatedReplicas availableReplicas unavailableReplicas conditions
  readyReplicas collisionCount terminatingReplicas
DeploymentCondition: type status 4:reason message lastUpdateTime lastTransitionTime
ReplicaSet: metadata spec status
ReplicaSetSpec: replicas selector template minReadySeconds
StatefulSet: metadata spec status
StatefulSetSpec: replicas selector template volumeClaimTemplates serviceName podManagementPolicy updateStrategy
  revisionHistoryLimit minReadySeconds persistentVolumeClaimRetentionPolicy ordinals
StatefulSetUpdateStrategy: type rollingUpdate
RollingUpdateStatefulSetStrategy: partition maxUnavailable
DaemonSet: metadata spec status
DaemonSetSpec: selector template updateStrategy minReadySeconds 6:revisionHistoryLimit
DaemonSetUpdateStrategy: type rollingUpdate
RollingUpdateDaemonSet: maxUnavailable maxSurge
Job: metadata spec status
JobSpec: parallelism completions activeDeadlineSeconds selector manualSelector template backoffLimit
  ttlSecondsAfterFinished completionMode suspend podFailurePolicy backoffLimitPerIndex maxFailedIndexes
  podReplacementPolicy managedBy successPolicy
CronJob: metadata spec status
CronJobSpec: schedule startingDeadlineSeconds concurrencyPolicy suspend jobTemplate successfulJobsHistoryLimit
  failedJobsHistoryLimit timeZone
JobTemplateSpec: metadata spec
JobStatus: conditions startTime completionTime active succeeded failed completedIndexes uncountedTerminatedPods ready
  terminating failedIndexes
JobCondition: type status lastProbeTime lastTransitionTime reason message
UncountedTerminatedPods: succeeded failed
CronJobStatus: active 4:lastScheduleTime lastSuccessfulTime
ReplicationControllerStatus: replicas fullyLabeledReplicas observedGeneration readyReplicas availableReplicas conditions
ReplicaSetStatus: replicas fullyLabeledReplicas observedGeneration readyReplicas availableReplicas conditions
  terminatingReplicas
StatefulSetStatus: observedGeneration replicas readyReplicas currentReplicas updatedReplicas currentRevision
  updateRevision 9:collisionCount conditions availableReplicas
HorizontalPodAutoscalerStatus: observedGeneration lastScaleTime currentReplicas desiredReplicas
  currentCPUUtilizationPercentage
HorizontalPodAutoscalerStatusV2: observedGeneration lastScaleTime currentReplicas desiredReplicas currentMetrics
  conditions
PodDisruptionBudgetStatus: observedGeneration disruptedPods disruptionsAllowed currentHealthy desiredHealthy
  expectedPods conditions
ResourceQuotaStatus: hard used
IngressStatus: loadBalancer
IngressLoadBalancerStatus: ingress

HorizontalPodAutoscalerV2: metadata spec status
HorizontalPodAutoscalerSpecV2: scaleTargetRef minReplicas maxReplicas metrics behavior
CrossVersionObjectReferenceV2: kind name apiVersion
MetricSpec: type object pods resource external containerResource
ResourceMetricSource: name target
MetricTarget: type value averageValue averageUtilization
HorizontalPodAutoscaler: metadata spec status
HorizontalPodAutoscalerSpec: scaleTargetRef minReplicas maxReplicas targetCPUUtilizationPercentage
CrossVersionObjectReference: kind name apiVersion
Eviction: metadata deleteOptions
PodDisruptionBudget: metadata spec status
PodDisruptionBudgetSpec: minAvailable selector maxUnavailable unhealthyPodEvictionPolicy
ResourceQuota: metadata spec status
ResourceQuotaSpec: hard scopes scopeSelector
ScopeSelector: matchExpressions
ScopedResourceSelectorRequirement: scopeName operator values
PriorityClass: metadata value globalDefault description preemptionPolicy
Ingress: metadata spec status
IngressSpec: defaultBackend tls rules ingressClassName
IngressBackend: 3:resource service
IngressServiceBackend: name port
ServiceBackendPort: name number
IngressTLS: hosts secretName
IngressRule: host *IngressRuleValue
IngressRuleValue: http
HTTPIngressRuleValue: paths
HTTPIngressPath: path backend pathType
Role: metadata rules
ClusterRole: metadata rules aggregationRule
AggregationRule: clusterRoleSelectors
PolicyRule: verbs apiGroups resources resourceNames nonResourceURLs
RoleBinding: metadata subjects roleRef
ClusterRoleBinding: metadata subjects roleRef
Subject: kind apiGroup name namespace
RoleRef: apiGroup kind name
CertificateSigningRequest: metadata spec status
CertificateSigningRequestSpec: request username uid groups usages extra signerName expirationSeconds
CertificateSigningRequestStatus: conditions certificate
CertificateSigningRequestCondition: type reason message lastUpdateTime lastTransitionTime status
TokenRequest: metadata spec status
TokenRequestSpec: audiences 3:boundObjectRef expirationSeconds
TokenRequestStatus: token expirationTimestamp
BoundObjectReference: kind apiVersion name uid
TokenReview: metadata spec status
TokenReviewSpec: token audiences
TokenReviewStatus: authenticated user error audiences
SelfSubjectReview: metadata status
SelfSubjectReviewStatus: userInfo
UserInfo: username uid groups
SelfSubjectAccessReview: metadata spec status
SelfSubjectAccessReviewSpec: resourceAttributes nonResourceAttributes
SubjectAccessReview: metadata spec status
LocalSubjectAccessReview: metadata spec status
SubjectAccessReviewSpec: resourceAttributes nonResourceAttributes user groups extra uid
ResourceAttributes: namespace verb group version resource subresource name
NonResourceAttributes: path verb
SubjectAccessReviewStatus: allowed reason evaluationError denied
SelfSubjectRulesReview: metadata spec status
SelfSubjectRulesReviewSpec: namespace
SubjectRulesReviewStatus: resourceRules nonResourceRules incomplete evaluationError
LimitRange: metadata spec
LimitRangeSpec: limits
LimitRangeItem: type max min default defaultRequest maxLimitRequestRatio
"""

# Fields that JSON writes as base64 and the wire as bytes.
BYTES = frozenset({
    ("Secret", "data"), ("ConfigMap", "binaryData"), ("CertificateSigningRequestSpec", "request"),
    ("CertificateSigningRequestStatus", "certificate"),
})  # fmt: skip

# The wire writes zero numbers, false and empty texts of every field that Go does not hold by pointer; JSON leaves them
# out. In these fields, held by pointer, a zero was written because somebody meant it.
MEANT = frozenset(
    """
    replicas terminationGracePeriodSeconds gracePeriodSeconds parallelism completions backoffLimit minReplicas
    ttlSecondsAfterFinished activeDeadlineSeconds expirationSeconds tolerationSeconds revisionHistoryLimit
    progressDeadlineSeconds runAsUser runAsGroup fsGroup defaultMode mode partition successfulJobsHistoryLimit
    failedJobsHistoryLimit startingDeadlineSeconds automountServiceAccountToken enableServiceLinks privileged
    runAsNonRoot readOnlyRootFilesystem allowPrivilegeEscalation controller blockOwnerDeletion optional suspend
    immutable shareProcessNamespace setHostnameAsFQDN hostUsers orphanDependents allocateLoadBalancerNodePorts
    manualSelector leaseTransitions leaseDurationSeconds averageUtilization storageClassName deletionGracePeriodSeconds
    backoffLimitPerIndex maxFailedIndexes priority
    """.split()
)


def _parse(rows: str) -> dict[str, dict[int, str]]:
    table: dict[str, dict[int, str]] = {}
    for row in rows.replace("\n  ", " ").split("\n"):
        message, _, names = row.partition(": ")
        number = 0
        for word in names.split():
            jump, colon, name = word.rpartition(":")
            number = int(jump) if colon else number + 1
            table.setdefault(message, {})[number] = name
    return table


NUMBERS = _parse(_ROWS)  # message -> number -> JSON name, or "*" and the message that lies flat
