"""Asking a lab's masters over gRPC: how they are, and which nodes are Ready."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import msgspec

from deploy.health import Answer, MasterView
from deploy.lab import GRPC_PORT, Host, Lab
from deploy.parallel import each
from deploy.state import admin_files
from trireme_pb.cluster import cluster_pb2, cluster_pb2_grpc

TIMEOUT_S = 2.0
# Our own addresses are never behind a proxy.
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 << 20))


@contextlib.contextmanager
def channel(lab: Lab, master: Host) -> Iterator[grpc.Channel]:
    """Give a channel to ``master`` with the administrator's certificate."""
    ca, cert, key = (path.read_bytes() for path in admin_files(lab.name))
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    with grpc.secure_channel(f"{master.address}:{GRPC_PORT}", credentials, options=OPTIONS) as opened:
        yield opened


def ask_masters(lab: Lab, *, timeout_s: float = TIMEOUT_S) -> list[Answer]:
    """Return the answer of every master that gives one within ``timeout_s``; all are asked at once."""
    answers = each(lab.masters, lambda master: _ask(lab, master, timeout_s))
    return [answer for answer in answers if answer is not None]


def _ask(lab: Lab, master: Host, timeout_s: float) -> Answer | None:
    with channel(lab, master) as opened:
        try:
            response = cluster_pb2_grpc.LabStub(opened).Status(cluster_pb2.LabStatusRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return None
    return Answer(response.answered_by, tuple(_view(status) for status in response.masters))


def _view(status: cluster_pb2.MasterStatus) -> MasterView:
    return MasterView(
        name=status.name,
        reachable=status.reachable,
        role=status.raft_role,
        term=status.raft_term,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        lag=status.lag,
        store_bytes=status.store_bytes,
        store_version=status.store_version,
        runs_controllers=status.runs_controllers,
        problem=status.problem,
    )


def list_nodes(lab: Lab, answering: Sequence[str], *, timeout_s: float = TIMEOUT_S) -> list[Mapping[str, Any]] | None:
    """Return the Node objects from the first of the ``answering`` masters that lists them, None if none does."""
    request = cluster_pb2.ListRequest(target=cluster_pb2.Target(version="v1", resource="nodes"), any_version=True)
    for name in answering:
        with channel(lab, lab.host(name)) as opened:
            try:
                response = cluster_pb2_grpc.ResourcesStub(opened).List(request, timeout=timeout_s)
            except grpc.RpcError:
                continue
        return [msgspec.json.decode(item.json) for item in response.items]
    return None


def is_ready(node: Mapping[str, Any]) -> bool:
    """Return whether a Node object's Ready condition holds."""
    conditions = node.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
