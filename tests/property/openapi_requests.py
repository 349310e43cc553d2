"""Draws requests from a published OpenAPI document: mostly what it allows, now and then something else.

A document is all that is known of the server: a path, a parameter or a field that it does not publish is not tried.
"""

import json
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

JSON = "application/json"
_METHODS = ("get", "put", "post", "patch", "delete")
_OFTEN = {"post": 6, "put": 3, "patch": 3}  # the others need what these make
_NAMES = (
    "a",
    "a",
    "a",
    "a",
    "b",
    "b",
    "as.example.com",
    "default",
    "kube-system",
    "a.example.com",
    "A",
    "x" * 300,
    "..",
    "system:node:a",
)
_WORDS = (
    "", "a", "b", "web", "a.b", "a-", "10.0.0.1", "10.96.0.7", "127.0.0.1", "10.0.0.0/8", "::1", "50%", "*", "* * * * *", "Always", "RollingUpdate",
    "OnDelete", "In", "Exists", "ClusterIP", "NodePort", "ExternalName", "None", "TCP", "IPv4", "Prefix", "/x", "..", "system-x", "Container",
    "ReadWriteOnce", "Utilization", "Resource", "storage", "cpu", "v1", "ServiceAccount", "User", "rbac.authorization.k8s.io", "ClusterRole", "Node",
    "Pod", "apps/v1", "Deployment", "Orphan", "Foreground", "NoSchedule", "kubernetes.io/tls", "kubernetes.io/kube-apiserver-client", "BestEffort",
    "self.a > 1", "{.spec.x}", "object", "Namespaced", "\u00e9", "\u0000", "x" * 300,
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 5, 80, 30001, 65536, 2**31, 2**63, 10**25)
_ODD = (None, True, 0, -1, 1.5, "", "a", [], {}, [None], {"": None}, [[]], {"a": {"b": []}})
_VALUES = (
    "",
    "0",
    "1",
    "-1",
    "true",
    "x",
    "!",
    "a=b",
    "a in (b)",
    "metadata.name=a",
    "All",
    "9" * 20,
    "\u0000",
    "Background",
    "Strict",
    "Ignore",
    "Warn",
)
_MEDIA = (JSON, "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", "")
# Who may do everything, who may do next to nothing, a node's agent, nobody that is known.
_USERS = (*["admin"] * 30, "alice", "node", "node", "stranger")
_HEADERS = (
    "Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-a%2Fb", "Impersonate-Extra-%ff", "Accept",
    "Accept-Encoding", "Content-Encoding", "Content-Type", "If-None-Match", "User-Agent", "Audit-Id", "Upgrade", "Expect", "Range",
    "X-Forwarded-For", "Authorization",
)  # fmt: skip
_HEADER_VALUES = (
    "", "a", "bob", "system:masters", "system:serviceaccount:default:default", "system:node:a", "gzip", "deflate", "100-continue", "*", "Basic YTpi",
    "Bearer", "Bearer  x", ",;,=", "application/json;as=Table;v=;g=", "x" * 3000, "websocket", "SPDY/3.1", "bytes=0-",
)  # fmt: skip
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_ACCEPTS = (*[JSON] * 15, *[_TABLE] * 4, "application/yaml", "application/vnd.kubernetes.protobuf", "*/*",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")  # fmt: skip

_POD = {
    "containers": [
        {"name": "a", "image": "a", "ports": [{"containerPort": 80}], "resources": {"requests": {"cpu": "1"}}}
    ]
}
_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": _POD}
_SELECTING = {"selector": {"matchLabels": {"a": "b"}}, "template": _TEMPLATE}
_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
_JOB = {"template": {"spec": {**_POD, "restartPolicy": "Never"}}}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_VERSION = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
_NAMES_OF = {"plural": "as", "kind": "Aa", "singular": "aa", "listKind": "AaList"}
_BUDGET = {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}
# What is accepted as it stands: drawn values are grafted on it, so that they come past the first check.
_ACCEPTED: Mapping[str, dict[str, Any]] = {
    "Pod": {"spec": _POD},
    "Node": {"spec": {"podCIDR": "10.0.0.0/24"}},
    "Namespace": {},
    "Service": {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
    "Endpoints": {"subsets": [{"addresses": [{"ip": "10.1.0.1"}], "ports": [{"port": 80}]}]},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}], "ports": [{"port": 80}]},
    "ConfigMap": {"data": {"a": "b"}},
    "Secret": {"stringData": {"a": "b"}},
    "ServiceAccount": {},
    "ReplicationController": {"spec": {"selector": {"a": "b"}, "template": _TEMPLATE}},
    "PodTemplate": {"template": _TEMPLATE},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "default": {"cpu": "1"}}]}},
    "ResourceQuota": {"spec": {"hard": {"pods": "5", "requests.cpu": "9"}}},
    "PersistentVolume": {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}}},
    "PersistentVolumeClaim": {"spec": _CLAIM},
    "Deployment": {"spec": _SELECTING},
    "ReplicaSet": {"spec": _SELECTING},
    "DaemonSet": {"spec": _SELECTING},
    "StatefulSet": {"spec": {**_SELECTING, "serviceName": "a"}},
    "ControllerRevision": {"revision": 1, "data": {}},
    "Job": {"spec": _JOB},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": _JOB}}},
    "HorizontalPodAutoscaler": {"spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}},
    "PodDisruptionBudget": {"spec": _BUDGET},
    "Ingress": {"spec": {"rules": [{"host": "a.b"}], "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}},
    "IngressClass": {"spec": {"controller": "a.b/c"}},
    "NetworkPolicy": {"spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}},
    "Lease": {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 5}},
    "Event": {"involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}, "reason": "A", "type": "Normal"},
    "Role": {"rules": _RULES},
    "ClusterRole": {"rules": _RULES},
    "RoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"}, "subjects": [{"kind": "User", "name": "a"}]},
    "ClusterRoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"}},
    "StorageClass": {"provisioner": "a.b/c"},
    "VolumeAttachment": {"spec": {"attacher": "a", "nodeName": "a", "source": {"persistentVolumeName": "a"}}},
    "CSIDriver": {"spec": {}},
    "CSINode": {"spec": {"drivers": [{"name": "a", "nodeID": "a"}]}},
    "CSIStorageCapacity": {"storageClassName": "a", "capacity": "1Gi"},
    "RuntimeClass": {"handler": "a"},
    "PriorityClass": {"value": 5},
    "CustomResourceDefinition": {"spec": {"group": "example.com", "scope": "Namespaced", "names": _NAMES_OF, "versions": [_VERSION]}},
    "Scale": {"spec": {"replicas": 2}},
    "Binding": {"target": {"kind": "Node", "name": "a"}},
    "Eviction": {},
    "TokenRequest": {"spec": {"audiences": ["a"]}},
}  # fmt: skip


