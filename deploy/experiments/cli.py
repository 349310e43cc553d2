"""``./trireme experiment SCENARIO``: run rounds, print the table, write JSON and HTML, say whether a write was lost."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from deploy import state
from deploy.errors import UsageError
from deploy.experiments import report
from deploy.experiments.history import Round, Verdict, judge
from deploy.experiments.scenario import SCENARIOS, Scenario, Target, Timing, run_round
from deploy.experiments.strikers import STRIKERS
from deploy.experiments.workload import Tls
from deploy.lab import STORE_PORT, Lab

app = typer.Typer(
    name="experiment", help="Break a lab while clients work, and report what it cost.", no_args_is_help=True
)
progress = Console(stderr=True, highlight=False)
LOST = 3  # exit status when an acknowledged write is gone: neither a usage error nor a crash

Name = Annotated[str, typer.Option("--name", help="Which lab.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, max=1000, help="How many rounds.")]
Engine = Annotated[
    Literal["native", "raftos"] | None,
    typer.Option(help="Store engine; another than the lab's is tried on a lab of its own, which is taken down again."),
]
Down = Annotated[float, typer.Option("--down", min=0.5, max=600, help="Seconds until the victim is mended.")]
Folder = Annotated[Path | None, typer.Option("--folder", help="Where report.json and report.html go (results/...).")]
Output = Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print.")]


def _command(scenario: Scenario) -> Callable[..., None]:
    def run(
        *,
        name: Name = "lab",
        repeat: Repeat = 5,
        engine: Engine = None,
        down: Down = 5.0,
        folder: Folder = None,
        output: Output = "text",
    ) -> None:
        with _lab(name, engine) as lab:
            into = folder or Path("results") / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
            into.mkdir(parents=True, exist_ok=True)
            rounds = asyncio.run(_rounds(scenario, lab, repeat=repeat, timing=Timing(after_fault_s=down)))
        verdicts = [judge(each) for each in rounds]
        _write(into, scenario, lab, rounds, verdicts)
        if output == "json":
            print((into / "report.json").read_text(), end="")  # noqa: T201 - the output itself
        else:
            Console(highlight=False).print(report.as_table(scenario, verdicts, with_api=_has_api(lab)))
            Console(highlight=False).print(f"\nThe whole report: {into}/report.html", markup=False)
        if report.lost_count(verdicts):
            raise typer.Exit(LOST)

    run.__doc__ = f"{scenario.what[0].upper()}{scenario.what[1:]}."
    return run


for each in SCENARIOS.values():
    app.command(each.name)(_command(each))


def _has_api(lab: Lab) -> bool:
    """The raftos store does not carry the API's transactions and watches (docs/raftos.md): only the store is tried."""
    return lab.engine == "native"


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

    other = f"{name}-{engine}"
    if state.find(other) is not None:
        raise UsageError(f"a lab called '{other}' is in the way", hint=f"take it down: trireme down --name {other}")
    progress.print(f"lab '{name}' does not run the {engine} store: trying it on lab '{other}'")
    masters = len(lab.masters) if lab else 3
    choices = Choices(name=other, masters=masters, nodes=0, engine=engine)
    try:
        yield bring_up(choices, ask=ask_on_terminal(yes=True), keep=False, wait=engine == "native")
    finally:
        remove_lab(connect(), other)


async def _rounds(scenario: Scenario, lab: Lab, *, repeat: int, timing: Timing) -> list[Round]:
    from deploy.cli import driver_of  # noqa: PLC0415 - it imports us

    striker = STRIKERS[scenario.fault](lab, driver_of(lab))
    ca, cert, key = map(str, state.admin_files(lab.name))
    target = Target(
        members={f"{host.address}:{STORE_PORT}": host.name for host in lab.masters},
        api_url=lab.api_url if _has_api(lab) else "",
    )
    rounds = []
    for number in range(1, repeat + 1):
        progress.print(f"round {number} of {repeat} ...", end=" ")
        record = await run_round(number, scenario, target, Tls(ca, cert, key), striker, timing=timing)
        verdict = judge(record)
        lost = f", {len(verdict.lost)} LOST" if verdict.lost else ""
        progress.print(
            f"{record.victim}: elected in {report.seconds(verdict.election_s)}, "
            f"store silent for {report.seconds(verdict.store_gap_s)}{lost}"
        )
        rounds.append(record)
    return rounds


def _write(into: Path, scenario: Scenario, lab: Lab, rounds: list[Round], verdicts: list[Verdict]) -> None:
    (into / "report.json").write_bytes(report.as_json(scenario, verdicts, lab=lab.name, engine=lab.engine))
    report.write_html(into / "report.html", scenario, rounds, verdicts, lab=lab.name, engine=lab.engine)
    for record, verdict in zip(rounds, verdicts, strict=True):
        report.write_svg(into / f"round-{record.number}.svg", record, verdict)
    (into / "history.json").write_bytes(json.dumps(msgspec.to_builtins(rounds)).encode())
