"""The gRPC face of a master: the cluster's objects, the lab's state, health and reflection on one address."""

import asyncio
import logging
import ssl

from fastgrpc.server import Server, ServerConfig
from fastgrpc.standard import HEALTH, REFLECTION, Health, Reflection
from master.access.gate import Gate
from master.grpc_api import SERVICE as RESOURCES
from master.grpc_api import ResourcesService
from master.grpc_calls import Entrance
from master.lab_api import SERVICE as LAB
from master.lab_api import LabService
from master.registry import Registry

log = logging.getLogger(__name__)

SHUTDOWN_S = 1.0
HEALTH_S = 0.5
# Before a message is whole nobody is asked who sends it, so little of them is held.
CONFIG = ServerConfig(max_partial_bytes=16 << 20, keepalive_s=10.0, keepalive_timeout_s=5.0)
# What one has to be allowed to get over REST, to ask the same of the standard services.
HEALTH_PATH = "/healthz"
REFLECTION_PATH = "/openapi/v3"


class GrpcServer:
    """Serves until it is stopped. Must be made while the loop runs.

    lab: tells of the lab's masters; None leaves that service out.
    """

    def __init__(self, registry: Registry, gate: Gate, *, lab: LabService | None = None) -> None:
        self._registry = registry
        self._health = Health()
        entrance = Entrance(gate)
        rows = list(ResourcesService(registry).methods(entrance))
        if lab is not None:
            rows += lab.methods(entrance)
        rows += [entrance.guarded(row, HEALTH_PATH) for row in self._health.methods()]
        names = (RESOURCES, LAB, HEALTH, REFLECTION) if lab is not None else (RESOURCES, HEALTH, REFLECTION)
        rows += [entrance.guarded(row, REFLECTION_PATH) for row in Reflection(names).methods()]
        self._server = Server(rows, config=CONFIG)

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen; return the port, which the system chose if ``port`` is 0. Raises OSError."""
        bound = await self._server.listen(host, port, tls=tls)
        log.info("gRPC server listens address=%s port=%d tls=%s", host, bound, tls is not None)
        return bound

    async def stop(self) -> None:
        """Let calls finish for a while, end what is left, close."""
        await self._server.stop(SHUTDOWN_S)

    async def tell_health(self) -> None:
        """Keep the health service's answer true, until cancelled."""
        while True:
            self._health.set(serving=not any(self._registry.problems().values()))
            await asyncio.sleep(HEALTH_S)