def grafted(accepted: Any, drawn: Any, rng: random.Random, chance: float) -> Any:
    """Return ``accepted`` with some of what ``drawn`` has more, or has in its place."""
    if isinstance(accepted, dict) and isinstance(drawn, dict):
        more = {key: each for key, each in drawn.items() if key not in accepted and rng.random() < chance}
        return {key: grafted(each, drawn.get(key), rng, chance) for key, each in accepted.items()} | more
    if isinstance(accepted, list) and accepted and isinstance(drawn, list) and drawn:
        more_items = drawn[1:] if rng.random() < chance else []
        return [grafted(accepted[0], drawn[0], rng, chance), *accepted[1:], *more_items]
    return drawn if drawn is not None and rng.random() < chance / 2 else accepted


class Drawn(NamedTuple):
    """One request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


class Requests:
    """Draws from one document; the same ``rng`` draws the same requests.

    odd: how often a value is not what its schema says.
    """

    def __init__(self, document: Mapping[str, Any], rng: random.Random, *, odd: float) -> None:
        self._paths = [(path, item) for path, item in document["paths"].items() if "{path}" not in path]
        self._schemas = document["components"]["schemas"]
        self._rng = rng
        self._odd = odd

    def draw(self) -> Drawn:
        """Return the next request."""
        rng = self._rng
        template, item = rng.choice(self._paths)
        methods = [each for each in _METHODS if each in item]
        method = rng.choices(methods, [_OFTEN.get(each, 1) for each in methods])[0]
        operation = item[method]
        name = rng.choice(_NAMES)
        path = template.replace("{namespace}", rng.choice(("default", "default", "default", "a"))).replace(
            "{name}", name
        )
        query = [(each["name"], rng.choice(_VALUES)) for each in operation["parameters"] if rng.random() < 0.1]
        query = [pair for pair in query if pair[0] not in ("watch", "resourceVersion")]
        if method == "patch":
            query.append(("fieldManager", "me"))
        headers = {"Accept": rng.choice(_ACCEPTS), "Authorization": f"Bearer {rng.choice(_USERS)}"}
        if rng.random() < self._odd:
            headers[rng.choice(_HEADERS)] = rng.choice(_HEADER_VALUES)
        content = operation.get("requestBody", {}).get("content", {})
        if not content or (method == "delete" and rng.random() < 0.5):
            return Drawn(method.upper(), path, query, headers, b"")
        media = rng.choice([*content] if rng.random() > self._odd else _MEDIA)
        headers["Content-Type"] = media
        value = self._document(operation, next(iter(content.values()))["schema"], media, name)
        return Drawn(method.upper(), path, query, headers, self._written(value, media))

    def _document(self, operation: Mapping[str, Any], schema: Mapping[str, Any], media: str, name: str) -> Any:
        if media == "application/json-patch+json":
            return self._json_patch()
        gvk = operation["x-kubernetes-group-version-kind"]
        if "$ref" not in schema:
            wanted = [each for each in self._schemas.values() if gvk in each.get("x-kubernetes-group-version-kind", ())]
            schema = wanted[0] if wanted else schema
        value = self._value(schema, 0)
        if gvk["kind"] in _ACCEPTED and self._rng.random() < 0.8 and isinstance(value, dict):
            accepted = {**_ACCEPTED[gvk["kind"]], "metadata": {"labels": {"a": "b"}}}
            value = grafted(accepted, value, self._rng, self._rng.choice((0.0, 0.05, 0.2)))
        if isinstance(value, dict) and self._rng.random() > self._odd:
            version = f"{gvk['group']}/{gvk['version']}".lstrip("/")
            value |= {"apiVersion": version, "kind": gvk["kind"]} if "DeleteOptions" not in str(schema) else {}
            metadata = value.get("metadata")
            if isinstance(metadata, dict):
                value["metadata"] = {**self._few(metadata), "name": name}
        return value

    def _few(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return some of an object's metadata: with all of it drawn at random hardly an object is accepted."""
        kept = (
            "namespace",
            "resourceVersion",
            "uid",
            "managedFields",
            "creationTimestamp",
            "deletionTimestamp",
            "ownerReferences",
        )
        return {key: each for key, each in metadata.items() if key not in kept or self._rng.random() < 0.1}

    def _json_patch(self) -> Any:
        rng = self._rng
        paths = (
            "/metadata/labels",
            "/metadata/labels/a",
            "/spec",
            "/spec/containers/0",
            "/status",
            "/data/a",
            "",
            "/",
            "/~",
            "/metadata/name",
            "/-",
        )
        operations = ("add", "remove", "replace", "move", "copy", "test", "x")
        return [
            {
                "op": rng.choice(operations),
                "path": rng.choice(paths),
                "from": rng.choice(paths),
                "value": rng.choice((*_ODD, *_WORDS)),
            }
            for _ in range(rng.randrange(3))
        ]

    def _value(self, schema: Mapping[str, Any], depth: int) -> Any:
        rng = self._rng
        if rng.random() < self._odd:
            return rng.choice((*_ODD, *_NUMBERS, *_WORDS))
        if "$ref" in schema:
            return self._value(self._schemas[schema["$ref"].rpartition("/")[2]], depth)
        if "allOf" in schema:
            return self._value(schema["allOf"][0], depth)
        if "oneOf" in schema:
            # Any of the types, in the words of what it is.
            return self._text(schema) if "format" in schema else self._value(rng.choice(schema["oneOf"]), depth)
        match schema.get("type"):
            case "object" if "properties" in schema:
                chance = 0.85 if depth < 2 else 0.5 / depth
                fields = schema["properties"].items()
                required = schema.get("required", ())
                return {
                    name: self._value(each, depth + 1)
                    for name, each in fields
                    if depth < 8 and (name in required or rng.random() < chance)
                }
            case "object":
                values = schema.get("additionalProperties", {})
                return {rng.choice(_WORDS): self._value(values, depth + 1) for _ in range(rng.randrange(3))}
            case "array":
                return [self._value(schema["items"], depth + 1) for _ in range(rng.choice((0, 1, 1, 2)))]
            case "integer" | "number":
                return rng.choice(_NUMBERS[:8])
            case "boolean":
                return rng.random() < 0.5
            case "string":
                return self._text(schema)
        return rng.choice((*_ODD, *_WORDS))

    def _text(self, schema: Mapping[str, Any]) -> Any:
        rng = self._rng
        match schema.get("format"):
            case "date-time":
                return rng.choice(
                    (
                        "2026-01-01T00:00:00Z",
                        "2026-01-01T00:00:00.000001Z",
                        "9999-12-31T23:59:59Z",
                        "0001-01-01T00:00:00Z",
                        "x",
                    )
                )
            case "int-or-string":
                return rng.choice((*_NUMBERS[:6], "50%", "http", "-1%"))
            case "byte":
                return rng.choice(("", "YQ==", "!", "YQ"))
        return rng.choice((*_WORDS, "1Gi", "100m", "-1", "1"))

    def _written(self, value: Any, media: str) -> bytes:
        rng = self._rng
        if media.endswith("yaml"):
            body = yaml.safe_dump(json.loads(json.dumps(value)), allow_unicode=True).encode("utf-8", "replace")
        else:
            body = json.dumps(value).encode()
        if media.endswith("protobuf"):
            body = b"k8s\0" + bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
        if rng.random() < self._odd / 2 and body:
            at = rng.randrange(len(body))
            body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        return body
