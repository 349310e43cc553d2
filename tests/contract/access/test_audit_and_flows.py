"""What a running master writes down, and how it holds a greedy client back."""

import base64
import concurrent.futures
import json
import ssl
import urllib.error
import urllib.request

import grpc

from tests.contract.access.cluster import running
from trireme_pb.etcdserverpb import rpc_pb2, rpc_pb2_grpc

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- level: None
  userGroups: ["system:masters"]
  verbs: ["get", "list", "watch"]
- level: RequestResponse
"""


def test_audit_log_and_flow_headers(tmp_path):
    (tmp_path / "policy.yaml").write_text(POLICY)
    log = tmp_path / "logs" / "audit.log"
    access = f'audit_log = "{log}"\naudit_policy = "{tmp_path}/policy.yaml"'
    with running(tmp_path, access=access) as cluster:
        cluster.kubectl("create", "deployment", "d", "--image=x", "--replicas=0")
        cluster.kubectl("create", "secret", "generic", "s", "--from-literal=password=hunter2hunter2")
        cluster.kubectl("get", "deployments")
        cluster.kubectl("create", "configmap", "c", "--as", "bob", "--as-group", "system:masters")
        cluster.until("the lines are written", lambda: log.exists() and '"bob"' in log.read_text())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        told = {
            each["objectRef"]["resource"]: each
            for each in lines
            if each["verb"] == "create" and each["user"]["username"] == "admin" and "objectRef" in each
        }
        assert told["deployments"]["responseObject"]["metadata"]["uid"]
        assert told["deployments"]["annotations"]["authorization.k8s.io/decision"] == "allow"
        assert told["secrets"]["level"] == "Metadata"
        assert told["configmaps"]["impersonatedUser"]["username"] == "bob"
        assert not [each for each in lines if each["verb"] == "list" and each["user"]["username"] == "admin"]
        assert "hunter2" not in log.read_text()

        context = ssl.create_default_context(cafile=f"{cluster.authority.path}.crt")
        context.load_cert_chain(f"{cluster.admin}.crt", f"{cluster.admin}.key")
        node = ssl.create_default_context(cafile=f"{cluster.authority.path}.crt")
        stem = cluster.authority.issue("n1", "system:node:n1", "system:nodes")
        node.load_cert_chain(f"{stem}.crt", f"{stem}.key")

        def get(who: ssl.SSLContext, path: str) -> tuple[int, dict[str, str]]:
            try:
                with urllib.request.urlopen(cluster.urls[0] + path, context=who, timeout=60) as answer:
                    return answer.status, dict(answer.headers)
            except urllib.error.HTTPError as error:
                return error.code, dict(error.headers)

        _, headers = get(context, "/api/v1/nodes")
        _, of_node = get(node, "/api/v1/nodes/n1")
        for name in ("Audit-Id", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid"):
            found, other = ({key.lower(): value for key, value in each.items()} for each in (headers, of_node))
            assert found[name.lower()] != other[name.lower()]

        # A client that asks 200 times at once: some of it has to come again, and a node's heartbeat is never refused.
        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            greedy = [pool.submit(get, context, "/apis/apps/v1/deployments") for _ in range(400)]
            beats = [get(node, "/api/v1/nodes/n1")[0] for _ in range(5)]
            outcomes = [each.result() for each in greedy]
        assert set(beats) == {404}
        assert {code for code, _ in outcomes} <= {200, 429}
        assert all(headers.get("Retry-After") == "1" for code, headers in outcomes if code == 429)


def test_secrets_lie_sealed_in_the_store(tmp_path):
    """Through a whole master: what etcd's clients see of a secret is not what kubectl shows."""
    key = tmp_path / "secrets.key"
    key.write_text(base64.b64encode(b"k" * 32).decode() + "\n")
    with running(tmp_path, access=f'encryption_keys = ["{key}"]') as cluster:
        cluster.kubectl("create", "secret", "generic", "s", "--from-literal=password=hunter2hunter2")
        encoded = base64.b64encode(b"hunter2hunter2").decode()
        assert cluster.get("secret", "s")["data"] == {"password": encoded}
        with grpc.insecure_channel(cluster.store) as channel:
            stub = rpc_pb2_grpc.KVStub(channel)
            found = stub.Range(rpc_pb2.RangeRequest(key=b"/registry/secrets/default/s"), timeout=5)
        (kv,) = found.kvs
        assert kv.value.startswith(b"k8s:enc:aesgcm:v1:")
        assert encoded.encode() not in kv.value
        log = tmp_path / "master0.log"
        # Nothing was sealed by another key or plain, so nothing is written anew; and nothing went wrong.
        assert "cannot be opened" not in log.read_text()
        assert "Traceback" not in log.read_text()
