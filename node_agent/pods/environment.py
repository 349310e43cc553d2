"""A container's environment variables: pure, from the pod, the objects it names and the services around it.

Later variables win; ``$(NAME)`` means a variable that stands earlier, ``$$(NAME)`` is the text ``$(NAME)``.
"""

import base64
import re
from collections.abc import Iterable, Mapping

import msgspec

from api import quantity
from api.kinds.core import ConfigMap, Secret, Service
from api.kinds.pods import Container, EnvVar, Pod
from api.kinds.volumes import ObjectFieldSelector, ResourceFieldSelector
from node_agent.errors import NodeError

_REFERENCE = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']+)'\]")


class ConfigMissing(NodeError):
    """The pod names an object or key that does not exist, or a field that cannot be had."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What variables and files are made from. allocatable: the node's, for limits that the pod does not set."""

    pod: Pod
    node: str
    host_ip: str
    pod_ip: str
    config_maps: Mapping[str, ConfigMap] = {}
    secrets: Mapping[str, Secret] = {}
    services: tuple[Service, ...] = ()
    allocatable: Mapping[str, str] = {}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return ``text`` with its references replaced; one to an unknown variable stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(2)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def unknown_references(text: str, variables: Mapping[str, str]) -> list[str]:
    """Return the names that ``text`` refers to and ``variables`` lacks."""
    names = (match.group(2) for match in _REFERENCE.finditer(text))
    return [name for name in names if name and name not in variables]


def render_environment(container: Container, facts: Facts) -> dict[str, str]:
    """Return the variables of ``container``; raises ConfigMissing."""
    links = facts.pod.spec.enable_service_links is not False
    variables = service_variables(facts.services, facts.pod.metadata.namespace, all_links=links)
    for source in container.env_from:
        if source.config_map_ref:
            ref = source.config_map_ref
            values = config_map_data(facts, ref.name, optional=bool(ref.optional)) or {}
        elif source.secret_ref:
            values = secret_data(facts, source.secret_ref.name, optional=bool(source.secret_ref.optional)) or {}
        else:
            continue
        variables |= {source.prefix + key: value.decode(errors="replace") for key, value in values.items()}
    for variable in container.env:
        value = _value(variable, container, facts, variables)
        if value is not None:
            variables[variable.name] = value
    return variables


def _value(variable: EnvVar, container: Container, facts: Facts, known: Mapping[str, str]) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value, known)
    if source.field_ref:
        return field_value(source.field_ref, facts)
    if source.resource_field_ref:
        return resource_value(source.resource_field_ref, facts, container.name)
    if source.config_map_key_ref:
        config = source.config_map_key_ref
        values = config_map_data(facts, config.name, optional=bool(config.optional))
        return _key(values, config.key, f"ConfigMap {_place(facts, config.name)}", optional=bool(config.optional))
    if source.secret_key_ref:
        secret = source.secret_key_ref
        values = secret_data(facts, secret.name, optional=bool(secret.optional))
        return _key(values, secret.key, f"Secret {_place(facts, secret.name)}", optional=bool(secret.optional))
    raise ConfigMissing(f"environment variable {variable.name}: this node does not know its source")


def _key(values: Mapping[str, bytes] | None, key: str, holder: str, *, optional: bool) -> str | None:
    if values is not None and key in values:
        return values[key].decode(errors="replace")
    if optional:
        return None
    raise ConfigMissing(f"couldn't find key {key} in {holder}")


def _place(facts: Facts, name: str) -> str:
    return f"{facts.pod.metadata.namespace}/{name}"


def config_map_data(facts: Facts, name: str, *, optional: bool) -> dict[str, bytes] | None:
    """Return key -> content; None if the object is missing and may be."""
    found = facts.config_maps.get(name)
    if found is None:
        if optional:
            return None
        raise ConfigMissing(f'configmap "{name}" not found')
    data = {key: text.encode() for key, text in found.data.items()}
    return data | {key: base64.b64decode(text) for key, text in found.binary_data.items()}


def secret_data(facts: Facts, name: str, *, optional: bool) -> dict[str, bytes] | None:
    """Return key -> content; None if the object is missing and may be."""
    found = facts.secrets.get(name)
    if found is None:
        if optional:
            return None
        raise ConfigMissing(f'secret "{name}" not found')
    return {key: base64.b64decode(text) for key, text in found.data.items()}


def field_value(selector: ObjectFieldSelector, facts: Facts) -> str:
    """Return a field of the pod as the downward API gives it; raises ConfigMissing for one it has not."""
    meta, path = facts.pod.metadata, selector.field_path
    if match := _SUBSCRIPT.fullmatch(path):
        return (meta.labels if match.group(1) == "metadata.labels" else meta.annotations).get(match.group(2), "")
    values = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": _lines(meta.labels),
        "metadata.annotations": _lines(meta.annotations),
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": facts.pod.spec.service_account_name,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
    }
    if path not in values:
        raise ConfigMissing(f"unsupported fieldPath: {path}")
    return values[path]


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_escape(value)}"' for key, value in sorted(values.items()))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(selector: ResourceFieldSelector, facts: Facts, container_name: str) -> str:
    """Return a request or limit in units of the divisor, rounded up; a missing limit is the node's allocatable."""
    name = selector.container_name or container_name
    spec = facts.pod.spec
    container = next((c for c in (*spec.containers, *spec.init_containers) if c.name == name), None)
    if container is None:
        raise ConfigMissing(f"resourceFieldRef: container {name} not found")
    family, _, resource = selector.resource.partition(".")
    given = container.resources
    values = (given.limits if family == "limits" else given.requests) if given else {}
    amount = values.get(resource) or (facts.allocatable.get(resource, "0") if family == "limits" else "0")
    divisor = quantity.parse(selector.divisor) if selector.divisor not in {"", "0"} else 1
    quotient = quantity.parse(amount) / divisor
    return str(-(-quotient.numerator // quotient.denominator))


def needs_pod_ip(container: Container) -> bool:
    """Whether the environment can only be known when the pod has its address."""
    return any(
        variable.value_from
        and variable.value_from.field_ref
        and variable.value_from.field_ref.field_path.startswith("status.podIP")
        for variable in container.env
    )


def service_variables(services: Iterable[Service], namespace: str, *, all_links: bool) -> dict[str, str]:
    """Return the variables that name services: the namespace's own, and always the API's."""
    variables: dict[str, str] = {}
    for service in services:
        meta = service.metadata
        api = (meta.namespace, meta.name) == ("default", "kubernetes")
        if service.spec.cluster_ip in {"", "None"} or not (api or (all_links and meta.namespace == namespace)):
            continue
        variables |= _service(service)
    return variables


def _service(service: Service) -> dict[str, str]:
    prefix, address = _variable_name(service.metadata.name), service.spec.cluster_ip
    ports = service.spec.ports
    if not ports:
        return {}
    variables = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            variables[f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}"] = str(port.port)
    for index, port in enumerate(ports):
        protocol = (port.protocol or "TCP").lower()
        url = f"{protocol}://{address}:{port.port}"
        if index == 0:
            variables[f"{prefix}_PORT"] = url
        stem = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        variables |= {
            stem: url,
            f"{stem}_PROTO": protocol,
            f"{stem}_PORT": str(port.port),
            f"{stem}_ADDR": address,
        }
    return variables


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")
