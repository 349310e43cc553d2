"""Reports: a table for the terminal, JSON for programs, one HTML page with a timeline for people."""

import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from rich.table import Table

from deploy.experiments.history import Outcome, Round, Verdict
from deploy.experiments.scenario import Scenario

_COLUMNS = (
    ("election", "election_s"),
    ("store gap", "store_gap_s"),
    ("API gap", "api_gap_s"),
    ("full redundancy", "full_redundancy_s"),
)


def seconds(value: float | None) -> str:
    """Return a duration as the report prints it."""
    return "never" if value is None else f"{value:.2f} s"


def median(verdicts: Iterable[Verdict], field: str) -> float | None:
    """Return the median over the rounds that have the figure."""
    values = [value for each in verdicts if (value := getattr(each, field)) is not None]
    return statistics.median(values) if values else None


def lost_count(verdicts: Iterable[Verdict]) -> int:
    """Return how many acknowledged writes were lost in all rounds."""
    return sum(len(each.lost) for each in verdicts)


def verdict_line(verdicts: Sequence[Verdict]) -> str:
    """Return the one sentence that matters."""
    acknowledged = sum(each.acknowledged for each in verdicts)
    if count := lost_count(verdicts):
        return f"LOST: {count} of {acknowledged} acknowledged writes are gone"
    return f"no write lost: all {acknowledged} acknowledged writes were read back"


def as_table(scenario: Scenario, verdicts: Sequence[Verdict], *, with_api: bool) -> Table:
    """Return the terminal's table: a row a round, then the medians."""
    table = Table(title=f"{scenario.name}: {scenario.what}", caption=verdict_line(verdicts))
    columns = [(title, field) for title, field in _COLUMNS if with_api or field != "api_gap_s"]
    for title in ("round", "victim", *(title for title, _ in columns), "acknowledged", "unknown", "lost"):
        table.add_column(title, justify="left" if title == "victim" else "right")
    for each in verdicts:
        figures = [seconds(getattr(each, field)) for _, field in columns]
        table.add_row(
            str(each.number), each.victim, *figures, str(each.acknowledged), str(each.unknown), str(len(each.lost))
        )
    table.add_section()
    medians = [seconds(median(verdicts, field)) for _, field in columns]
    table.add_row("median", "", *medians, "", "", str(lost_count(verdicts)))
    return table


def as_json(scenario: Scenario, verdicts: Sequence[Verdict], *, lab: str, engine: str) -> bytes:
    """Return the figures of every round, the medians and the verdict."""
    document = {
        "scenario": scenario.name,
        "what": scenario.what,
        "lab": lab,
        "engine": engine,
        "rounds": [msgspec.to_builtins(each) for each in verdicts],
        "medians": {field: median(verdicts, field) for _, field in _COLUMNS},
        "acknowledged": sum(each.acknowledged for each in verdicts),
        "lost": lost_count(verdicts),
        "verdict": verdict_line(verdicts),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def write_html(
    path: Path, scenario: Scenario, rounds: Sequence[Round], verdicts: Sequence[Verdict], *, lab: str, engine: str
) -> None:
    """Write the page; it needs no network and no script."""
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            scenario=scenario,
            lab=lab,
            engine=engine,
            verdict=verdict_line(verdicts),
            lost=lost_count(verdicts),
            columns=_COLUMNS,
            verdicts=verdicts,
            medians={field: median(verdicts, field) for _, field in _COLUMNS},
            charts=[timeline(record, verdict) for record, verdict in zip(rounds, verdicts, strict=True)],
        )
    )
    path.write_text(page)


def write_svg(path: Path, record: Round, verdict: Verdict) -> None:
    """Write one round's timeline as a picture of its own."""
    path.write_text(_environment().get_template("timeline.svg.j2").render(chart=timeline(record, verdict)))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["seconds"] = seconds
    return environment


# The chart's geometry, in SVG units.
_LEFT, _WIDTH, _ROW, _TOP = 190, 900, 16, 26
_BEFORE_S = 1.0


def timeline(record: Round, verdict: Verdict) -> dict[str, Any]:
    """Return what the template draws for one round: lanes of ticks, one a client, over the time around the fault."""
    start = record.fault_s - _BEFORE_S
    end = max((each.done_s for each in record.operations), default=record.recover_s)
    scale = _WIDTH / (end - start)

    def x(at_s: float) -> float:
        return round(_LEFT + (at_s - start) * scale, 1)

    clients = sorted({(each.target != "store", each.client) for each in record.operations})
    lanes = []
    for number, (_, client) in enumerate(clients):
        mine = [each for each in record.operations if each.client == client and each.done_s >= start]
        ticks = [x(each.done_s) for each in mine if each.outcome is Outcome.ACKNOWLEDGED]
        failed = [
            (x(max(each.sent_s, start)), x(each.done_s)) for each in mine if each.outcome is not Outcome.ACKNOWLEDGED
        ]
        lanes.append({"name": client, "y": _TOP + number * _ROW, "ticks": _thin(ticks), "failed": failed})
    height = _TOP + len(lanes) * _ROW + 30
    marks = [{"x": x(each.at_s), "what": each.what} for each in record.marks if each.at_s >= start]
    whole = range(int(-_BEFORE_S), int(end - record.fault_s) + 1)
    return {
        "number": record.number,
        "victim": record.victim,
        "lanes": lanes,
        "marks": marks,
        "gap": _gap_band(record, verdict, x),
        "grid": [
            {"x": x(record.fault_s + second), "label": f"{second:+d} s" if second else "fault"} for second in whole
        ],
        "row": _ROW,
        "left": _LEFT,
        "right": _LEFT + _WIDTH,
        "width": _LEFT + _WIDTH + 20,
        "height": height,
        "bottom": height - 22,
    }


def _thin(ticks: list[float]) -> list[float]:
    """Return at most one tick a half unit: more cannot be seen and would make the page heavy."""
    kept: list[float] = []
    for tick in sorted(ticks):
        if not kept or tick - kept[-1] >= 0.5:
            kept.append(tick)
    return kept


def _gap_band(record: Round, verdict: Verdict, x: Any) -> dict[str, float] | None:
    """Return where the longest silence of the store lies, if it spans the fault."""
    if verdict.store_gap_s is None:
        return None
    times = sorted(
        each.done_s for each in record.operations if each.target == "store" and each.outcome is Outcome.ACKNOWLEDGED
    )
    for earlier, later in itertools.pairwise(times):
        if later > record.fault_s and abs((later - earlier) - verdict.store_gap_s) < 1e-9:
            return {"x": x(earlier), "width": round(x(later) - x(earlier), 1), "seconds": later - earlier}
    return None
