"""Which other objects a pod names: pure."""

from collections.abc import Iterator

from api.kinds.pods import Pod
from node_agent.pods.containers import every_container


def config_map_names(pod: Pod) -> frozenset[str]:
    """Return the ConfigMaps that the pod's environment and volumes read."""
    return frozenset(name for name in _config_maps(pod) if name)


def secret_names(pod: Pod) -> frozenset[str]:
    """Return the Secrets that the pod's environment and volumes read."""
    return frozenset(name for name in _secrets(pod) if name)


def pull_secret_names(pod: Pod) -> frozenset[str]:
    """Return the Secrets that hold registry credentials."""
    return frozenset(each.name for each in pod.spec.image_pull_secrets if each.name)


def _config_maps(pod: Pod) -> Iterator[str]:
    for container in every_container(pod.spec):
        yield from (each.config_map_ref.name for each in container.env_from if each.config_map_ref)
        for variable in container.env:
            if variable.value_from and variable.value_from.config_map_key_ref:
                yield variable.value_from.config_map_key_ref.name
    for volume in pod.spec.volumes:
        if volume.config_map:
            yield volume.config_map.name
        if volume.projected:
            yield from (each.config_map.name for each in volume.projected.sources if each.config_map)


def _secrets(pod: Pod) -> Iterator[str]:
    for container in every_container(pod.spec):
        yield from (each.secret_ref.name for each in container.env_from if each.secret_ref)
        for variable in container.env:
            if variable.value_from and variable.value_from.secret_key_ref:
                yield variable.value_from.secret_key_ref.name
    for volume in pod.spec.volumes:
        if volume.secret:
            yield volume.secret.secret_name
        if volume.projected:
            yield from (each.secret.name for each in volume.projected.sources if each.secret)
