"""Sequence diagrams for a terminal: who said what to whom, and what became of it. Text in, text out.

member1                       member2                       member3
│                             │                             │
◆ campaigns in term 2         │                             │
├── vote for me ─────────────▶│                             │
├── vote for me ──────────────┼────────────────────────────▶│
│◀─────────────────────── yes ┤                             │
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

WIDTH = 31  # from one lifeline to the next
MARGIN = 10  # for the time
_PLAIN, _BOLD, _DIM, _GREEN, _RED, _YELLOW = "", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[33m"
_END = "\x1b[0m"
TONES: Mapping[str, str] = {"": _PLAIN, "good": _GREEN, "bad": _RED, "new": _BOLD + _YELLOW, "quiet": _DIM}


class Said(msgspec.Struct, frozen=True):
    """A message from one lifeline to another; lost: it never arrived."""

    at_s: float
    sender: int  # place of the lifeline, from 0
    to: int
    text: str
    lost: bool = False
    tone: str = ""


class Became(msgspec.Struct, frozen=True):
    """Something happened at one lifeline."""

    at_s: float
    where: int
    text: str
    tone: str = ""
    up: bool = True  # the lifeline goes on


class Aside(msgspec.Struct, frozen=True):
    """A line of the narrator's."""

    text: str


Scene = Said | Became | Aside


def draw(names: Sequence[str], scenes: Iterable[Scene], *, colour: bool = False) -> Iterator[str]:
    """Yield the diagram's lines. colour: with the escape sequences of a terminal."""
    up = [True] * len(names)
    width = _column(len(names) - 1) + WIDTH // 2
    heading = [" "] * (width + WIDTH)
    for place, name in enumerate(names):
        _put(heading, max(MARGIN, _column(place) - len(name) // 2), name)
    yield _paint("".join(heading).rstrip(), _BOLD, colour=colour)
    yield "".join(_lifelines(up, width)).rstrip()
    before = ""
    for scene in scenes:
        line = _lifelines(up, width)
        match scene:
            case Aside(text=text):
                yield "".join(line).rstrip()
                yield _paint(f"{'':{MARGIN}}── {text} ".ljust(width, "─"), _DIM, colour=colour)
                continue
            case Said():
                _draw_arrow(line, scene)
            case Became():
                up[scene.where] = scene.up
                line += [" "] * len(scene.text)
                _put(line, _column(scene.where), f"{'◆' if scene.up else '✗'} {scene.text} ")
        if (time := f"{scene.at_s:7.3f} s") != before:
            _put(line, 0, time)
            before = time
        yield _paint("".join(line).rstrip(), TONES[scene.tone], colour=colour)
    yield "".join(_lifelines(up, width)).rstrip()


def _column(place: int) -> int:
    return MARGIN + 4 + place * WIDTH


def _lifelines(up: Sequence[bool], width: int) -> list[str]:
    line = [" "] * width
    for place, alive in enumerate(up):
        line[_column(place)] = "│" if alive else "·"
    return line


def _draw_arrow(line: list[str], said: Said) -> None:
    start, end = _column(said.sender), _column(said.to)
    step = 1 if end > start else -1
    for place in range(start + step, end, step):
        line[place] = "┼" if line[place] == "│" else "─"
    line[start] = "├" if step > 0 else "┤"
    head = end - step
    if said.lost:
        line[head] = "✗"
    else:
        line[head] = "▶" if step > 0 else "◀"
    text = f" {said.text} "
    room = WIDTH - 4
    if len(text) > room:
        text = text[: room - 2] + "… "
    # Beside the sender, where nothing crosses it.
    _put(line, start + 3 if step > 0 else start - 1 - len(text), text)


def _put(line: list[str], start: int, text: str) -> None:
    line[start : start + len(text)] = text


def _paint(text: str, code: str, *, colour: bool) -> str:
    return f"{code}{text}{_END}" if colour and code else text
