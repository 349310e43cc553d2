"""Defaults of pod specs, in pods and in templates, and those that only pods get."""

from typing import Any

from api.filling import Document, OrZero, Rule, fill, reach


def _pull_policy(container: Document) -> str:
    """Return Always for images without a tag or tagged latest: they may change under their name."""
    return _image_policy(container.get("image"))


def _volume_pull_policy(source: Document) -> str:
    return _image_policy(source.get("reference"))


def _image_policy(image: Any) -> str:
    name, at, _ = str(image or "").rpartition("/")[2].partition("@")
    tag = name.partition(":")[2]
    return "Always" if tag == "latest" or not (tag or at) else "IfNotPresent"


def _fill_requests(container: Document) -> None:
    resources = container.get("resources")
    if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


_PROBE: tuple[Rule, ...] = (
    ("timeoutSeconds", OrZero(1)),
    ("periodSeconds", OrZero(10)),
    ("successThreshold", OrZero(1)),
    ("failureThreshold", OrZero(3)),
    ("httpGet.path", "/"),
    ("httpGet.scheme", "HTTP"),
    ("grpc.service", ""),
)
_CONTAINER: tuple[Rule, ...] = (
    ("imagePullPolicy", _pull_policy),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("resources", {}),
    ("ports[].protocol", "TCP"),
    ("env[].valueFrom.fieldRef.apiVersion", "v1"),
    ("env[].valueFrom.resourceFieldRef.divisor", "0"),
    *(
        (f"{probe}.{path}", value)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        for path, value in _PROBE
    ),
    ("lifecycle.postStart.httpGet.path", "/"),
    ("lifecycle.postStart.httpGet.scheme", "HTTP"),
    ("lifecycle.preStop.httpGet.path", "/"),
    ("lifecycle.preStop.httpGet.scheme", "HTTP"),
)
RBD: tuple[Rule, ...] = (("rbd.pool", "rbd"), ("rbd.user", "admin"), ("rbd.keyring", "/etc/ceph/keyring"))
AZURE_DISK: tuple[Rule, ...] = (
    ("azureDisk.cachingMode", "ReadWrite"),
    ("azureDisk.kind", "Shared"),
    ("azureDisk.fsType", "ext4"),
    ("azureDisk.readOnly", False),
)
_VOLUME: tuple[Rule, ...] = (
    ("secret.defaultMode", 0o644),
    ("configMap.defaultMode", 0o644),
    ("downwardAPI.defaultMode", 0o644),
    ("downwardAPI.items[].fieldRef.apiVersion", "v1"),
    ("projected.defaultMode", 0o644),
    ("projected.sources[].serviceAccountToken.expirationSeconds", 3600),
    ("projected.sources[].downwardAPI.items[].fieldRef.apiVersion", "v1"),
    ("hostPath.type", ""),
    ("ephemeral.volumeClaimTemplate.spec.volumeMode", "Filesystem"),
    ("image.pullPolicy", _volume_pull_policy),
    ("iscsi.iscsiInterface", "default"),
    *RBD,
    *AZURE_DISK,
    ("scaleIO.storageMode", "ThinProvisioned"),
    ("scaleIO.fsType", "xfs"),
    ("emptyDir", lambda volume: {} if not volume.keys() - {"name"} else None),
)
_POD_SPEC: tuple[Rule, ...] = (
    ("restartPolicy", "Always"),
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
    ("terminationGracePeriodSeconds", 30),
    ("securityContext", {}),
    *(
        (f"{containers}[].{path}", value)
        for containers in ("containers", "initContainers", "ephemeralContainers")
        for path, value in _CONTAINER
    ),
    *((f"volumes[].{path}", value) for path, value in _VOLUME),
)


def fill_pod_spec(document: Document, prefix: str) -> None:
    """Fill the pod spec that lies at ``prefix`` ("spec." or "spec.template.spec.")."""
    fill(document, _POD_SPEC, prefix)
    for spec in reach(document, prefix.rstrip(".").split(".")):
        if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
            spec["serviceAccount"] = spec["serviceAccountName"]
        elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"]


def fill_pod(document: Document) -> None:
    """Fill what only pods get, when they are made: their templates stay as their authors wrote them."""
    fill(document, (("spec.enableServiceLinks", True),))
    for spec in reach(document, ["spec"]):
        for containers in ("containers", "initContainers"):
            for container in reach(spec, [f"{containers}[]"]):
                _fill_requests(container)
                _host_ports(spec, container)


def _host_ports(spec: Document, container: Document) -> None:
    """On the host's network a container port is a host port."""
    if spec.get("hostNetwork"):
        for port in container.get("ports") or ():
            if isinstance(port, dict) and not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort")
