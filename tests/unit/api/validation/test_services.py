"""What is wrong with services, endpoints and kinds of networking, in the real server's words."""

import pytest

from tests.unit.api.validation.objects import changed, faults_of, faults_of_change, said

PORT = {"port": 80}
SERVICE = {"spec": {"ports": [PORT]}}
ADDRESSED = {"spec": {"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": [PORT]}}
HEADLESS = {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
BALANCED = changed(SERVICE, "spec.type", "LoadBalancer")
EXTERNAL = {"spec": {"type": "ExternalName", "externalName": "a.b."}}
NODE = changed(SERVICE, "spec.type", "NodePort")
SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of"
ONLY_BALANCED = "Forbidden: may only be used when `type` is 'LoadBalancer'"


@pytest.mark.parametrize(
    ("document", "path", "value", "expected"),
    [
        (SERVICE, "", None, []),
        (HEADLESS, "", None, []),
        (EXTERNAL, "", None, []),
        (BALANCED, "", None, []),
        (SERVICE, "metadata.name", "1a", ['metadata.name: Invalid value: "1a": a DNS-1035 label must consist of']),
        (SERVICE, "spec.ports", [], ["spec.ports: Required value"]),
        (SERVICE, "spec.type", "Any",
         ['spec.type: Unsupported value: "Any": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"']),
        (HEADLESS, "spec.type", "NodePort",
         ['spec.clusterIPs[0]: Invalid value: "None": may not be set to \'None\' for NodePort services']),
        (SERVICE, "spec.ports", [PORT | {"name": "a"}, PORT | {"name": "a", "protocol": "UDP"}],
         ['spec.ports[1].name: Duplicate value: "a"']),
        (SERVICE, "spec.ports", [PORT | {"name": "a"}, PORT | {"name": "b"}],
         [('spec.ports[1]: Duplicate value: core.ServicePort{Name:"", Protocol:"TCP", AppProtocol:(*string)(nil), Port:80, '
          'TargetPort:intstr.IntOrString{Type:0, IntVal:0, StrVal:""}, NodePort:0}')]),
        (SERVICE, "spec.ports.0.nodePort", 30000,
         ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
        (NODE, "spec.ports", [{"port": 1, "name": "a", "nodePort": 30000}, {"port": 2, "name": "b", "nodePort": 30000}],
         ["spec.ports[1].nodePort: Duplicate value: 30000"]),
        (SERVICE, "spec.ports.0.targetPort", "Web", ['spec.ports[0].targetPort: Invalid value: "Web": must contain only']),
        (SERVICE, "spec.ports.0.port", 0, [
            f"spec.ports[0].{each}: Invalid value: 0: must be between 1 and 65535, inclusive" for each in ("port", "targetPort")]),
        (SERVICE, "spec.ports.0.appProtocol", "a b", ['spec.ports[0].appProtocol: Invalid value: "a b": name part must consist']),
        (SERVICE, "spec.sessionAffinity", "Cookie",
         ['spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"']),
        (changed(SERVICE, "spec.sessionAffinity", "ClientIP"), "spec.sessionAffinityConfig",
         {"clientIP": {"timeoutSeconds": 90000}},
         ["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400"]),
        (ADDRESSED, "spec.clusterIP", "10.96.0.6",
         ['spec.clusterIPs: Invalid value: []string{"10.96.0.5"}: first value must match `clusterIP`']),
        (ADDRESSED, "spec.clusterIPs", ["10.96.0.5", "10.96.0.6"],
         ['spec.clusterIPs: Invalid value: []string{"10.96.0.5", "10.96.0.6"}: may specify no more than one IP for each IP family']),
        (ADDRESSED, "spec.ipFamilies", ["IPv6"],
         ['spec.clusterIPs[0]: Invalid value: "10.96.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`']),
        (SERVICE, "spec.ipFamilies", ["IPv5"],
         ['spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"']),
        (SERVICE, "spec.ipFamilyPolicy", "Any", [('spec.ipFamilyPolicy: Unsupported value: "Any": supported values: '
                                                 '"PreferDualStack", "RequireDualStack", "SingleStack"')]),
        (HEADLESS, "spec.clusterIPs", ["None", "10.96.0.5"], [
            "spec.ports: Required value",
            'spec.clusterIPs: Invalid value: []string{"None", "10.96.0.5"}: \'None\' must be the first and only value']),
        (SERVICE, "spec.externalIPs", ["127.0.0.1", "x"], [
            'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
            'spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
        (SERVICE, "spec.externalTrafficPolicy", "Local",
         ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services']),
        (NODE, "spec.healthCheckNodePort", 30000, [
            ("spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and "
            "`externalTrafficPolicy` is 'Local'")]),
        (SERVICE, "spec.internalTrafficPolicy", "Some",
         ['spec.internalTrafficPolicy: Unsupported value: "Some": supported values: "Cluster", "Local"']),
        (SERVICE, "spec.trafficDistribution", "Some",
         ['spec.trafficDistribution: Unsupported value: "Some": supported values: "PreferClose"']),
        (SERVICE, "spec.loadBalancerSourceRanges", ["10.0.0.0/8"], [f"spec.LoadBalancerSourceRanges: {ONLY_BALANCED}"]),
        (BALANCED, "spec.loadBalancerSourceRanges", ["10.0.0.0"],
         ['spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": must be a valid CIDR value']),
        (SERVICE, "spec.allocateLoadBalancerNodePorts", True, [f"spec.allocateLoadBalancerNodePorts: {ONLY_BALANCED}"]),
        (SERVICE, "spec.loadBalancerClass", "x", [f"spec.loadBalancerClass: {ONLY_BALANCED}"]),
        (EXTERNAL, "spec.externalName", "", ["spec.externalName: Required value"]),
        (EXTERNAL, "spec.clusterIPs", ["10.0.0.1"], ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"]),
    ],
)  # fmt: skip
def test_services(document, path, value, expected):
    said(faults_of("Service", document, path, value), expected)


@pytest.mark.parametrize(
    ("document", "path", "value", "expected"),
    [
        (ADDRESSED, "spec.clusterIPs", ["10.96.0.6"], [
            'spec.clusterIPs: Invalid value: []string{"10.96.0.6"}: first value must match `clusterIP`',
            'spec.clusterIPs[0]: Invalid value: []string{"10.96.0.6"}: may not change once set']),
        (changed(BALANCED, "spec.loadBalancerClass", "a/b"), "spec.loadBalancerClass", "a/c",
         ['spec.loadBalancerClass: Invalid value: "a/c": may not change once set']),
        (changed(ADDRESSED, "spec.ipFamilies", ["IPv4"]), "spec.type", "NodePort", []),
        (changed(SERVICE, "spec.ipFamilies", ["IPv4"]), "spec.ipFamilies", ["IPv6"],
         ['spec.ipFamilies[0]: Invalid value: []string{"IPv6"}: may not change once set']),
        (changed(changed(BALANCED, "spec.externalTrafficPolicy", "Local"), "spec.healthCheckNodePort", 30001),
         "spec.healthCheckNodePort", 30002, ["spec.healthCheckNodePort: Forbidden: field is immutable"]),
    ],
)  # fmt: skip
def test_changes_of_services(document, path, value, expected):
    said(faults_of_change("Service", document, path, value), expected)


SUBSET = {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
PATH = {"path": "/", "pathType": "Prefix", "backend": BACKEND}
INGRESS = {"spec": {"rules": [{"host": "a.b", "http": {"paths": [PATH]}}]}}
AT = "spec.rules[0].http.paths[0]"
CLASS = {"spec": {"controller": "a.b/c"}}
POLICY = {"spec": {"podSelector": {}}}
BLOCK = {"cidr": "10.0.0.0/8"}
SLICE = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}


@pytest.mark.parametrize(
    ("kind", "document", "path", "value", "expected"),
    [
        ("Endpoints", SUBSET, "", None, []),
        ("Endpoints", SUBSET, "subsets.0.addresses.0.ip", "169.254.1.1",
         ['subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range']),
        ("Endpoints", SUBSET, "subsets.0.addresses.0.hostname", "a.b",
         ['subsets[0].addresses[0].hostname: Invalid value: "a.b": must not contain dots']),
        ("Endpoints", SUBSET, "subsets.0.addresses.0.nodeName", "A", ['subsets[0].addresses[0].nodeName: Invalid value: "A"']),
        ("Endpoints", SUBSET, "subsets.0.ports.0.protocol", "HTTP",
         ['subsets[0].ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"']),
        ("Ingress", INGRESS, "", None, []),
        ("Ingress", INGRESS, "spec.rules.0.host", "1.2.3.4",
         ['spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address']),
        ("Ingress", INGRESS, "spec.rules.0.host", "*.a.b", []),
        ("Ingress", INGRESS, "spec.rules.0.host", "a.*", ['spec.rules[0].host: Invalid value: "a.*": a wildcard DNS-1123']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.path", "/a//b/..", [
            f'{AT}.path: Invalid value: "/a//b/..": must not contain \'//\'',
            f'{AT}.path: Invalid value: "/a//b/..": cannot end with \'/..\'']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.backend", {}, [f'{AT}.backend: Invalid value: "": resource or service']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.backend.service.name", "1web",
         [f'{AT}.backend.service.name: Invalid value: "1web": a DNS-1035 label']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.backend.service.port", {},
         [f"{AT}.backend: Required value: port name or number is required"]),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.backend.service.port", {"name": "a", "number": 1},
         [f'{AT}.backend: Invalid value: "": cannot set both port name & port number']),
        ("Ingress", INGRESS, "spec.rules.0.http.paths.0.backend", {"resource": {"kind": "a/b", "name": "x"}},
         [f'{AT}.backend.resource.kind: Invalid value: "a/b": may not contain \'/\'']),
        ("Ingress", INGRESS, "spec.tls", [{"hosts": ["A"], "secretName": "S"}],
         ['spec.tls[0].hosts[0]: Invalid value: "A"', 'spec.tls[0].secretName: Invalid value: "S"']),
        ("Ingress", changed(INGRESS, "metadata", {"annotations": {"kubernetes.io/ingress.class": "x"}}),
         "spec.ingressClassName", "y",
         ['annotations.kubernetes.io/ingress.class: Invalid value: "x": must match `ingressClassName` when both are']),
        ("IngressClass", CLASS, "spec.controller", "a.b", ['spec.controller: Invalid value: "a.b": must be a domain-prefixed path']),
        ("IngressClass", CLASS, "spec.controller", "", ["spec.controller: Required value"]),
        ("IngressClass", CLASS, "spec.parameters", {"kind": "K", "name": "n", "scope": "Namespace"},
         ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]),
        ("IngressClass", CLASS, "spec.parameters", {"kind": "K", "name": "n", "namespace": "x"},
         ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]),
        ("NetworkPolicy", POLICY, "spec.ingress", [{"from": [{}]}], ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
        ("NetworkPolicy", POLICY, "spec.ingress", [{"from": [{"ipBlock": BLOCK, "podSelector": {}}]}],
         ["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"]),
        ("NetworkPolicy", POLICY, "spec.egress", [{"to": [{"ipBlock": BLOCK | {"except": ["10.0.0.0/8"]}}]}],
         ['spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`']),
        ("NetworkPolicy", POLICY, "spec.egress", [{"to": [{"ipBlock": BLOCK | {"except": ["10.1.0.0/16"]}}]}], []),
        ("NetworkPolicy", POLICY, "spec.ingress", [{"ports": [{"port": "web", "endPort": 5}]}],
         ["spec.ingress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is non-numeric"]),
        ("NetworkPolicy", POLICY, "spec.ingress", [{"ports": [{"endPort": 5}]}],
         ["spec.ingress[0].ports[0].endPort: Invalid value: 5: may not be specified when `port` is not specified"]),
        ("NetworkPolicy", POLICY, "spec.policyTypes", ["Both"],
         ['spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress"']),
        ("EndpointSlice", SLICE, "endpoints.0.addresses", ["::1"],
         ['endpoints[0].addresses[0]: Invalid value: "::1": must be a valid IPv4 address']),
        ("EndpointSlice", SLICE, "ports", [{"name": "a"}, {"name": "a"}], ['ports[1].name: Duplicate value: "a"']),
        ("EndpointSlice", SLICE, "addressType", "", ["addressType: Required value"]),
    ],
)  # fmt: skip
def test_networking(kind, document, path, value, expected):
    said(faults_of(kind, document, path, value), expected)
