"""Claims and volumes that are being deleted stay while something uses them."""

import pytest
from msgspec.structs import replace

from api.kinds.pods import Pod
from api.kinds.table import TABLE
from api.kinds.volumes import PersistentVolume, PersistentVolumeClaim
from api.meta import ObjectMeta
from master.admission.storageprotection import CLAIM, VOLUME, StorageObjectInUse
from master.controllers.manager import Row
from master.controllers.storageprotection import ClaimProtection, VolumeProtection, uses
from tests.fakes.world import World
from tests.unit.master.admission.objects import attributes, made, pod

ROWS = (Row("pvc-protection", ClaimProtection), Row("pv-protection", VolumeProtection))
USED = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]


@pytest.mark.parametrize(
    ("found", "used"),
    [
        (pod(volumes=USED, nodeName="n1"), True),
        (pod(volumes=USED), False),  # will not be started with a claim that goes
        (pod(nodeName="n1"), False),
        (pod(volumes=[{"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}], nodeName="n1", metadata={"name": "x"}), False),
        (replace(pod(volumes=USED, nodeName="n1"), status=replace(Pod().status, phase="Succeeded")), False),
    ],
)  # fmt: skip
def test_who_uses_a_claim(found, used):
    assert uses(found, "data") is used


def test_an_ephemeral_volumes_claim_is_used_by_its_pod():
    ephemeral = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {}}}]
    assert uses(pod(volumes=ephemeral, nodeName="n1"), "p-v")


@pytest.mark.parametrize(
    ("kind", "finalizer"), [("PersistentVolumeClaim", CLAIM), ("PersistentVolume", VOLUME), ("ConfigMap", "")]
)
async def test_new_objects_are_protected(kind, finalizer):
    found = made("v1", kind)
    protected = await StorageObjectInUse().mutate(attributes(found, kind=TABLE.of(type(found))), found)
    assert protected.metadata.finalizers == ((finalizer,) if finalizer else ())
    changed = await StorageObjectInUse().mutate(attributes(found, old=found), found)
    assert changed is found, "who has taken it away may do so"


async def test_a_claim_stays_until_its_last_pod_has_gone():
    world = World(rows=ROWS)
    async with world.running():
        await world.resources.create(PersistentVolumeClaim(metadata=ObjectMeta(name="data", namespace="default")))
        volumes = pod(volumes=USED).spec.volumes
        for name in ("a", "b"):
            meta = ObjectMeta(name=name, namespace="default")
            spec = replace(Pod().spec, node_name="n1", volumes=volumes)
            await world.resources.create(Pod(metadata=meta, spec=spec))
        await world.settle()
        claim = world.resources.find(PersistentVolumeClaim, "data", "default")
        assert claim is not None
        assert claim.metadata.finalizers == (CLAIM,), "what was made before there was protection gets it late"
        await world.resources.delete(PersistentVolumeClaim, "data", namespace="default")
        for name in ("a", "b"):
            await world.settle()
            assert world.resources.find(PersistentVolumeClaim, "data", "default") is not None
            await world.resources.delete(Pod, name, namespace="default", grace_period_s=0)
        await world.settle()
        assert world.resources.find(PersistentVolumeClaim, "data", "default") is None


async def test_a_volume_stays_while_it_is_bound():
    world = World(rows=ROWS)
    async with world.running():
        volume = await world.resources.create(PersistentVolume(metadata=ObjectMeta(name="v")))
        await world.settle()
        found = world.resources.find(PersistentVolume, "v", "")
        assert found is not None
        bound = replace(found, status=replace(volume.status, phase="Bound"))
        await world.resources.update(bound, subresource="status")
        await world.resources.delete(PersistentVolume, "v")
        await world.settle()
        found = world.resources.find(PersistentVolume, "v", "")
        assert found is not None
        await world.resources.update(
            replace(found, status=replace(found.status, phase="Released")), subresource="status"
        )
        await world.settle()
        assert world.resources.find(PersistentVolume, "v", "") is None
