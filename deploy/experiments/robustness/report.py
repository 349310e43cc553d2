"""What a robustness run found, as lines and as a page."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from deploy.experiments.robustness.run import Round

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Robustness: {{ verdict }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:last-child, th:last-child { text-align: left; } .bad { color: #b00020; } code { font-size: 13px; }
</style>
<h1>Robustness of {{ members }} members, engine {{ engine }}</h1>
<p class="{{ 'bad' if bad else '' }}"><strong>{{ verdict }}</strong></p>
<p>Checked: linearizability of puts, reads, deletions and transactions; no acknowledged write lost; watches ordered,
unique, atomic, without gap, resumed, with true bookmarks and previous values; leases neither early nor for ever;
members alike in the end.</p>
<table><tr><th>round<th>acknowledged<th>of them writes<th>unknown<th>events<th>faults injected</tr>
{% for each in rounds %}<tr><td>{{ each.number }}<td>{{ each.judgement.acknowledged }}
<td>{{ each.judgement.written }}<td>{{ each.judgement.unknown }}
<td>{{ each.judgement.events }}
<td>{{ each.marks | rejectattr("what", "equalto", "mended") | map(attribute="what") | join(", ") }}</tr>
{% endfor %}</table>
{% for each in rounds if each.judgement.faults %}<h2 class="bad">Round {{ each.number }}</h2><ul>
{% for fault in each.judgement.faults %}<li><code>{{ fault }}</code></li>{% endfor %}</ul>
<p>All that was seen: <a href="history-{{ each.number }}.jsonl">history-{{ each.number }}.jsonl</a></p>
{% endfor %}</html>
"""


def line_of(each: Round) -> str:
    """Return one round in one line, or as many as it has faults."""
    judgement = each.judgement
    head = (
        f"round {each.number}: {judgement.acknowledged} acknowledged ({judgement.written} writes), "
        f"{judgement.unknown} unknown, "
        f"{judgement.events} events, {sum(mark.what != 'mended' for mark in each.marks)} faults"
    )
    if judgement.faults:
        return "\n".join([f"{head}: BROKEN", *(f"  {fault[:400]}" for fault in judgement.faults)])
    return f"{head}: {'every promise kept' if judgement.decided else 'linearizability not decided in time'}"


def summary(rounds: Sequence[Round]) -> str:
    """Return the one sentence that matters."""
    broken = [each.number for each in rounds if each.judgement.faults]
    acknowledged = sum(each.judgement.acknowledged for each in rounds)
    if broken:
        return f"BROKEN in rounds {broken} of {len(rounds)}"
    open_rounds = [each.number for each in rounds if not each.judgement.decided]
    if open_rounds:
        return f"not decided in rounds {open_rounds}; every other promise kept, {acknowledged} operations acknowledged"
    return f"every promise kept in {len(rounds)} rounds, {acknowledged} operations acknowledged"


def write_html(path: Path, rounds: Sequence[Round], *, engine: str, members: int) -> None:
    """Write the page; it needs no network and no script."""
    page = jinja2.Environment(autoescape=True).from_string(_PAGE)
    bad = any(each.judgement.faults for each in rounds)
    path.write_text(page.render(rounds=rounds, engine=engine, members=members, verdict=summary(rounds), bad=bad))
