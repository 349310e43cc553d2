"""What the suite said of each of its tests, and the table of it."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"  # every conformance test of the suite: true, false, or null for never run
KNOWN = FOLDER / "known.toml"
_SAID = re.compile(r"^.*?({\"msg\":\"(?:PASSED|FAILED) .*\})$", re.MULTILINE)


class Known(NamedTuple):
    """Why tests that match are not expected to pass."""

    pattern: re.Pattern[str]
    reason: str


def read_log(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each test that a log of the suite tells the end of, and whether it passed."""
    for line in _SAID.findall(text):
        verdict, _, name = json.loads(line)["msg"].partition(" ")
        yield name, verdict == "PASSED"


def known(path: Path = KNOWN) -> list[Known]:
    """Return what is known not to pass, with reasons."""
    return [Known(re.compile(each["tests"]), each["reason"]) for each in tomllib.loads(path.read_text())["known"]]


def reason(name: str, listed: Iterable[Known]) -> str:
    """Return why ``name`` is not expected to pass; "" when it is."""
    return next((each.reason for each in listed if each.pattern.search(name)), "")


def table(results: Mapping[str, bool | None], listed: Sequence[Known]) -> str:
    """Return the page of documentation: how many of each area pass, and every test that does not.

    results: of each conformance test whether it passed when it was last run; None: it never was.
    """
    passed, total, others = Counter[str](), Counter[str](), []
    for name, said in sorted(results.items()):
        area, _, rest = name.removeprefix("[").partition("] ")
        total[area] += 1
        if said:
            passed[area] += 1
            continue
        why = reason(name, listed) or ("was not run" if said is None else "fails")
        others.append(f"| {area} | {_plain(rest)} | {why} |")
    areas = [f"| {area} | {passed[area]} | {total[area]} |" for area in sorted(total)]
    areas.append(f"| all | {passed.total()} | {total.total()} |")
    head = (FOLDER / "page.md").read_text()
    return head.replace("AREAS", "\n".join(areas)).replace("OTHERS", "\n".join(others))


def _plain(name: str) -> str:
    """Return a test's name without the marks that select it."""
    return re.sub(r"\s*\[[A-Za-z:]+\]", "", name).replace("|", "\\|").strip()
