"""The state of the lab's masters as this one sees them: ``trireme.cluster.Lab``."""

import asyncio

from client import etcd
from client.etcd import EtcdClient
from fastgrpc.server import Method
from master.access.gate import NOBODY
from master.access.rules import Request
from master.config import MasterConfig
from master.grpc_calls import Entrance, GrpcPassage
from master.leadership import Leadership
from master.registry import Registry
from trireme_pb.cluster import cluster_pb2 as pb

SERVICE = "trireme.cluster.Lab"
ANSWER_S = 0.5
STATUS_PATH = "/trireme/status"


class LabService:
    """Asks every store member and every master process, at the same time, and waits for none of them long."""

    def __init__(
        self,
        config: MasterConfig,
        client: EtcdClient,
        registry: Registry,
        leadership: Leadership,
    ) -> None:
        self._config = config
        self._client = client
        self._registry = registry
        self._leadership = leadership
        hosts = {endpoint.rpartition(":")[0]: endpoint for endpoint in config.store_endpoints}
        self._members = {name: hosts.get(address.rpartition(":")[0], "") for name, address in config.masters.items()}

    def methods(self, entrance: Entrance) -> list[Method]:
        """Return the service's rows."""
        asked = Request(NOBODY, "get", path=STATUS_PATH)
        return [
            entrance.unary(
                f"/{SERVICE}/Status", pb.LabStatusRequest, self.status, lambda call, _: GrpcPassage(call, asked)
            )
        ]

    async def status(self, request: pb.LabStatusRequest, passage: GrpcPassage) -> pb.LabStatusResponse:  # noqa: ARG002 - as every method
        """Return what is known of every master."""
        names = sorted(self._config.masters)
        statuses, processes = await asyncio.gather(
            asyncio.gather(*(self._member(name) for name in names)),
            asyncio.gather(*(self._process(name) for name in names)),
        )
        committed = max((each.commit_index for each in statuses if isinstance(each, etcd.Status)), default=0)
        return pb.LabStatusResponse(
            answered_by=self._config.name,
            masters=[
                self._master(name, status, problem, committed)
                for name, status, problem in zip(names, statuses, processes, strict=True)
            ],
            cache_revision=self._registry.cache_revision,
        )

    def _master(self, name: str, status: etcd.Status | str, problem: str, committed: int) -> pb.MasterStatus:
        runs_controllers = self._leadership.holder == name
        if isinstance(status, str):
            return pb.MasterStatus(
                name=name,
                problem="; ".join(filter(None, (status, problem))),
                runs_controllers=runs_controllers,
            )
        return pb.MasterStatus(
            name=name,
            reachable=not problem,
            problem="; ".join(filter(None, (problem, *status.errors))),
            raft_role=_role(status),
            raft_term=status.term,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            lag=max(0, committed - status.applied_index),
            store_bytes=status.db_bytes,
            store_version=status.version,
            runs_controllers=runs_controllers,
        )

    async def _member(self, name: str) -> etcd.Status | str:
        """Return the status of the store member on a master's host, or why there is none."""
        endpoint = self._members[name]
        if not endpoint:
            return "no store member on this host"
        try:
            async with asyncio.timeout(ANSWER_S * 2):
                return await self._client.status(endpoint, timeout_s=ANSWER_S)
        except (etcd.EtcdError, TimeoutError):
            return "its store member does not answer"

    async def _process(self, name: str) -> str:
        """Return what is wrong with a master's process; the empty text if it takes connections."""
        if name == self._config.name:
            return ""
        host, _, port = self._config.masters[name].rpartition(":")
        try:
            async with asyncio.timeout(ANSWER_S):
                _, writer = await asyncio.open_connection(host, int(port))
        except (OSError, TimeoutError):
            return "its master process does not answer"
        writer.close()
        return ""


def _role(status: etcd.Status) -> str:
    if not status.leader:
        return "candidate"
    return "leader" if status.leader == status.member else "follower"
