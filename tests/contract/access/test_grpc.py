"""The gRPC face of a running master: health, reflection, who may call it and by what, and what the audit log is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.contract.access.cluster import Cluster, running
from tests.contract.access.test_identity import bootstrap_secret
from trireme_pb.cluster import cluster_pb2, cluster_pb2_grpc

POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  resources: [{group: '', resources: [configmaps]}]\n"


def channel(cluster: Cluster, stem: Path | None = None, *, token: str = "") -> grpc.Channel:
    """Return a channel of who shows a certificate, a token or nothing."""
    ca = cluster.authority.path.with_suffix(".crt").read_bytes()
    files = () if stem is None else (stem.with_suffix(".key").read_bytes(), stem.with_suffix(".crt").read_bytes())
    credentials = grpc.ssl_channel_credentials(ca, *files)
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(cluster.grpc[0], credentials)


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """Return how a call is refused."""
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value.code(), refusal.value.details()


def test_every_credential_that_rest_takes(cluster: Cluster, namespace: str) -> None:
    account = f"system:serviceaccount:{namespace}:default"
    asked = cluster_pb2.ListRequest(target=cluster_pb2.Target(resource="configmaps", namespace=namespace))
    token = cluster.kubectl("create", "token", "default", "-n", namespace).strip()
    cluster.apply(bootstrap_secret("gggggg", "0123456789abcdef"))
    with channel(cluster, token=token) as theirs:
        service = cluster_pb2_grpc.ResourcesStub(theirs)
        code, why = refused(lambda: service.List(asked))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert f'User "{account}" cannot list resource "configmaps"' in why
        code, why = refused(lambda: service.List(asked, metadata=[("impersonate-user", "bob")]))
        assert (code, "cannot impersonate" in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
        cluster.kubectl(
            "create", "rolebinding", "v", "--clusterrole=view", f"--serviceaccount={namespace}:default", "-n", namespace
        )
        cluster.until("the binding holds", lambda: _listed(service, asked))
    with channel(cluster, token="gggggg.0123456789abcdef") as booting:
        cluster.until(
            "the bootstrap token is known",
            lambda: (
                "system:bootstrap:gggggg" in refused(lambda: cluster_pb2_grpc.ResourcesStub(booting).List(asked))[1]
            ),
        )
    for bad in (token[:-4] + "AAAA", "gggggg.0000000000000000", "nobody"):
        with channel(cluster, token=bad) as nobody:
            code, _ = refused(lambda each=nobody: cluster_pb2_grpc.ResourcesStub(each).List(asked))
            assert code is grpc.StatusCode.UNAUTHENTICATED
    with channel(cluster) as nobody:
        code, why = refused(lambda: cluster_pb2_grpc.ResourcesStub(nobody).List(asked))
        assert (code, '"system:anonymous"' in why) == (grpc.StatusCode.PERMISSION_DENIED, True)
    with channel(cluster, cluster.admin) as admin:
        service = cluster_pb2_grpc.ResourcesStub(admin)
        assert service.List(asked, metadata=[("impersonate-user", account)]).items
        code, why = refused(lambda: service.List(asked, metadata=[("impersonate-user", "bob")]))
        assert (code, 'User "bob"' in why) == (grpc.StatusCode.PERMISSION_DENIED, True)


def _listed(service: cluster_pb2_grpc.ResourcesStub, asked: cluster_pb2.ListRequest) -> bool:
    try:
        return bool(service.List(asked).items)
    except grpc.RpcError:
        return False


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
