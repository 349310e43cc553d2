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
from deploy.experiments.scenario import Scenario, Workload

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


def unread_count(verdicts: Iterable[Verdict]) -> int:
    """Return of how many acknowledged writes nobody knows whether they are there."""
    return sum(each.unread for each in verdicts)


def conclusive(verdicts: Sequence[Verdict]) -> bool:
    """Return whether every round had something to strike and let all that it acknowledged be read back."""
    return not unread_count(verdicts) and not any(each.problem for each in verdicts)


def verdict_line(verdicts: Sequence[Verdict]) -> str:
    """Return the one sentence that matters, and what else keeps it from being the whole truth."""
    acknowledged, unread = sum(each.acknowledged for each in verdicts), unread_count(verdicts)
    remarks = [f"round {each.number}: {each.problem}" for each in verdicts if each.problem]
    if count := lost_count(verdicts):
        words = f"LOST: {count} of {acknowledged} acknowledged writes are gone"
    elif unread:
        words = f"NOT KNOWN: none of the {acknowledged - unread} acknowledged writes that could be read back is lost"
    elif not acknowledged:
        words = "nothing was acknowledged, so nothing could be lost"
    else:
        words = f"no write lost: all {acknowledged} acknowledged writes were read back"
    if unread:
        remarks.insert(0, f"{unread} acknowledged writes could not be read back: no read was answered in time")
    return "; ".join([words, *remarks])


def as_table(scenario: Scenario, verdicts: Sequence[Verdict], *, workload: Workload) -> Table:
    """Return the terminal's table: a row a round, then the medians."""
    caption = verdict_line(verdicts) + (f"\n{workload.words}." if workload.words else "")
    table = Table(title=f"{scenario.name}: {scenario.what}", caption=caption)
    columns = _columns(workload)
    for title in ("round", "victim", *(title for title, _ in columns), "acknowledged", "unknown", "lost", "unread"):
        table.add_column(title, justify="left" if title == "victim" else "right")
    for each in verdicts:
        figures = [seconds(getattr(each, field)) for _, field in columns]
        counts = (each.acknowledged, each.unknown, len(each.lost), each.unread)
        table.add_row(str(each.number), each.victim or "none", *figures, *map(str, counts))
    table.add_section()
    medians = [seconds(median(verdicts, field)) for _, field in columns]
    table.add_row("median", "", *medians, "", "", str(lost_count(verdicts)), str(unread_count(verdicts)))
    return table


def _columns(workload: Workload) -> list[tuple[str, str]]:
    return [(title, field) for title, field in _COLUMNS if workload.api_clients or field != "api_gap_s"]


def as_json(scenario: Scenario, verdicts: Sequence[Verdict], *, lab: str, engine: str, workload: Workload) -> bytes:
    """Return the figures of every round, the medians and the verdict."""
    document = {
        "scenario": scenario.name,
        "what": scenario.what,
        "lab": lab,
        "engine": engine,
        "workload": msgspec.to_builtins(workload),
        "rounds": [msgspec.to_builtins(each) for each in verdicts],
        "medians": {field: median(verdicts, field) for _, field in _COLUMNS},
        "acknowledged": sum(each.acknowledged for each in verdicts),
        "lost": lost_count(verdicts),
        "unread": unread_count(verdicts),
        "verdict": verdict_line(verdicts),
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def write_html(
    path: Path,
    scenario: Scenario,
    rounds: Sequence[Round],
    verdicts: Sequence[Verdict],
    *,
    lab: str,
    engine: str,
    workload: Workload,
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
            columns=_columns(workload),
            unread=unread_count(verdicts),
            conclusive=conclusive(verdicts),
            workload=workload,
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
