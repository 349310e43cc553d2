"""Syncs that the kernel does by itself (Linux's asynchronous I/O), while the event loop goes on.

A thread that syncs takes 60 to 100 us of the loop's time for each sync, although it does nothing: to be woken, to get
the interpreter's lock from the loop when the disk is done, to give it back, to wake the loop. The kernel has workers of
its own, and tells by a descriptor that the loop polls anyway.
"""

import asyncio
import ctypes
import os
import platform
import sys
from collections.abc import Callable

Done = Callable[[OSError | None], None]

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}  # io_setup, io_destroy, io_getevents, io_submit
_FDSYNC = 3
_TELL_BY_DESCRIPTOR = 1


class _Order(ctypes.Structure):
    """The kernel's ``struct iocb`` on a little-endian machine."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("told", ctypes.c_uint32),
    )


class _Event(ctypes.Structure):
    """The kernel's ``struct io_event``."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("order", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    )


class KernelSyncs:
    """Syncs for one event loop, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises OSError if this kernel, or who guards it, offers nothing of the kind."""
        numbers = _NUMBERS.get(platform.machine())
        # A program of 32 bits has other numbers for calls, also where the machine has 64.
        if numbers is None or platform.system() != "Linux" or sys.maxsize < 1 << 32:
            raise OSError("no asynchronous I/O is known here")
        setup, self._destroy, self._get_events, self._submit = map(ctypes.c_long, numbers)
        self._context = ctypes.c_ulong(0)
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._told = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if self._call(setup, ctypes.c_long(1), ctypes.byref(self._context)) < 0:
            failure = _last_error()
            os.close(self._told)
            raise failure
        # The kernel reads and writes these; they live as long as we do.
        self._order = _Order(opcode=_FDSYNC, flags=_TELL_BY_DESCRIPTOR, told=self._told)
        self._orders = (ctypes.POINTER(_Order) * 1)(ctypes.pointer(self._order))
        self._event = _Event()
        self._place = ctypes.byref(self._event)
        self._one = ctypes.c_long(1)
        self._done: Done | None = None
        self._loop = loop
        loop.add_reader(self._told, self._hear)

    def begin(self, descriptor: int, done: Done) -> None:
        """Sync a file's data and size; then call ``done``. Raises OSError if it cannot be begun."""
        assert self._done is None, "one at a time"
        self._order.descriptor = descriptor
        if self._call(self._submit, self._context, self._one, self._orders) < 0:
            raise _last_error()
        self._done = done

    def close(self) -> None:
        """Forget the one that is under way, when it has ended; blocks until then. Not in the loop's thread."""
        self._call(self._destroy, self._context)

    def leave(self) -> None:
        """Let go of the loop, before ``close``."""
        self._loop.remove_reader(self._told)
        os.close(self._told)

    def _hear(self) -> None:
        try:
            os.eventfd_read(self._told)
        except BlockingIOError:
            return
        done, self._done = self._done, None
        assert done is not None, "nothing was under way"
        if self._call(self._get_events, self._context, self._one, self._one, self._place, None) < 0:
            done(_last_error())  # the sync has ended, and nobody can tell how
            return
        error = -self._event.result
        done(OSError(error, os.strerror(error)) if error else None)


def _last_error() -> OSError:
    """Return what the kernel's last refusal means."""
    error = ctypes.get_errno()
    return OSError(error, os.strerror(error))
