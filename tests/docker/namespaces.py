"""Hosts and pods as network namespaces: real kernel, real rules, no engine.

A ``Place`` runs functions and coroutines in a thread that entered it; so does every worker thread
of that coroutine's loop. Nothing touches the machine's own namespace.
"""

import asyncio
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from pyroute2.netns import setns

T = TypeVar("T")


class Place:
    """An existing network namespace, held open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._file)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function inside and wait for it."""
        results: list[T] = []
        failures: list[BaseException] = []

        def work() -> None:
            try:
                setns(self._file)
                results.append(function(*args))
            except BaseException as exc:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(exc)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine inside, its worker threads too."""

        async def with_workers() -> T:
            workers = ThreadPoolExecutor(4, initializer=setns, initargs=(self._file,))
            asyncio.get_running_loop().set_default_executor(workers)
            return await main()

        return self.call(lambda: asyncio.run(with_workers()))

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that lives inside; its owner may use it from anywhere."""
        return self.call(lambda: socket.socket(socket.AF_INET, kind))


class Namespace(Place):
    """A new network namespace with a loopback, removed by ``close``."""

    def __init__(self, name: str) -> None:
        self.name = f"trireme-test-{os.getpid()}-{name}"
        _ip("netns", "add", self.name)
        super().__init__(f"/run/netns/{self.name}")
        self.sh("ip link set lo up")

    def close(self) -> None:
        super().close()
        _ip("netns", "del", self.name)

    def sh(self, command: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout


class EchoServer:
    """Answers every connection or datagram with its own name and the client's address."""

    def __init__(self, namespace: Place, name: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        self.name = name
        self._socket = namespace.socket(kind)
        self._socket.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            self._socket.listen(64)
        serve = self._serve_tcp if kind == socket.SOCK_STREAM else self._serve_udp
        self._thread = threading.Thread(target=serve)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=5)

    def _serve_tcp(self) -> None:
        with suppress(OSError):
            while True:
                connection, client = self._socket.accept()
                with connection:
                    connection.sendall(f"{self.name} {client[0]}".encode())

    def _serve_udp(self) -> None:
        with suppress(OSError):
            while True:
                data, client = self._socket.recvfrom(512)
                if not data and client is None:
                    return
                self._socket.sendto(f"{self.name} {client[0]}".encode(), client)


def ask(
    namespace: Place, address: str, port: int, *, source: str | None = None, timeout_s: float = 3.0
) -> tuple[str, str]:
    """Connect from ``namespace`` and return (server's name, the client address it saw)."""
    with namespace.socket() as client:
        client.settimeout(timeout_s)
        if source:
            client.bind((source, 0))
        client.connect((address, port))
        text = b""
        while part := client.recv(512):
            text += part
    name, seen = text.decode().split()
    return name, seen


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True, timeout=10)
