"""``./trireme experiment SCENARIO``: run rounds, print the table, write JSON and HTML, say whether a write was lost."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from deploy import state
from deploy.errors import HostFailed, UsageError
from deploy.experiments import report
from deploy.experiments.history import Round, Verdict, judge
from deploy.experiments.scenario import SCENARIOS, WORKLOADS, Scenario, Target, Timing, Workload, run_round
from deploy.experiments.strikers import STRIKERS
from deploy.experiments.workload import Tls
from deploy.lab import STORE_PORT, Lab, check_name

app = typer.Typer(
    name="experiment",
    help="Break a lab while clients work, and report what it cost.\n\n"
    "Exit status: 0; 3 if an acknowledged write was lost; 4 if that cannot be told.",
    no_args_is_help=True,
)
progress = Console(stderr=True, highlight=False)
# Where nobody looks at a terminal, the table is not squeezed.
results = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
# Exit statuses that are neither a usage error nor a crash.
LOST = 3  # an acknowledged write is gone
INCONCLUSIVE = 4  # none is known to be, but not all could be read back, or a round found no leader to strike

Name = Annotated[str, typer.Option("--name", help="Which lab.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, max=1000, help="How many rounds.")]
Engine = Annotated[
    Literal["native", "raftos"] | None,
    typer.Option(help="Store engine; another than the lab's is tried on a lab of its own, which is taken down again."),
]
Down = Annotated[
    float | None,
    typer.Option("--down", min=0.5, max=600, help="Seconds until the victim is mended (5; 25 on the raftos store)."),
]
Folder = Annotated[Path | None, typer.Option("--folder", help="Where report.json and report.html go (results/...).")]
Output = Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print.")]


def _command(scenario: Scenario) -> Callable[..., None]:
    def run(
        *,
        name: Name = "lab",
        repeat: Repeat = 5,
        engine: Engine = None,
        down: Down = None,
        folder: Folder = None,
        output: Output = "text",
    ) -> None:
        with _lab(name, engine) as lab:
            workload = WORKLOADS[lab.engine]
            timing = Timing(after_fault_s=down or workload.down_s)
            into = folder or Path("results") / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
            into.mkdir(parents=True, exist_ok=True)
            rounds = asyncio.run(_rounds(scenario, lab, workload, repeat=repeat, timing=timing))
        verdicts = [judge(each) for each in rounds]
        _write(into, scenario, lab, rounds, verdicts, workload=workload)
        if output == "json":
            print((into / "report.json").read_text(), end="")  # noqa: T201 - the output itself
        else:
            results.print(report.as_table(scenario, verdicts, workload=workload))
            results.print(f"\nThe whole report: {into}/report.html", markup=False)
        if status := _exit_status(verdicts):
            raise typer.Exit(status)

    run.__doc__ = f"{scenario.what[0].upper()}{scenario.what[1:]}."
    return run


for each in SCENARIOS.values():
    app.command(each.name)(_command(each))


def _exit_status(verdicts: Sequence[Verdict]) -> int:
    if report.lost_count(verdicts):
        return LOST
    return 0 if report.conclusive(verdicts) else INCONCLUSIVE


@contextmanager
def _lab(name: str, engine: str | None) -> Iterator[Lab]:
    """Give the lab called ``name``, or one of its size with another store engine for as long as the block lasts."""
    lab = state.find(name) if engine else state.load(name)
    if engine is None or (lab is not None and lab.engine == engine):
        yield lab or state.load(name)
        return
    # Only here are the Docker SDK and the image needed.
    from deploy.choices import Choices  # noqa: PLC0415
    from deploy.engine import ask_on_terminal, connect  # noqa: PLC0415
    from deploy.steps.bring_up import bring_up  # noqa: PLC0415
    from deploy.steps.take_down import remove_lab  # noqa: PLC0415

    other = check_name(f"{name}-{engine}")
    if state.find(other) is not None:
        raise UsageError(f"a lab called '{other}' is in the way", hint=f"take it down: trireme down --name {other}")
    why = f"lab '{name}' does not run the {engine} store" if lab else f"there is no lab called '{name}'"
    progress.print(f"{why}: trying the {engine} store on a lab '{other}' of its own")
    control_plane = WORKLOADS[engine].control_plane
    choices = Choices(name=other, masters=len(lab.masters) if lab else None, nodes=0, engine=engine)
    made = bring_up(choices, ask=ask_on_terminal(yes=True), keep=False, wait=control_plane)
    try:
        if not control_plane:
            _leave_store_alone(made)
        yield made
    finally:
        progress.print(f"taking lab '{other}' down")
        remove_lab(connect(), other)


def _leave_store_alone(lab: Lab) -> None:
    """Stop the masters' own programs, also after a restart of their hosts: what they write would be load, too."""
    from deploy.cli import driver_of  # noqa: PLC0415 - it imports us
    from deploy.programs import SERVICES  # noqa: PLC0415 - it imports the Docker SDK

    driver = driver_of(lab)
    service = f"{SERVICES}/master/master"
    for host in lab.masters:
        result = driver.execute(host, ["sh", "-c", f"touch {service}/down && sv -w 8 force-stop {service}"])
        if result.exit_status:
            raise HostFailed(f"the master program on {host.name} could not be stopped: {result.output.strip()}")


async def _rounds(scenario: Scenario, lab: Lab, workload: Workload, *, repeat: int, timing: Timing) -> list[Round]:
    from deploy.cli import driver_of  # noqa: PLC0415 - it imports us

    striker = STRIKERS[scenario.fault](lab, driver_of(lab))
    ca, cert, key = map(str, state.admin_files(lab.name))
    target = Target(
        members={f"{host.address}:{STORE_PORT}": host.name for host in lab.masters},
        api_url=lab.api_url,
        workload=workload,
    )
    rounds = []
    for number in range(1, repeat + 1):
        progress.print(f"round {number} of {repeat} ...", end=" ")
        record = await run_round(number, scenario, target, Tls(ca, cert, key), striker, timing=timing)
        progress.print(_in_short(judge(record)))
        rounds.append(record)
    return rounds


def _in_short(verdict: Verdict) -> str:
    if verdict.problem:
        return verdict.problem
    lost = f", {len(verdict.lost)} LOST" if verdict.lost else ""
    unread = f", {verdict.unread} not readable" if verdict.unread else ""
    election, gap = report.seconds(verdict.election_s), report.seconds(verdict.store_gap_s)
    return f"{verdict.victim}: elected: {election}, store writes again: {gap}{lost}{unread}"


def _write(
    into: Path, scenario: Scenario, lab: Lab, rounds: list[Round], verdicts: list[Verdict], *, workload: Workload
) -> None:
    (into / "report.json").write_bytes(
        report.as_json(scenario, verdicts, lab=lab.name, engine=lab.engine, workload=workload)
    )
    report.write_html(
        into / "report.html", scenario, rounds, verdicts, lab=lab.name, engine=lab.engine, workload=workload
    )
    (into / "history.json").write_bytes(json.dumps(msgspec.to_builtins(rounds)).encode())
