"""Run Kubernetes' conformance tests against a lab, and write what they said into ``docs/conformance.md``."""

import argparse
import json
import os
import subprocess
from pathlib import Path

import docker
from rich.console import Console

from deploy import shell
from deploy.checks import debian_kubectl
from deploy.state import home, kubeconfig
from tests.conformance import images, results
from tests.conformance.suite import Suite

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "conformance.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("focus", nargs="?", default="", help="regular expression of test names; all by default")
    parser.add_argument("--lab", default="lab", help="that is up, with two nodes")
    parser.add_argument("--hours", type=float, default=4.0, help="after which the suite is stopped")
    parser.add_argument("--log", type=Path, action="append", help="read what such a run logged before, run nothing")
    arguments = parser.parse_args()
    suite = Suite()
    suite.build()
    logs = arguments.log
    if not logs:
        images.build(suite, docker.from_env())
        shell.run([str(ROOT / "trireme"), "load", "--name", arguments.lab, *images.names(suite)], timeout_s=1800)
        logs = [run(suite, arguments.lab, arguments.focus, arguments.hours)]
    before = json.loads(results.RESULTS.read_text()) if results.RESULTS.exists() else {}
    said = before | {name: passed for log in logs for name, passed in results.read_log(log.read_text())}
    latest = {name: said.get(name) for name in sorted(suite.named())}
    results.RESULTS.write_text(json.dumps(latest, indent=0) + "\n")
    PAGE.write_text(results.table(latest, results.known()))
    passed = sum(1 for each in latest.values() if each)
    print(f"{passed} of {len(latest)} conformance tests passed when they were last run: {PAGE}")


def run(suite: Suite, lab: str, focus: str, hours: float) -> Path:
    """Return the log of a run of the tests that match ``focus``."""
    skipped = "|".join(each.pattern.pattern for each in results.known())
    folder = home() / "logs" / "conformance"
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        str(suite.program), "--provider=skeleton", f"--kubeconfig={kubeconfig(lab)}",
        f"--kubectl-path={debian_kubectl(Console(stderr=True))}", "--minStartupPods=0", "--disable-log-dump=true", "--ginkgo.noColor",
        rf"--ginkgo.focus={focus}.*\[Conformance\]", *([f"--ginkgo.skip={skipped}"] if skipped else []),
    ]  # fmt: skip
    log = folder / "log"
    print(f"running; see {log}", flush=True)
    environment = os.environ | {"KUBECONFIG": str(kubeconfig(lab))}
    with log.open("w") as file:
        # A test that fails is told in the log; the program's status says no more.
        subprocess.run(words, cwd=folder, env=environment, stdout=file, stderr=file, timeout=hours * 3600, check=False)
    return log


if __name__ == "__main__":
    main()
