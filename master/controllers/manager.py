"""Everything that runs once in a cluster: a row for each, run while this master leads.

``run`` ends only by cancellation: a master that loses the leadership cancels it and makes a new manager the next time,
so nothing of a former reign is remembered.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from api.kinds.table import TABLE, Table
from api.meta import Resource
from client.clock import Clock, SystemClock
from client.events import EventRecorder
from client.informer import SharedInformers
from client.resources import Resources
from master.access.authorization import Authorizer
from master.access.certificates import Signer
from master.access.tokens import ServiceAccountTokens
from master.controllers.accounttokens import AccountTokenController
from master.controllers.aggregation import AggregationController
from master.controllers.bootstrap import BootstrapController
from master.controllers.certificates import CertificateController
from master.controllers.context import Context, ControllerConfig
from master.controllers.cronjob import CronJobController
from master.controllers.daemonset import DaemonSetController
from master.controllers.definitions import DefinitionController
from master.controllers.deployment import DeploymentController
from master.controllers.disruption import DisruptionController
from master.controllers.endpointmirroring import EndpointMirroringController
from master.controllers.endpoints import EndpointsController
from master.controllers.endpointslices import EndpointSliceController
from master.controllers.garbagecollector import GarbageCollector
from master.controllers.job import JobController
from master.controllers.namespaces import FurnishingController, NamespaceController
from master.controllers.nodeipam import NodeIpamController
from master.controllers.nodelifecycle import NodeLifecycleController
from master.controllers.podgc import PodGcController
from master.controllers.replicaset import replicaset_controller, replication_controller
from master.controllers.resourcequota import ResourceQuotaController
from master.controllers.statefulset import StatefulSetController
from master.controllers.storageprotection import ClaimProtection, VolumeProtection
from master.scheduler.loop import Scheduler

log = logging.getLogger(__name__)


class Runnable(Protocol):
    """A controller, made and not yet running."""

    async def run(self) -> None:
        """Work until cancelled."""


class Row(msgspec.Struct, frozen=True):
    """One thing that runs on the leader."""

    name: str
    make: Callable[[Context], Runnable]


ROWS: Sequence[Row] = (
    Row("replicaset", replicaset_controller),
    Row("replication", replication_controller),
    Row("deployment", DeploymentController),
    Row("daemonset", DaemonSetController),
    Row("statefulset", StatefulSetController),
    Row("job", JobController),
    Row("cronjob", CronJobController),
    Row("disruption", DisruptionController),
    Row("endpoints", EndpointsController),
    Row("endpointslice", EndpointSliceController),
    Row("endpointslicemirroring", EndpointMirroringController),
    Row("nodelifecycle", NodeLifecycleController),
    Row("nodeipam", NodeIpamController),
    Row("namespace", NamespaceController),
    Row("serviceaccount", FurnishingController),
    Row("resourcequota", ResourceQuotaController),
    Row("clusterrole-aggregation", AggregationController),
    Row("serviceaccount-token", AccountTokenController),
    Row("certificates", CertificateController),
    Row("bootstrap", BootstrapController),
    Row("garbagecollector", GarbageCollector),
    Row("definitions", DefinitionController),
    Row("podgc", PodGcController),
    Row("pvc-protection", ClaimProtection),
    Row("pv-protection", VolumeProtection),
    Row("scheduler", Scheduler),
)


def without_managers(obj: Resource) -> Resource:
    """Return ``obj`` without its managedFields, as large as all the rest of a pod and of no use to a controller.

    A write without them leaves what the server has.
    """
    meta = obj.metadata
    return replace(obj, metadata=replace(meta, managed_fields=())) if meta.managed_fields else obj


class ControllerManager:
    """The controllers and the scheduler of a leading master."""

    def __init__(
        self,
        resources: Resources,
        config: ControllerConfig | None = None,
        clock: Clock | None = None,
        *,
        rows: Sequence[Row] = ROWS,
        rng: random.Random | None = None,
        table: Table = TABLE,
        tokens: ServiceAccountTokens | None = None,
        signer: Signer | None = None,
        authorizer: Authorizer | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._resources = resources
        self._recorders: dict[str, EventRecorder] = {}
        self.informers = SharedInformers(resources, clock=self._clock, transform=without_managers)
        context = Context(
            resources=resources,
            informers=self.informers,
            config=config or ControllerConfig(),
            clock=self._clock,
            rng=rng or random.Random(),  # noqa: S311 - spreads ties, protects nothing
            recorder=self._recorder,
            table=table,
            tokens=tokens,
            signer=signer,
            authorizer=authorizer,
        )
        self._runnables = {row.name: row.make(context) for row in rows}

    def _recorder(self, component: str) -> EventRecorder:
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(self._resources, component=component, now=self._clock.time)
        return self._recorders[component]

    async def run(self) -> None:
        """Run every row until cancelled."""
        log.info("controllers start count=%d", len(self._runnables))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.informers.run(), name="informers")
                for component, recorder in self._recorders.items():
                    group.create_task(recorder.run(), name=f"events of {component}")
                for name, runnable in self._runnables.items():
                    group.create_task(runnable.run(), name=name)
        finally:
            log.info("controllers stop")
