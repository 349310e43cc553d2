"""A gRPC client of the cluster, from nothing but ``proto/``: list nodes, run a pod, watch it, survive a master's death.

    eval "$(./trireme env)"
    .venv/bin/python examples/grpc_client.py

Every master serves the same objects, and a revision means the same on each, so a watch that breaks goes on elsewhere
from where it stopped: nothing is missed, nothing comes twice.
"""

import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "from-grpc"},
    "spec": {
        "containers": [{"name": "main", "image": "trireme/tools:1", "command": ["/bin/sleep", "3600"]}],
        "terminationGracePeriodSeconds": 0,
    },
}


def make_stubs() -> tuple[Any, Any]:
    """Generate the stubs into a temporary folder, as any client in any language would, and import them."""
    with tempfile.TemporaryDirectory(prefix="trireme-stubs-") as folder:
        code = protoc.main([
            "protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", f"--grpc_python_out={folder}",
            str(ROOT / "proto/cluster/cluster.proto"),
        ])  # fmt: skip
        if code != 0:
            raise SystemExit("protoc refused proto/cluster/cluster.proto; its message is above")
        sys.path.insert(0, folder)
        try:
            from cluster import cluster_pb2, cluster_pb2_grpc  # noqa: PLC0415 - did not exist before
        finally:
            sys.path.remove(folder)

    return cluster_pb2, cluster_pb2_grpc


class Masters:
    """Calls whichever master answers; the caller names the call, not the master."""

    def __init__(self, addresses: list[str], credentials: grpc.ChannelCredentials) -> None:
        options = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 1000)]
        self._channels = [grpc.secure_channel(each, credentials, options) for each in addresses]
        self._current = 0

    def call(self, work: Callable[[grpc.Channel], Any], *, patience_s: float = 15.0) -> Any:
        """Return ``work(channel)``; on a master that is gone, go to the next until ``patience_s`` is over."""
        give_up = time.monotonic() + patience_s
        while True:
            try:
                return work(self._channels[self._current])
            except grpc.RpcError as error:
                gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if not gone or time.monotonic() > give_up:
                    raise
                self._current = (self._current + 1) % len(self._channels)
                print(f"  (no answer: {error.details()}; trying the next master)")
                time.sleep(0.1)


def connection() -> tuple[list[str], grpc.ChannelCredentials]:
    """Return the masters' addresses and our credentials, from what ``./trireme env`` exports."""
    try:
        config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        stores = os.environ["ETCDCTL_ENDPOINTS"].split(",")
    except KeyError as missing:
        raise SystemExit(f'{missing} is not set: run  eval "$(./trireme env)"  first') from None
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    credentials = grpc.ssl_channel_credentials(
        base64.b64decode(cluster["certificate-authority-data"]),
        base64.b64decode(user["client-key-data"]),
        base64.b64decode(user["client-certificate-data"]),
    )
    hosts = [each.removeprefix("https://").rsplit(":", 1)[0] for each in stores]
    return [f"{host}:6444" for host in hosts], credentials


def watch_pod(masters: Masters, pb: Any, rpc: Any, created: Any) -> Iterator[dict[str, Any]]:
    """Yield every state of the pod, from its creation on, across masters."""
    revision = created.resource_version

    def follow(channel: grpc.Channel) -> Any:
        request = pb.WatchRequest(
            target=pb.Target(version="v1", resource="pods", namespace="default"),
            field_selector="metadata.name=" + created.name,
            resource_version=revision,
        )
        return next(rpc.ResourcesStub(channel).Watch(request, timeout=30))

    while True:
        event = masters.call(follow)
        revision = event.object.resource_version
        if event.type != pb.WatchEvent.BOOKMARK:
            yield json.loads(event.object.json)


def main() -> None:
    """List the nodes, run a pod until it is Running, remove it."""
    pb, rpc = make_stubs()
    masters = Masters(*connection())

    nodes = pb.ListRequest(target=pb.Target(version="v1", resource="nodes"))
    for node in masters.call(lambda channel: rpc.ResourcesStub(channel).List(nodes, timeout=3)).items:
        info = json.loads(node.json)["status"]
        print(f"node {node.name}: {info['capacity']['cpu']} CPUs, {info['nodeInfo']['containerRuntimeVersion']}")

    pods = pb.Target(version="v1", resource="pods", namespace="default")
    create = pb.CreateRequest(target=pods, json=json.dumps(POD).encode())
    created = masters.call(lambda channel: rpc.ResourcesStub(channel).Create(create, timeout=5))
    print(f"created pod {created.name} at revision {created.resource_version}")
    try:
        for pod in watch_pod(masters, pb, rpc, created):
            status = pod["status"]
            print(f"  {status.get('phase')} on {pod['spec'].get('nodeName', '(no node yet)')}")
            if status.get("phase") == "Running":
                print(f"pod {created.name} runs with address {status['podIP']}")
                break
    finally:
        target = pb.Target(version="v1", resource="pods", namespace="default", name=created.name)
        delete = pb.DeleteRequest(target=target, grace_period_s=0)
        masters.call(lambda channel: rpc.ResourcesStub(channel).Delete(delete, timeout=5))
        print(f"deleted pod {created.name}")


if __name__ == "__main__":
    main()
