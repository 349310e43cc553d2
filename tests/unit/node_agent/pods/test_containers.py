"""What the kernel is told about a container."""

from typing import Any

import msgspec
import pytest

from api.kinds.pods import Container, Pod, PodSpec
from node_agent.pods.containers import (
    HostnameTooLong,
    NodeNames,
    RefusedByPolicy,
    file_owner,
    hostname_of,
    render_hosts,
    render_limits,
    render_privileges,
    render_sandbox,
)
from node_agent.runtime.base import Image
from tests.unit.node_agent.pods.situations import pod

GIB = 1 << 30


def spec(*resources: dict[str, Any], **more: Any) -> PodSpec:
    containers = [{"name": f"c{n}", "resources": each} for n, each in enumerate(resources)]
    return msgspec.convert({"containers": containers, **more}, PodSpec)


@pytest.mark.parametrize(
    ("resources", "shares", "quota", "memory"),
    [
        ({}, 2, 0, 0),
        ({"requests": {"cpu": "500m"}}, 512, 0, 0),
        ({"limits": {"cpu": "1500m", "memory": "64Mi"}}, 1536, 150_000, 64 << 20),
        ({"limits": {"cpu": "1m"}}, 2, 1000, 0),  # the kernel's least
    ],
)
def test_limits(resources: dict[str, Any], shares: int, quota: int, memory: int) -> None:
    (container,) = spec(resources).containers
    limits = render_limits(container, qos="Burstable", memory_capacity_bytes=GIB, negative_oom_score=True)
    assert (limits.cpu_shares, limits.cpu_quota_us, limits.memory_bytes) == (shares, quota, memory)


@pytest.mark.parametrize(
    ("qos", "request_", "protects", "score"),
    [
        ("Guaranteed", "0", True, -997),
        ("Guaranteed", "0", False, 0),
        ("BestEffort", "0", True, 1000),
        ("Burstable", "512Mi", True, 500),
        ("Burstable", "0", True, 999),
        ("Burstable", "1Gi", True, 3),
    ],
)
def test_who_is_killed_first(qos: str, request_: str, score: int, *, protects: bool) -> None:
    (container,) = spec({"requests": {"memory": request_}}).containers
    limits = render_limits(container, qos=qos, memory_capacity_bytes=GIB, negative_oom_score=protects)
    assert limits.oom_score_adj == score


def privileges(own: dict[str, Any], shared: dict[str, Any] | None = None, user: str = "") -> Any:
    container = msgspec.convert({"name": "c", "securityContext": own}, Container)
    of = msgspec.convert({"containers": [], "securityContext": shared or {}}, PodSpec)
    return render_privileges(container, of, Image(id="i", user=user))


def test_the_containers_word_goes_before_the_pods() -> None:
    shared = {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}
    assert privileges({"runAsUser": 9}, shared).user == "9:2"
    assert privileges({}, shared).groups == (4, 3)
    assert privileges({}, {"runAsUser": 5}).user == "5"
    assert privileges({"runAsUser": 0}, {"runAsUser": 5}).user == "0"
    assert privileges({"allowPrivilegeEscalation": False}).no_new_privileges


def test_seccomp_confines_who_asks_for_it() -> None:
    confined, free = {"seccompProfile": {"type": "RuntimeDefault"}}, {"seccompProfile": {"type": "Unconfined"}}
    assert privileges({}).seccomp == "unconfined"
    assert privileges({}, confined).seccomp == ""
    assert privileges(free, confined).seccomp == "unconfined"
    with pytest.raises(RefusedByPolicy, match="keeps no profiles"):
        privileges({"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}})


@pytest.mark.parametrize(
    ("shared", "own", "owner"),
    [
        (None, [None, None], None),
        (7, [None, None], 7),
        (7, [8, 8], 8),
        (7, [8, None], None),
        (None, [8, None], None),
        (7, [0, 0], 0),
    ],
)
def test_whom_all_containers_run_as(shared: int | None, own: list[int | None], owner: int | None) -> None:
    containers = [{"name": f"c{n}", "securityContext": {"runAsUser": user}} for n, user in enumerate(own)]
    of = {"containers": containers[:1], "initContainers": containers[1:], "securityContext": {"runAsUser": shared}}
    assert file_owner(msgspec.convert(of, PodSpec)) == owner


@pytest.mark.parametrize(
    ("own", "user", "refused"),
    [
        ({"runAsUser": 0}, "", True),
        ({}, "", True),
        ({}, "root", True),
        ({}, "nobody", True),
        ({}, "65534", False),
        ({"runAsUser": 7}, "root", False),
    ],
)
def test_non_root(own: dict[str, Any], user: str, *, refused: bool) -> None:
    if refused:
        with pytest.raises(RefusedByPolicy):
            privileges(own | {"runAsNonRoot": True}, user=user)
    else:
        privileges(own | {"runAsNonRoot": True}, user=user)


def test_names() -> None:
    names = NodeNames(node="node1", host_ip="10.0.0.1", cluster_dns="10.96.0.10", cluster_domain="cluster.local")
    of: Pod = pod(hostname="h", subdomain="sub", hostAliases=[{"ip": "1.2.3.4", "hostnames": ["a", "b"]}])
    hosts = render_hosts(of, "10.244.0.5", names)
    assert "10.244.0.5\th.sub.default.svc.cluster.local\th\n" in hosts
    assert hosts.endswith("1.2.3.4\ta\tb\n")
    names = msgspec.structs.replace(names, host_hosts="127.0.0.1\tlocalhost\n10.0.0.9\tregistry\n")
    there = render_hosts(
        msgspec.structs.replace(of, spec=msgspec.structs.replace(of.spec, host_network=True)), "", names
    )
    assert there.startswith("# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n10.0.0.9")
    assert there.endswith("1.2.3.4\ta\tb\n")
    long = msgspec.structs.replace(
        pod(), metadata=msgspec.structs.replace(pod().metadata, name="a" * 62 + "-" + "b" * 40)
    )
    assert hostname_of(long) == "a" * 62


def test_what_the_kernel_calls_the_pod() -> None:
    def name(**spec: Any) -> str:
        return render_sandbox(pod(setHostnameAsFQDN=True, **spec), 0, cluster_domain="cluster.local").hostname

    assert name(hostname="h", subdomain="sub") == "h.sub.default.svc.cluster.local"
    assert name(hostname="h") == "h"
    with pytest.raises(HostnameTooLong, match="is too long"):
        name(hostname="h" * 40, subdomain="sub")
