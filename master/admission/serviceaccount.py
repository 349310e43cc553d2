"""Service accounts: every pod has one, and unless it does not want to, a volume with a token to speak for it.

Source: kubernetes.io, "Managing Service Accounts", and the names that the real server gives to volume and files.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from api.kinds.core import ServiceAccount
from api.kinds.pods import Container, Pod, VolumeMount
from api.kinds.volumes import (
    ConfigMapProjection,
    DownwardAPIProjection,
    DownwardAPIVolumeFile,
    KeyToPath,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from api.meta import Resource
from master.access.tokens import POD_TOKEN_S
from master.admission.chain import Attributes, Rule, refusal
from master.lifecycle import generated_name

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
ROOT_CA = "kube-root-ca.crt"
MIRROR = "kubernetes.io/config.mirror"
# The account of a namespace that was made a moment ago is on its way.
PATIENCE_S = 3.0
_LOOK_S = 0.02

FindAccount = Callable[[str, str], Awaitable[ServiceAccount | None]]


def token_volume(name: str) -> Volume:
    """Return the volume that lets a pod speak to the API: token, authority, namespace."""
    token = ServiceAccountTokenProjection(expiration_seconds=POD_TOKEN_S, path="token")
    authority = ConfigMapProjection(name=ROOT_CA, items=(KeyToPath(key="ca.crt", path="ca.crt"),))
    own = ObjectFieldSelector(api_version="v1", field_path="metadata.namespace")
    place = DownwardAPIProjection(items=(DownwardAPIVolumeFile(path="namespace", field_ref=own),))
    sources = (
        VolumeProjection(service_account_token=token),
        VolumeProjection(config_map=authority),
        VolumeProjection(downward_api=place),
    )
    return Volume(name=name, projected=ProjectedVolumeSource(sources=sources, default_mode=0o644))


def wants_token(pod: Pod, account: ServiceAccount) -> bool:
    """Return whether the pod gets a token: the pod's word counts, then the account's, then yes."""
    for word in (pod.spec.automount_service_account_token, account.automount_service_account_token):
        if word is not None:
            return word
    return True


def with_token(pod: Pod, volume: str) -> Pod:
    """Return the pod with the volume mounted in every container that mounts nothing there itself."""
    mount = VolumeMount(name=volume, read_only=True, mount_path=MOUNT_PATH)

    def mounted(container: Container) -> Container:
        if any(each.mount_path == MOUNT_PATH for each in container.volume_mounts):
            return container
        return replace(container, volume_mounts=(*container.volume_mounts, mount))

    spec = pod.spec
    containers, inits = tuple(map(mounted, spec.containers)), tuple(map(mounted, spec.init_containers))
    if (containers, inits) == (spec.containers, spec.init_containers):
        return pod
    volumes = (*spec.volumes, token_volume(volume))
    return replace(pod, spec=replace(spec, containers=containers, init_containers=inits, volumes=volumes))


class ServiceAccounts(Rule):
    """Gives pods their account, its pull secrets and its token.

    find: returns an account by namespace and name, as fresh as can be.
    """

    def __init__(self, find: FindAccount, rng: random.Random) -> None:
        self._find = find
        self._rng = rng

    async def mutate(self, attributes: Attributes, obj: Resource) -> Resource:
        """Return the pod with everything of its account; raises Forbidden if there is no such account."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return obj
        assert isinstance(obj, Pod), obj
        if MIRROR in obj.metadata.annotations:
            return obj
        name = obj.spec.service_account_name or "default"
        account = await self._account(attributes, name)
        spec = replace(obj.spec, service_account_name=name, service_account=name)
        if not spec.image_pull_secrets:
            spec = replace(spec, image_pull_secrets=account.image_pull_secrets)
        pod = replace(obj, spec=spec)
        return with_token(pod, generated_name(VOLUME_PREFIX, self._rng)) if wants_token(pod, account) else pod

    async def judge(self, attributes: Attributes) -> None:
        """Raise Forbidden for a mirror pod that wants anything of an account: its node would have to be trusted."""
        if not (attributes.is_of("", "pods") and attributes.creates):
            return
        pod = attributes.obj
        assert isinstance(pod, Pod), pod
        if MIRROR not in pod.metadata.annotations:
            return
        if pod.spec.service_account_name:
            raise refusal(attributes, "a mirror pod may not reference service accounts")
        if any(_has_token(volume) for volume in pod.spec.volumes):
            raise refusal(attributes, "a mirror pod may not use ServiceAccountToken volume projections")

    async def _account(self, attributes: Attributes, name: str) -> ServiceAccount:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while (account := await self._find(attributes.namespace, name)) is None:
            if loop.time() >= deadline:
                where = f"{attributes.namespace}/{name}"
                why = f'error looking up service account {where}: serviceaccount "{name}" not found'
                raise refusal(attributes, why)
            await asyncio.sleep(_LOOK_S)
        return account


def _has_token(volume: Volume) -> bool:
    return volume.projected is not None and any(each.service_account_token for each in volume.projected.sources)
