"""What people do with running pods, by an old kubectl (SPDY), a new one (websockets) and the official Python client."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Failed, LabUnderTest, until
from tests.e2e.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(120)]

IMAGE = "trireme/tools:1"
COUNT = "trap 'exit 0' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2 & wait $!; done"
ECHO = "while read line; do echo got $line; done"
BOX = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "box", "labels": {"app": "box"}},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", COUNT]},
            {"name": "side", "image": IMAGE, "command": ["/bin/sh", "-c", ECHO], "stdin": True},
            {
                "name": "web",
                "image": IMAGE,
                "command": ["/bin/web"],
                "ports": [{"name": "http", "containerPort": 8080}],
            },
        ],
    },
}
DIES = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "dies"},
    "spec": {
        "containers": [
            {
                "name": "main",
                "image": IMAGE,
                "command": [
                    "/bin/sh",
                    "-c",
                    "if [ -e /work/x ]; then echo second; sleep 3600; fi; echo first; touch /work/x",
                ],
                "volumeMounts": [{"name": "work", "mountPath": "/work"}],
            }
        ],
        "volumes": [{"name": "work", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    },
}


class Kubectl:
    """One kubectl in a namespace of its own."""

    def __init__(self, lab: LabUnderTest, binary: str) -> None:
        version = json.loads(
            subprocess.run([binary, "version", "--client", "-o", "json"], capture_output=True, check=True).stdout
        )
        self.minor = int(re.sub(r"\D", "", version["clientVersion"]["minor"]))
        self.namespace = f"clients-{self.minor}"
        self.argv = [binary, "-n", self.namespace]
        self.env = os.environ | {"KUBECONFIG": lab.env["KUBECONFIG"]}

    def run(self, *args: str, stdin: bytes = b"", timeout_s: float = 60) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*self.argv, *args], env=self.env, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )

    def __call__(self, *args: str, stdin: bytes = b"", timeout_s: float = 60) -> str:
        """Return what it printed; raises Failed if it does not succeed."""
        done = self.run(*args, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise Failed(f"kubectl {' '.join(args)} exited with {done.returncode}:\n{done.stdout!r}\n{done.stderr!r}")
        return done.stdout.decode()

    @contextlib.contextmanager
    def terminal(self, *args: str) -> Iterator[Terminal]:
        terminal = Terminal([*self.argv, *args], self.env)
        try:
            yield terminal
        finally:
            terminal.kill()

    @contextlib.contextmanager
    def started(self, *args: str, stdin: int | None = None) -> Iterator["subprocess.Popen[str]"]:
        """Run it until the block ends."""
        with subprocess.Popen(
            [*self.argv, *args], env=self.env, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture(scope="module", params=["new", "1.20"])
def kubectl(request: pytest.FixtureRequest, lab: LabUnderTest, old_kubectl: str) -> Iterator[Kubectl]:
    found = Kubectl(lab, old_kubectl if request.param == "1.20" else os.environ.get("TRIREME_KUBECTL", "kubectl"))
    found("create", "namespace", found.namespace)
    found("apply", "-f", "-", stdin=json.dumps(BOX).encode())
    found("apply", "-f", "-", stdin=json.dumps(DIES).encode())
    found("expose", "pod", "box", "--port=80", "--target-port=http")
    found("wait", "--for=condition=Ready", "pod/box", "--timeout=60s", timeout_s=70)
    yield found
    found("delete", "namespace", found.namespace, "--timeout=60s", timeout_s=70)


def test_commands(kubectl: Kubectl) -> None:
    done = kubectl.run("exec", "box", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.returncode) == (b"out\n", 7)
    assert done.stderr == b"err\ncommand terminated with exit code 7\n"
    missing = kubectl.run("exec", "box", "-c", "main", "--", "no-such-program")
    assert missing.returncode == 126
    assert b'"no-such-program": executable file not found' in missing.stdout
    assert b"container nope is not valid for pod box" in kubectl.run("exec", "box", "-c", "nope", "--", "true").stderr


def test_input_and_output_of_any_size(kubectl: Kubectl) -> None:
    data = os.urandom(1_000_000)
    execute = ("exec", "-i", "box", "-c", "main", "--")
    assert kubectl.run(*execute, "cat", stdin=data).stdout == data
    counted = kubectl.run(*execute, "sh", "-c", "wc -c; exit 4", stdin=data)
    assert (counted.stdout, counted.returncode) == (b"1000000\n", 4)
    # A command that does not want all of its input is no error.
    for _ in range(3):
        head = kubectl.run(*execute, "head", "-c", "10", stdin=data)
        assert (head.stdout, head.returncode) == (data[:10], 0)


def test_a_terminal(kubectl: Kubectl) -> None:
    with kubectl.terminal("exec", "-it", "box", "-c", "main", "--", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("stty size\r")
        terminal.expect("33 91")
        terminal.expect("# ")
        terminal.resize(44, 101)
        terminal.type("until stty size | grep -q '44 101'; do :; done; echo si''zed\r")
        terminal.expect("sized")
        terminal.type("sleep 1000\r")
        terminal.expect("sleep 1000\r\n")
        terminal.type("\x03")
        terminal.expect("# ")
        terminal.type("exit 5\r")
        terminal.expect("exit code 5")
        assert terminal.close() == 5
    with kubectl.terminal(
        "exec", "-it", "box", "-c", "main", "--", "sh", "-c", "echo ready; cat; echo en''ded"
    ) as terminal:
        terminal.expect("ready")
        terminal.type("typed\r")
        terminal.expect("typed\r\ntyped")
        terminal.type("\x04")
        terminal.expect("ended")
        assert terminal.close() == 0


def test_copies_both_ways(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_bytes(data := os.urandom(200_000))
    kubectl("cp", str(tmp_path / "tree"), "box:/tmp/tree", "-c", "main")
    kubectl("cp", "box:/tmp/tree", str(tmp_path / "back"), "-c", "main")
    assert (tmp_path / "back" / "below" / "file").read_bytes() == data
    kubectl("cp", "box:/tmp/tree/below/file", str(tmp_path / "alone"), "-c", "main")
    assert (tmp_path / "alone").read_bytes() == data


def test_attach(kubectl: Kubectl) -> None:
    with kubectl.started("attach", "box", "-c", "main") as watching:
        assert watching.stdout is not None
        assert any(re.fullmatch(r"line \d+\n", watching.stdout.readline()) for _ in range(3))
    with kubectl.started("attach", "-i", "box", "-c", "side", stdin=subprocess.PIPE) as talking:
        assert talking.stdin is not None
        assert talking.stdout is not None
        talking.stdin.write("one\ntwo\n")
        talking.stdin.close()
        # The process reads on, for whoever attaches next; so what it says goes on coming.
        lines = iter(talking.stdout.readline, "")
        assert [next(line for line in lines if line.startswith("got")) for _ in range(2)] == ["got one\n", "got two\n"]
        assert talking.poll() is None
    assert kubectl("get", "pod", "box", "-o", "jsonpath={.status.containerStatuses[*].restartCount}") == "0 0 0"


def test_logs(kubectl: Kubectl) -> None:
    last = kubectl("logs", "box", "-c", "main", "--tail=2").splitlines()
    assert len(last) == 2
    assert re.fullmatch(r"line \d+", last[0])
    assert kubectl("logs", "box", "-c", "main", "--limit-bytes=9") == "line 0\nli"
    stamped = kubectl("logs", "box", "-c", "main", "--tail=1", "--timestamps")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line \d+\n", stamped)
    recent = kubectl("logs", "box", "-c", "main", "--since=1s").splitlines()
    assert 0 < len(recent) < 15
    assert re.search(
        r"^\[pod/box/main\] line \d+$", kubectl("logs", "box", "--all-containers", "--prefix", "--tail=1"), re.MULTILINE
    )
    assert re.fullmatch(r"line \d+\n", kubectl("logs", "-l", "app=box", "-c", "main", "--tail=1"))
    with kubectl.started("logs", "-f", "box", "-c", "main", "--tail=1") as following:
        assert following.stdout is not None
        numbers = [int(following.stdout.readline().split()[1]) for _ in range(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    until("the other pod is in its second life", lambda: kubectl("logs", "dies") == "second\n")
    assert kubectl("logs", "dies", "--previous") == "first\n"
    assert b"previous terminated container" in kubectl.run("logs", "box", "-c", "main", "--previous").stderr


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _local_port(forwarding: "subprocess.Popen[str]") -> int:
    """Return where the client listens; it names the address of each family in a line of its own."""
    assert forwarding.stdout is not None
    lines = forwarding.stdout.readline() + forwarding.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+) -> ", lines)
    assert found is not None, lines
    return int(found[1])


@pytest.mark.parametrize("target", ["pod/box :8080", "service/box :80"])
def test_forwarded_ports(kubectl: Kubectl, target: str) -> None:
    with kubectl.started("port-forward", *target.split()) as forwarding:
        port = _local_port(forwarding)
        assert {_fetch(f"http://127.0.0.1:{port}/") for _ in range(10)} == {"box\n"}
        forwarding.send_signal(signal.SIGINT)
        assert forwarding.stdout is not None
        said = forwarding.stdout.read()
    # Nothing but that connections came: no complaint about how they ended.
    assert set(said.splitlines()) <= {f"Handling connection for {port}"}


def test_a_port_that_nobody_listens_on_is_named(kubectl: Kubectl) -> None:
    with kubectl.started("port-forward", "pod/box", ":9") as forwarding:
        port = _local_port(forwarding)
        with pytest.raises(OSError):  # noqa: PT011 - however the library tells that the connection was closed
            _fetch(f"http://127.0.0.1:{port}/")
        assert forwarding.stdout is not None
        assert "Handling connection" in forwarding.stdout.readline()
        assert "port 9 of box: Connection refused" in forwarding.stdout.readline()


def test_proxied_requests(kubectl: Kubectl) -> None:
    with kubectl.started("proxy", "--port=0") as proxy:
        assert proxy.stdout is not None
        found = re.search(r":(\d+)$", proxy.stdout.readline().strip())
        assert found is not None
        root, own = f"http://127.0.0.1:{found[1]}/api/v1", f"namespaces/{kubectl.namespace}"
        assert _fetch(f"{root}/{own}/pods/box:8080/proxy/") == "box\n"
        assert _fetch(f"{root}/{own}/services/box:80/proxy/healthz") == "ok\n"
        assert "node_cpu_usage_seconds_total" in _fetch(f"{root}/nodes/node1/proxy/metrics")
        with pytest.raises(urllib.error.HTTPError) as missing:
            _fetch(f"{root}/{own}/services/nothing/proxy/")
        with missing.value as answer:
            assert answer.code == 404


def test_run_and_remove(kubectl: Kubectl) -> None:
    run = ("run", "-i", "--rm", "--restart=Never", f"--image={IMAGE}")
    done = kubectl.run(*run, "once", "--", "sh", "-c", "cat; echo done", stdin=b"piped\n")
    assert done.returncode == 0
    assert done.stdout.startswith(b"piped\ndone\n")
    assert kubectl.run(*run, "fails", "--", "sh", "-c", "exit 6").returncode == 6
    with kubectl.terminal(*run, "-t", "shell", "--", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("echo in''side\r")
        terminal.expect("inside")
        terminal.type("exit\r")
        terminal.expect("deleted")
        assert terminal.close() == 0
    assert kubectl("get", "pods", "-o", "name") == "pod/box\npod/dies\n"


def test_debuggers(kubectl: Kubectl) -> None:
    if kubectl.minor < 25:
        pytest.skip("kubectl 1.20 debugs by an API that was never stable")
    debug = ("debug", f"--image={IMAGE}", "--profile=general")
    with kubectl.terminal(*debug, "box", "-it", "--target=main", "-c", "looks", "--", "sh") as terminal:
        terminal.expect("# ")
        terminal.type("ps\r")
        terminal.expect("echo line $i")  # the command line of the other container's process
        terminal.type("exit 3\r")
        terminal.expect("exit 3")
        terminal.close()
    status = json.loads(kubectl("get", "pod", "box", "-o", "json"))["status"]
    (debugger,) = status["ephemeralContainerStatuses"]
    assert (debugger["name"], debugger["state"]["terminated"]["exitCode"]) == ("looks", 3)
    assert [each["restartCount"] for each in status["containerStatuses"]] == [0, 0, 0]
    kubectl(*debug, "node/node1", "--", "ls", "/host/etc/trireme")
    pods = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    name = next(each["metadata"]["name"] for each in pods if each["metadata"]["name"].startswith("node-debugger"))
    until("the host's files are listed", lambda: "node.toml" in kubectl("logs", name))


def test_figures(kubectl: Kubectl) -> None:
    until("the pod is measured", lambda: "box " in kubectl("top", "pods"), timeout_s=30)
    assert "web " in kubectl("top", "pod", "--containers")


def test_editing(kubectl: Kubectl) -> None:
    kubectl.env["EDITOR"] = "sed -i s/app:.box/app:\\ edited/"
    kubectl("edit", "service", "box")
    assert kubectl("get", "service", "box", "-o", "jsonpath={.spec.selector.app}") == "edited"
    assert "no changes made" in kubectl.run("edit", "service", "box").stderr.decode()


def test_a_drain_waits_for_a_budget(kubectl: Kubectl) -> None:
    kubectl(
        "create",
        "deployment",
        "web",
        f"--image={IMAGE}",
        "--replicas=4",
        *(["--", "/bin/web"] if kubectl.minor > 20 else []),
    )
    if kubectl.minor <= 20:
        patch = [{"op": "add", "path": "/spec/template/spec/containers/0/command", "value": ["/bin/web"]}]
        kubectl("patch", "deployment", "web", "--type=json", "-p", json.dumps(patch))
    kubectl("create", "pdb", "web", "--selector=app=web", "--min-available=3")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout_s=70)
    until("one may go", lambda: kubectl("get", "pdb", "web", "-o", "jsonpath={.status.disruptionsAllowed}") == "1")
    on = kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    node = max(set(on), key=on.count)
    ready = "jsonpath={.status.readyReplicas}"
    try:
        command = [
            *kubectl.argv,
            "drain",
            node,
            "--ignore-daemonsets",
            "--force",
            "--timeout=60s",
            "--pod-selector=app=web",
        ]
        least = 4
        with subprocess.Popen(
            command, env=kubectl.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as drain:
            while drain.poll() is None:
                least = min(least, int(kubectl("get", "deployment", "web", "-o", ready) or 0))
                time.sleep(0.05)
            assert drain.stdout is not None
            said = drain.stdout.read()
        assert drain.returncode == 0, said
        assert "Cannot evict pod as it would violate the pod's disruption budget." in said
        assert least >= 3
        left = kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}").split()
        assert node not in left
    finally:
        kubectl("uncordon", node)
    kubectl("delete", "deployment/web", "pdb/web")


SCRIPT = """
import sys
from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config()
core, where = client.CoreV1Api(), ("box", sys.argv[1])
streams = dict(stderr=True, stdin=True, stdout=True, tty=False, _preload_content=False)
shell = stream(core.connect_get_namespaced_pod_exec, *where, container="main", command=["sh"], **streams)
shell.write_stdin("echo out; echo err >&2\\n")
print(shell.readline_stdout(timeout=10), shell.readline_stderr(timeout=10))
shell.write_stdin("exit 3\\n")
shell.run_forever(timeout=10)
print(shell.returncode, shell.is_open())
cat = stream(core.connect_get_namespaced_pod_exec, *where, container="main", command=["cat"], binary=True, **streams)
cat.write_stdin(bytes(range(256)))
cat.update(timeout=10)
print(cat.read_stdout(timeout=10) == bytes(range(256)))
cat.close()
attached = stream(core.connect_post_namespaced_pod_attach, *where, container="side", **streams)
attached.write_stdin("python\\n")
print(attached.readline_stdout(timeout=10))
attached.close()
forwarded = portforward(core.connect_get_namespaced_pod_portforward, *where, ports="8080,9")
http = forwarded.socket(8080)
http.setblocking(True)
http.sendall(b"GET / HTTP/1.0\\\\r\\\\n\\\\r\\\\n")
answer = b""
while data := http.recv(1024):
    answer += data
print(answer.splitlines()[-1], forwarded.error(8080))
refused = forwarded.socket(9)
refused.setblocking(True)
print(refused.recv(10), forwarded.error(9))
"""


def test_the_python_client(lab: LabUnderTest, kubectl: Kubectl) -> None:
    script = SCRIPT.replace("\\\\r\\\\n", "\\r\\n")
    argv = [str(ROOT / ".venv/bin/python"), "-W", "ignore", "-c", script, kubectl.namespace]
    done = subprocess.run(argv, env=kubectl.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [
        "out err",
        "3 False",
        "True",
        "got python",
        "b'box' None",
        "b'' an error occurred forwarding 9: port 9 of box: Connection refused",
    ], done.stderr
