"""Steps with their times, one line each."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status


class Progress:
    """Prints each step when it ends; while it runs, a terminal shows a spinner with what it is about."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._step = ""
        self._began = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show ``title`` while the body runs, and how it ended with the time it took."""
        began, self._step = time.monotonic(), title
        try:
            with self._console.status(title) as self._status:
                yield
        except BaseException:
            self._line("[red]✗[/]", title, began)
            raise
        finally:
            self._status = None
        self._line("[green]✓[/]", title, began)

    def note(self, what: str) -> None:
        """Say what the running step is about now."""
        if self._status is not None and self._console.is_terminal:
            self._status.update(f"{self._step}: {what}")
        else:
            self._console.print(f"  … {what}", markup=False)
        sys.stderr.flush()

    def finish(self, outcome: str) -> None:
        """Say how it all ended and how long it took."""
        self._console.print(f"{outcome} after {time.monotonic() - self._began:.1f} s")

    def _line(self, mark: str, title: str, began: float) -> None:
        self._console.print(f"{mark} {title:<46} {time.monotonic() - began:6.1f} s")
