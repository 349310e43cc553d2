"""The gRPC face of a running master: health, reflection, who may call it, and what the audit log is told of it."""

import json
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.contract.access.cluster import Cluster, running
from trireme_pb.cluster import cluster_pb2, cluster_pb2_grpc

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [configmaps]}]\n"


def channel(cluster: Cluster, stem: Path) -> grpc.Channel:
    ca = cluster.authority.path.with_suffix(".crt").read_bytes()
    files = (stem.with_suffix(".key").read_bytes(), stem.with_suffix(".crt").read_bytes())
    return grpc.secure_channel(cluster.grpc[0], grpc.ssl_channel_credentials(ca, *files))


def test_health_reflection_and_audit(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    log = tmp_path / "audit.log"
    access = f'audit_log = "{log}"\naudit_policy = "{tmp_path}/policy.yaml"'
    with running(tmp_path, access=access) as cluster, channel(cluster, cluster.admin) as admin:
        health = health_pb2_grpc.HealthStub(admin)
        cluster.until(
            "it serves",
            lambda: health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING,
        )
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(admin).ServerReflectionInfo(iter([asked]))
        names = {each.name for each in answer.list_services_response.service}
        assert {"trireme.cluster.Resources", "trireme.cluster.Lab", "grpc.health.v1.Health"} <= names
        target = cluster_pb2.Target(resource="configmaps", namespace="default")
        watch = cluster_pb2_grpc.ResourcesStub(admin).Watch(cluster_pb2.WatchRequest(target=target))
        watch.initial_metadata()
        cluster.kubectl("create", "configmap", "c")
        seen = next(each for each in watch if each.object.name == "c")
        assert seen.type == cluster_pb2.WatchEvent.ADDED
        watch.cancel()

        stranger = cluster.authority.issue("stranger", "stranger")
        with channel(cluster, stranger) as theirs:
            refused = cluster_pb2_grpc.ResourcesStub(theirs).Watch(cluster_pb2.WatchRequest(target=target))
            with pytest.raises(grpc.RpcError) as refusal:
                next(refused)
            assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED

        def stages() -> set[tuple[str, str, int]]:
            lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
            return {
                (line["user"]["username"], line["stage"], line["responseStatus"]["code"])
                for line in lines
                if line["verb"] == "watch" and line["requestURI"].startswith("/trireme")
            }

        wanted = {
            ("admin", "ResponseStarted", 200),
            ("admin", "ResponseComplete", 200),
            ("stranger", "ResponseComplete", 403),
        }
        cluster.until("the watch is told of", lambda: wanted <= stages())
        assert ("stranger", "ResponseStarted", 200) not in stages()
