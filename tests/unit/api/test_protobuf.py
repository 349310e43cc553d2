"""What kubectl really sends: its protobuf bodies against the JSON that the same kubectl prints for the same command.

kubectl's create commands send protobuf to a server; with ``--dry-run=client -o json`` they print what they would send.
A tiny HTTP server records the bodies, so the expectation comes from kubectl itself.
"""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import codec, protobuf
from api.errors import ApiError, BadRequest
from api.kinds.table import TABLE

COMMANDS = {
    "namespace": "namespace a",
    "configmap": "configmap a --from-literal=x=y --from-literal=z=",
    "secret": "secret generic a --from-literal=x=y",
    "serviceaccount": "serviceaccount a",
    "service": "service nodeport a --tcp=80:8080 --node-port=30080",
    "deployment": "deployment a --image=i --port=80 --replicas=3 -- sleep 5",
    "job": "job a --image=i -- sleep 5",
    "cronjob": "cronjob a --image=i --schedule=@hourly -- sleep 5",
    "role": "role a --verb=get,list --resource=pods,deployments.apps --resource-name=x",
    "rolebinding": "rolebinding a --role=r --user=u --group=g --serviceaccount=n:s",
    "clusterrolebinding": "clusterrolebinding a --clusterrole=r --user=u",
    "quota": "quota a --hard=cpu=1,memory=1G,pods=2 --scopes=BestEffort",
    "pdb": "poddisruptionbudget a --selector=a=b --min-available=50%",
    "priorityclass": "priorityclass a --value=-5 --description=d --global-default=true",
    "ingress": "ingress a --rule=h.example/p*=s:80,tls=t --default-backend=d:http",
}


class _Recorder(BaseHTTPRequestHandler):
    bodies: ClassVar[list[bytes]] = []

    def do_GET(self):
        answers = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups()},
        }
        path = self.path.split("?")[0]
        answer = answers.get(path) or _resources(path.removeprefix("/apis/").removeprefix("/api/"))
        self._answer(200, answer)

    def do_POST(self):
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(
            400, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 400, "message": "recorded"}
        )

    def _answer(self, code, document):
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def _groups():
    versions = {}
    for row in TABLE:
        if row.group:
            versions.setdefault(row.group, row.group_version)
    return [
        {"name": name, "versions": [{"groupVersion": gv, "version": gv.split("/")[1]}],
         "preferredVersion": {"groupVersion": gv, "version": gv.split("/")[1]}}
        for name, gv in versions.items()
    ]  # fmt: skip


