"""A person at a terminal: a program on a pseudo-terminal, what it shows, and what is typed."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

WAIT_S = 15.0
# A shell reads a line in a mode of its own; what is typed in the moment when it changes back is not what it seems.
THINK_S = 0.3


class Terminal:
    """Runs a program until ``close`` or ``kill``."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], *, rows: int = 33, columns: int = 91) -> None:
        self.shown = b""
        self._seen = 0  # up to where ``expect`` has found what it waited for
        self._fd, theirs = pty.openpty()
        self._set_size(rows, columns)
        self._process = subprocess.Popen(
            argv, env=dict(env), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        """Change the window; the program is told."""
        self._set_size(rows, columns)
        self._process.send_signal(signal.SIGWINCH)

    def expect(self, text: str) -> None:
        """Wait until ``text`` is shown, behind what was found before."""
        end, wanted = time.monotonic() + WAIT_S, text.encode()
        while (at := self.shown.find(wanted, self._seen)) < 0:
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"never shown: {text!r}; but: {self.shown!r}")
        self._seen = at + len(wanted)

    def type(self, text: str) -> None:
        """Press keys, after a moment."""
        time.sleep(THINK_S)
        os.write(self._fd, text.encode())

    def close(self) -> int:
        """Wait for the program's end and return its exit code."""
        end = time.monotonic() + WAIT_S
        while self._read(end - time.monotonic()):
            pass
        try:
            return self._process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end; shown: {self.shown!r}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End it if it runs."""
        if self._fd >= 0:
            self._process.kill()
            self._process.wait()
            os.close(self._fd)
            self._fd = -1

    def _read(self, left_s: float) -> bool:
        """Take what is shown next; return False at the program's end, or when the time is up."""
        ready, _, _ = select.select([self._fd], [], [], max(0.0, left_s))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 4096)
        except OSError:  # how Linux tells that nobody holds the other side any more
            return False
        self.shown += data
        return bool(data)
