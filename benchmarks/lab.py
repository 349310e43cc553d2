"""The figures of a whole lab: bring-up, idle memory, failover, pod start, pods of a dead node.

    .venv/bin/python benchmarks/lab.py [up memory leader-kill node-kill pod-start] [--name bench] [--rounds 10]

Brings up a lab of its own, measures, takes it down. Prints a table; asserts nothing. The image has to be built
before (any ``./trireme up`` has done that), or ``up`` measures the build as well.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {bench: pod}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "trireme/tools:1", command: ["/bin/sleep", "3600"]}]
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: moving}
spec:
  replicas: 4
  selector: {matchLabels: {bench: moving}}
  template:
    metadata: {labels: {bench: moving}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: main, image: "trireme/tools:1", command: ["/bin/sleep", "3600"]}]
"""


class Bench:
    """One lab and what is measured on it."""

    def __init__(self, name: str, rounds: int) -> None:
        self.name = name
        self.rounds = rounds
        self.results: list[tuple[str, str, str]] = []

    def run(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        """Run a command and return what it printed; a failure ends the benchmark with its output."""
        done = subprocess.run(argv, cwd=ROOT, env=self.env(), input=text, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(argv)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def env(self) -> dict[str, str]:
        """Return this process's environment with the lab's kubeconfig, once there is one."""
        home = Path(os.environ.get("TRIREME_HOME") or Path.home() / ".trireme")
        return os.environ | {"KUBECONFIG": str(home / "labs" / self.name / "kubeconfig")}

    def trireme(self, command: str, *args: str, check: bool = True) -> str:
        """Run ``./trireme`` on the lab."""
        return self.run("./trireme", command, "--name", self.name, *args, check=check)

    def report(self, what: str, value: str, goal: str) -> None:
        """Keep and print one figure."""
        self.results.append((what, value, goal))
        print(f"{what:52} {value:>22}   goal {goal}", flush=True)

    def up(self) -> None:
        """``up`` from nothing, image present, until all nodes are Ready."""
        self.trireme("down", check=False)
        times = []
        for _ in range(3):
            started = time.monotonic()
            self.trireme("up", "--yes")
            times.append(time.monotonic() - started)
            if len(times) < 3:
                self.trireme("down")
        self.report("up, image built (median of 3)", spread(times), "15 s or less, 8 s the aim")

    def memory(self) -> None:
        """Resident memory of the store and master processes on all masters, ten seconds after the last work."""
        time.sleep(10)
        total, parts = 0.0, []
        for host in self.hosts("master"):
            listing = self.trireme("ssh", host, "sh", "-c", "ps -eo rss=,args= | grep -E 'raft_store|-m master'")
            rss = [int(line.split()[0]) / 1024 for line in listing.splitlines() if "-m " in line and "grep" not in line]
            total += sum(rss)
            parts += rss
        each = " + ".join(f"{part:.0f}" for part in parts)
        self.report("idle memory of three masters (RSS)", f"{total:.0f} MB", f"450 MB or less ({each})")

    def leader_kill(self) -> None:
        """Leader killed: gaps in acknowledged writes, by the experiment itself."""
        with tempfile.TemporaryDirectory() as folder:
            argv = ("--name", self.name, "--repeat", str(self.rounds), "--folder", folder)
            self.run("./trireme", "experiment", "leader-kill", *argv)
            report = json.loads((Path(folder) / "report.json").read_text())
        medians = report["medians"]
        for what, field, goal in (
            ("leader killed: election", "election_s", "-"),
            ("leader killed: gap in store writes", "store_gap_s", "1 s or less"),
            ("leader killed: gap in API writes", "api_gap_s", "1.5 s or less"),
            ("leader killed: acknowledged writes lost", "", "0"),
        ):
            value = str(report["lost"]) if not field else f"{medians[field]:.2f} s"
            self.report(f"{what} (median of {self.rounds})" if field else what, value, goal)

    def node_kill(self) -> None:
        """Node killed: its pods Running elsewhere."""
        self.run("kubectl", "apply", "-f", "-", text=DEPLOYMENT)
        self.until(lambda: len(self.running("bench=moving")) == 4)
        victim = self.hosts("node")[0]
        started = time.monotonic()
        self.trireme("kill", victim)
        self.until(lambda: [node for node in self.running("bench=moving") if node != victim] == ["node2"] * 4)
        self.report("node killed: its pods Running elsewhere", f"{time.monotonic() - started:.1f} s", "15 s or less")
        self.trireme("start", victim)
        self.run("kubectl", "delete", "deployment", "moving")

    def pod_start(self) -> None:
        """``kubectl apply`` of one pod to Running, one after another."""
        times = []
        for number in range(self.rounds):
            name = f"bench-{number}"
            with self.watching(name) as wait_until_running:
                started = time.monotonic()
                self.run("kubectl", "apply", "-f", "-", text=POD % name)
                wait_until_running()
                times.append(time.monotonic() - started)
            self.run("kubectl", "delete", "pod", name, "--force", "--grace-period=0")
        self.report(f"kubectl apply of a pod to Running (median of {self.rounds})", spread(times), "1 s or less")

    @contextmanager
    def watching(self, name: str) -> Iterator[Callable[[], None]]:
        """Yield a function that returns once a watch begun before has shown the pod Running."""
        argv = [
            "kubectl",
            "get",
            "pods",
            "--field-selector",
            f"metadata.name={name}",
            "-w",
            "-o",
            "jsonpath={.status.phase}\n",
        ]
        with subprocess.Popen(argv, env=self.env(), stdout=subprocess.PIPE, text=True) as watch:
            time.sleep(0.5)  # until the watch stands

            def wait() -> None:
                assert watch.stdout is not None
                for line in watch.stdout:
                    if line.strip() == "Running":
                        return

            try:
                yield wait
            finally:
                watch.terminate()

    def hosts(self, role: str) -> list[str]:
        """Return the names of the lab's masters or nodes."""
        status: dict[str, Any] = json.loads(self.trireme("status", "-o", "json"))
        return [each["name"] for each in status[f"{role}s"]]

    def running(self, selector: str) -> list[str]:
        """Return the node of every Running pod that is not being deleted."""
        items = json.loads(
            self.run("kubectl", "get", "pods", "-l", selector, "-o", "json", check=False) or '{"items":[]}'
        )
        return [
            pod["spec"]["nodeName"]
            for pod in items["items"]
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait up to two minutes for ``condition``."""
        end = time.monotonic() + 120
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("gave up after two minutes; look at the lab: ./trireme status --name " + self.name)
            time.sleep(0.1)


def spread(times: list[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(times):.2f} s ({min(times):.2f}-{max(times):.2f})"


def main() -> None:
    """Measure what was asked for, on a lab that is gone afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = ("up", "memory", "pod-start", "leader-kill", "node-kill")
    parser.add_argument("what", nargs="*", help=f"any of {', '.join(steps)}; default: all")
    parser.add_argument("--name", default="bench")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keep", action="store_true", help="use the lab as it is, and leave it")
    options = parser.parse_args()
    if unknown := set(options.what) - set(steps):
        parser.error(f"cannot measure {', '.join(sorted(unknown))}: choose from {', '.join(steps)}")
    bench = Bench(options.name, options.rounds)
    wanted = options.what or steps
    try:
        if "up" not in wanted and not options.keep:
            bench.trireme("up", "--yes")
        for step in steps:
            if step in wanted:
                getattr(bench, step.replace("-", "_"))()
    finally:
        if not options.keep:
            bench.trireme("down", check=False)
    if not bench.results:
        sys.exit("nothing was measured")


if __name__ == "__main__":
    main()