def _resources(group_version):
    rows = [row for row in TABLE if row.group_version == group_version]
    return {
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": [
            {"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
             "verbs": list(row.verbs), "shortNames": list(row.short_names)} for row in rows
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def server():
    httpd = HTTPServer(("127.0.0.1", 0), _Recorder)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl: ./trireme test installs it")
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_kubectls_own_bodies_read_as_its_own_json(server, command, tmp_path):
    words = ["kubectl", f"--server={server}", "--kubeconfig=/dev/null", f"--cache-dir={tmp_path}", "create"]
    verb, _, program = command.partition(" -- ")
    tail = ["--", *program.split()] if program else []
    dry = [*words, *verb.split(), "--dry-run=client", "-o", "json", "--validate=false", *tail]
    printed = subprocess.run(dry, capture_output=True, text=True, check=True, timeout=30).stdout
    expected = json.loads(printed)
    _Recorder.bodies.clear()
    subprocess.run([*words, *verb.split(), "--validate=false", *tail], capture_output=True, check=False, timeout=30)
    body = _Recorder.bodies[-1]
    kind = TABLE.kind(expected["apiVersion"], expected["kind"])
    if not body.startswith(protobuf.MAGIC):
        assert json.loads(body)["kind"] == kind.kind
        pytest.skip("this kubectl sends JSON for this kind")
    document = protobuf.decode(body)
    assert document["metadata"].pop("namespace", "default") in ("default", "")
    expected["metadata"].pop("namespace", None)
    for each in (document, expected):
        each.pop("status", None)  # nobody may send one on create, and JSON shows zeros there that the wire leaves out
    assert codec.decode(kind, document) == codec.decode(kind, expected)


@given(st.binary(max_size=80))
def test_no_body_breaks_the_reader(data):
    envelope = b"\x0a\x15\x0a\x07apps/v1\x12\x0aDeployment\x12" + bytes([len(data)])
    try:
        document = protobuf.decode(protobuf.MAGIC + envelope + data)
    except ApiError:
        return
    assert document["kind"] == "Deployment"


def test_every_row_names_fields_that_the_structs_have():
    import inspect

    from api.kinds import table
    from api.protobuf_fields import NUMBERS
    from api.shapes import fields_of
    from api.struct import ApiStruct
    from tools.generate_kinds import MODULES

    structs = {}
    import importlib

    for module in MODULES:
        for name, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
            if issubclass(cls, ApiStruct) and cls.__module__ == module:
                structs.setdefault(name, set()).update(fields_of(cls))
    assert table.ROWS
    for message, numbers in NUMBERS.items():
        if message in structs:
            unknown = {name for name in numbers.values() if not name.startswith("*")} - structs[message]
            assert unknown <= {"lastObservedTime", "series"} | set(), (message, unknown)
        for name in numbers.values():
            assert not name.startswith("*") or name[1:] in NUMBERS, (message, name)


def _record(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def _body(version: bytes, kind: bytes, message: bytes) -> bytes:
    return protobuf.MAGIC + _record(1, _record(1, version) + _record(2, kind)) + _record(2, message)


@pytest.mark.parametrize("data", [b"{", b'{"a":1}{', b"NaN", b"\xff"])
def test_data_that_is_no_json_is_refused(data):
    body = _body(b"apps/v1", b"ControllerRevision", _record(2, _record(1, data)))
    with pytest.raises(BadRequest):
        protobuf.decode(body)


def test_times_long_ago_keep_their_four_digits():
    seconds = (-62_135_596_799) % 2**64
    varint = b"".join(bytes([seconds >> shift & 0x7F | (0x80 if shift < 63 else 0)]) for shift in range(0, 70, 7))
    meta = _record(8, b"\x08" + varint)
    assert protobuf.decode(_body(b"v1", b"ConfigMap", _record(1, meta)))["metadata"] == {
        "creationTimestamp": "0001-01-01T00:00:01Z"
    }


def test_a_second_has_no_more_nanoseconds_than_it_has():
    meta = _record(8, b"\x08\x01\x10\x80\x94\xeb\xdc\x03")
    with pytest.raises(BadRequest, match="out of range"):
        protobuf.decode(_body(b"v1", b"ConfigMap", _record(1, meta)))


def test_times_to_the_microsecond_always_have_six_digits():
    spec = _record(3, b"\x08\x02") + _record(4, b"\x08\x02\x10\x88\x27")
    lease = protobuf.decode(_body(b"coordination.k8s.io/v1", b"Lease", _record(2, spec)))
    assert lease["spec"] == {"acquireTime": "1970-01-01T00:00:02.000000Z", "renewTime": "1970-01-01T00:00:02.000005Z"}


def test_times_are_read_whatever_their_fields_are_called():
    moment = b"\x08\x82\x9e\x9d\xe0\x06"  # bytes that are no UTF-8
    running = _record(2, _record(2, _record(1, moment)))
    pod = protobuf.decode(_body(b"v1", b"Pod", _record(3, _record(8, running))))
    assert pod["status"]["containerStatuses"] == [{"state": {"running": {"startedAt": "2027-06-08T01:31:46Z"}}}]
    disrupted = _record(2, _record(1, b"web-1") + _record(2, moment))
    budget = protobuf.decode(_body(b"policy/v1", b"PodDisruptionBudget", _record(3, disrupted)))
    assert budget["status"]["disruptedPods"] == {"web-1": "2027-06-08T01:31:46Z"}


def _varint(number: int) -> bytes:
    return bytes([number >> shift & 0x7F | (0x80 if number >> shift > 0x7F else 0) for shift in (0, 7, 14, 21, 28)])


def test_each_time_has_the_precision_of_its_field():
    moment = b"\x08" + _varint(1_505_828_956)
    lease = _record(2, _record(3, moment) + _record(4, moment + b"\x10" + _varint(1_234_567)))
    assert protobuf.decode(_body(b"coordination.k8s.io/v1", b"Lease", lease))["spec"] == {
        "acquireTime": "2017-09-19T13:49:16.000000Z",
        "renewTime": "2017-09-19T13:49:16.001234Z",
    }
    waited = _record(1, moment + b"\x10" + _varint(1_234_567))
    status = _record(3, _record(8, _record(2, _record(2, waited))))
    (container,) = protobuf.decode(_body(b"v1", b"Pod", status))["status"]["containerStatuses"]
    assert container["state"]["running"]["startedAt"] == "2017-09-19T13:49:16Z"
