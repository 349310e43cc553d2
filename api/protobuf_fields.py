"""Which number each field bears in ``application/vnd.kubernetes.protobuf``: facts of the wire, a row a message.

A row lists JSON names in the order of their numbers, from 1; ``7:name`` goes on at 7. Where structs of two modules
share a name, one row names its module. A name after ``*`` is a message
whose fields lie flat in the JSON object (Go's embedded structs); it has a row of its own. What kubectl and client-go
send to the kinds that we serve was checked against their own JSON (``tests/unit/api/test_protobuf.py``); the rows
agree with the published .proto files as ``tools/check_protobuf_fields.py`` compares them.
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
VolumeSource: hostPath emptyDir gcePersistentDisk awsElasticBlockStore gitRepo secret nfs iscsi glusterfs
  persistentVolumeClaim rbd flexVolume cinder cephfs flocker downwardAPI fc azureFile 19:configMap vsphereVolume quobyte
  azureDisk photonPersistentDisk portworxVolume scaleIO projected storageos csi ephemeral image
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
SecretProjection: *LocalObjectReference items 4:optional
ConfigMapProjection: *LocalObjectReference items 4:optional
DownwardAPIProjection: items
ServiceAccountTokenProjection: audience expirationSeconds path
PersistentVolumeClaim: metadata spec status
PersistentVolumeClaimSpec: accessModes resources volumeName selector storageClassName volumeMode dataSource
  dataSourceRef volumeAttributesClassName
PersistentVolumeClaimStatus: phase accessModes capacity conditions allocatedResources 7:allocatedResourceStatuses
  currentVolumeAttributesClassName modifyVolumeStatus

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
  failedIndexes terminating
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
MetricSpec: type object pods resource external 7:containerResource
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
UserInfo: username uid groups extra
SelfSubjectAccessReview: metadata spec status
SelfSubjectAccessReviewSpec: resourceAttributes nonResourceAttributes
SubjectAccessReview: metadata spec status
LocalSubjectAccessReview: metadata spec status
SubjectAccessReviewSpec: resourceAttributes nonResourceAttributes user groups extra uid
ResourceAttributes: namespace verb group version resource subresource name fieldSelector labelSelector
NonResourceAttributes: path verb
SubjectAccessReviewStatus: allowed reason evaluationError denied
SelfSubjectRulesReview: metadata spec status
SelfSubjectRulesReviewSpec: namespace

FileKeySelector: volumeName path key optional
ResourceClaim: name request
ContainerRestartRule: action exitCodes
ContainerRestartRuleOnExitCodes: operator values
WindowsSecurityContextOptions: gmsaCredentialSpecName gmsaCredentialSpec runAsUserName hostProcess
EvictionResponder: name priority
PodResourceClaim: name 3:resourceClaimName resourceClaimTemplateName
PodSchedulingGroup: podGroupName
AWSElasticBlockStoreVolumeSource: volumeID fsType partition readOnly
AzureDiskVolumeSource: diskName diskURI cachingMode fsType readOnly kind
AzureFileVolumeSource: secretName shareName readOnly
CephFSVolumeSource: monitors path user secretFile secretRef readOnly
CinderVolumeSource: volumeID fsType readOnly secretRef
CSIVolumeSource: driver readOnly fsType volumeAttributes nodePublishSecretRef
EphemeralVolumeSource: volumeClaimTemplate
PersistentVolumeClaimTemplate: metadata spec
TypedObjectReference: apiGroup kind name namespace
FCVolumeSource: targetWWNs lun fsType readOnly wwids
FlexVolumeSource: driver fsType secretRef readOnly options
FlockerVolumeSource: datasetName datasetUUID
GCEPersistentDiskVolumeSource: pdName fsType partition readOnly
GitRepoVolumeSource: repository revision directory
GlusterfsVolumeSource: endpoints path readOnly
ImageVolumeSource: reference pullPolicy
ISCSIVolumeSource: targetPortal iqn lun iscsiInterface fsType readOnly portals chapAuthDiscovery 10:secretRef
  chapAuthSession initiatorName
PhotonPersistentDiskVolumeSource: pdID fsType
PortworxVolumeSource: volumeID fsType readOnly
ClusterTrustBundleProjection: name signerName labelSelector path optional user
PodCertificateProjection: signerName keyType maxExpirationSeconds credentialBundlePath keyPath certificateChainPath
  userAnnotations user
QuobyteVolumeSource: registry volume readOnly user group tenant
RBDVolumeSource: monitors image fsType pool user keyring secretRef readOnly
ScaleIOVolumeSource: gateway system secretRef sslEnabled protectionDomain storagePool storageMode volumeName fsType
  readOnly
StorageOSVolumeSource: volumeName volumeNamespace fsType readOnly secretRef
VsphereVirtualDiskVolumeSource: volumePath fsType storagePolicyName storagePolicyID
PodStatus: phase conditions message reason hostIP podIP startTime containerStatuses qosClass initContainerStatuses
  nominatedNodeName podIPs ephemeralContainerStatuses resize resourceClaimStatuses hostIPs observedGeneration
  extendedResourceClaimStatus allocatedResources resources nodeAllocatableResourceClaimStatuses volumeHealth
PodCondition: type status lastProbeTime lastTransitionTime reason message observedGeneration
ContainerStatus: name state lastState ready restartCount image imageID containerID started allocatedResources
  resources volumeMounts user allocatedResourcesStatus stopSignal
ResourceStatus: name resources
ResourceHealth: resourceID health 6:message
ContainerState: waiting running terminated
ContainerStateRunning: startedAt
ContainerStateTerminated: exitCode signal reason message startedAt finishedAt containerID
ContainerStateWaiting: reason message
ContainerUser: linux
LinuxContainerUser: uid gid supplementalGroups
VolumeMountStatus: name mountPath readOnly recursiveReadOnly volumeStatus
VolumeStatus: image
ImageVolumeStatus: imageRef
PodExtendedResourceClaimStatus: requestMappings resourceClaimName
ContainerExtendedResourceRequest: containerName resourceName requestName
HostIP: ip
NodeAllocatableResourceClaimStatus: resourceClaimName containers 4:mapping overhead
NodeAllocatableMappedResources: name quantity
NodeAllocatableOverheadResources: name perPod perContainer
PodIP: ip
PodResourceClaimStatus: name resourceClaimName
PodVolumeHealth: name healthConditions lastTransitionTime
VolumeHealthCondition: status reason message
Node: metadata spec status
NodeSpec: podCIDR externalID providerID unschedulable taints configSource podCIDRs podPreemptionPolicy
NodeConfigSource: 2:configMap
ConfigMapNodeConfigSource: namespace name uid resourceVersion kubeletConfigKey
NodePodPreemptionPolicy: disableResizePreemption
Taint: key value effect timeAdded
NodeStatus: capacity allocatable phase conditions addresses daemonEndpoints nodeInfo images volumesInUse
  volumesAttached config runtimeHandlers features declaredFeatures
NodeAddress: type address
NodeCondition: type status lastHeartbeatTime lastTransitionTime reason message
NodeConfigStatus: assigned active lastKnownGood error
NodeDaemonEndpoints: kubeletEndpoint
DaemonEndpoint: Port
NodeFeatures: supplementalGroupsPolicy
ContainerImage: names sizeBytes
NodeSystemInfo: machineID systemUUID bootID kernelVersion osImage containerRuntimeVersion kubeletVersion
  kubeProxyVersion operatingSystem architecture swap
NodeSwapStatus: capacity
NodeRuntimeHandler: name features
NodeRuntimeHandlerFeatures: recursiveReadOnlyMounts userNamespaces
AttachedVolume: name devicePath
PortStatus: port protocol error
ReplicationControllerCondition: type status lastTransitionTime reason message
PodTemplate: metadata template
ComponentStatus: metadata conditions
ComponentCondition: type status message error
LimitRange: metadata spec
LimitRangeSpec: limits
LimitRangeItem: type max min default defaultRequest maxLimitRequestRatio
PersistentVolume: metadata spec status
PersistentVolumeSpec: capacity *PersistentVolumeSource accessModes claimRef persistentVolumeReclaimPolicy
  storageClassName mountOptions volumeMode nodeAffinity volumeAttributesClassName
PersistentVolumeSource: gcePersistentDisk awsElasticBlockStore hostPath glusterfs nfs rbd iscsi cinder cephfs fc
  flocker flexVolume azureFile vsphereVolume quobyte azureDisk photonPersistentDisk portworxVolume scaleIO local
  storageos csi
AzureFilePersistentVolumeSource: secretName shareName readOnly secretNamespace
CephFSPersistentVolumeSource: monitors path user secretFile secretRef readOnly
SecretReference: name namespace
CinderPersistentVolumeSource: volumeID fsType readOnly secretRef
CSIPersistentVolumeSource: driver volumeHandle readOnly fsType volumeAttributes controllerPublishSecretRef
  nodeStageSecretRef nodePublishSecretRef controllerExpandSecretRef nodeExpandSecretRef
FlexPersistentVolumeSource: driver fsType secretRef readOnly options
GlusterfsPersistentVolumeSource: endpoints path readOnly endpointsNamespace
ISCSIPersistentVolumeSource: targetPortal iqn lun iscsiInterface fsType readOnly portals chapAuthDiscovery
  10:secretRef chapAuthSession initiatorName
LocalVolumeSource: path fsType
VolumeNodeAffinity: required
RBDPersistentVolumeSource: monitors image fsType pool user keyring secretRef readOnly
ScaleIOPersistentVolumeSource: gateway system secretRef sslEnabled protectionDomain storagePool storageMode
  volumeName fsType readOnly
StorageOSPersistentVolumeSource: volumeName volumeNamespace fsType readOnly secretRef
PersistentVolumeStatus: phase message reason lastPhaseTransitionTime
PersistentVolumeClaimCondition: type status lastProbeTime lastTransitionTime reason message
VolumeHealthStatus: healthConditions lastTransitionTime
ModifyVolumeStatus: targetVolumeAttributesClassName status
ReplicaSetCondition: type status lastTransitionTime reason message
StatefulSetOrdinals: start
StatefulSetPersistentVolumeClaimRetentionPolicy: whenDeleted whenScaled
StatefulSetCondition: type status lastTransitionTime reason message
DaemonSetStatus: currentNumberScheduled numberMisscheduled desiredNumberScheduled numberReady observedGeneration
  updatedNumberScheduled numberAvailable numberUnavailable collisionCount conditions
DaemonSetCondition: type status lastTransitionTime reason message
ControllerRevision: metadata data revision
PodFailurePolicy: rules
PodFailurePolicyRule: action onExitCodes onPodConditions
PodFailurePolicyOnExitCodesRequirement: containerName operator values
PodFailurePolicyOnPodConditionsPattern: type status
JobSchedulingConfiguration: schedulingPolicy schedulingConstraints disruptionMode resourceClaims
SuccessPolicy: rules
SuccessPolicyRule: succeededIndexes succeededCount
HorizontalPodAutoscalerBehavior: scaleUp scaleDown
HPAScalingRules: selectPolicy policies stabilizationWindowSeconds tolerance
HPAScalingPolicy: type value periodSeconds
ContainerResourceMetricSource: name target container
ExternalMetricSource: metric target
PodsMetricSource: metric target
MetricIdentifier: name selector
ObjectMetricSource: describedObject target metric
HorizontalPodAutoscalerCondition: type status lastTransitionTime reason message observedGeneration
MetricStatus: type object pods resource external 7:containerResource
ContainerResourceMetricStatus: name current container
ExternalMetricStatus: metric current
ObjectMetricStatus: metric current describedObject
PodsMetricStatus: metric current
MetricValueStatus: value averageValue averageUtilization
ResourceMetricStatus: name current
IngressLoadBalancerIngress: ip hostname 4:ports
IngressPortStatus: port protocol error
IngressClass: metadata spec
IngressClassSpec: controller parameters
IngressClassParametersReference: apiGroup kind name scope namespace
NetworkPolicy: metadata spec
NetworkPolicySpec: podSelector ingress egress policyTypes
NetworkPolicyEgressRule: ports to
NetworkPolicyPort: protocol port endPort
NetworkPolicyPeer: podSelector namespaceSelector ipBlock
IPBlock: cidr except
NetworkPolicyIngressRule: ports from
EndpointSlice: metadata endpoints ports addressType
Endpoint: addresses conditions hostname targetRef deprecatedTopology nodeName zone hints
EndpointConditions: ready serving terminating
EndpointHints: forZones forNodes
ForNode: name
ForZone: name
StorageClass: metadata provisioner parameters reclaimPolicy mountOptions allowVolumeExpansion volumeBindingMode
  allowedTopologies
VolumeAttachment: metadata spec status
VolumeAttachmentSpec: attacher source nodeName
VolumeAttachmentSource: persistentVolumeName inlineVolumeSpec
VolumeAttachmentStatus: attached attachmentMetadata attachError detachError
VolumeError: time message errorCode
CSIDriver: metadata spec
CSIDriverSpec: attachRequired podInfoOnMount volumeLifecycleModes storageCapacity fsGroupPolicy tokenRequests
  requiresRepublish seLinuxMount nodeAllocatableUpdatePeriodSeconds serviceAccountTokenInSecrets
  preventPodSchedulingIfMissing
CSINode: metadata spec status
CSINodeSpec: drivers
CSINodeDriver: name nodeID topologyKeys allocatable
VolumeNodeResources: count
CSINodeStatus: storageHealth
StorageHealth: name healthConditions
StorageHealthCondition: status reason message accessMode volumeMode lastTransitionTime
CSIStorageCapacity: metadata nodeTopology storageClassName capacity maximumVolumeSize
RuntimeClass: metadata handler overhead scheduling
Overhead: podFixed
Scheduling: nodeSelector tolerations
FieldSelectorAttributes: rawSelector requirements
LabelSelectorAttributes: rawSelector requirements
SubjectRulesReviewStatus: resourceRules nonResourceRules incomplete evaluationError
NonResourceRule: verbs nonResourceURLs
ResourceRule: verbs apiGroups resources resourceNames

Condition: type status observedGeneration lastTransitionTime reason message
TopologySelectorTerm: matchLabelExpressions
TopologySelectorLabelRequirement: key values
FieldSelectorRequirement: key operator values
discovery.EndpointPort: name protocol port appProtocol
events.Event: metadata eventTime series reportingController reportingInstance action reason regarding related note type
  deprecatedSource deprecatedFirstTimestamp deprecatedLastTimestamp deprecatedCount
storage.TokenRequest: audience expirationSeconds
"""

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
