"""What ``down`` does: leave nothing of a lab, also when only half of it was ever made."""

import docker

from deploy import state
from deploy.hosts import containers


def remove_lab(client: docker.DockerClient, name: str) -> bool:
    """Remove the lab's containers, volumes, network and files; return whether there was anything."""
    known = state.lab_folder(name).exists()
    removed = containers.remove_all(client, name)
    state.forget(name)
    return bool(known or removed)
