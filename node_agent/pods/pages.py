"""One GET of a page, the way probes and hooks ask for it.

Certificates are not checked: a container's own is rarely made for its address. A redirect is followed as long as it
stays at the host that was asked; one that leads elsewhere says nothing of this container and is itself the answer.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from api.kinds.pods import HTTPGetAction

BODY_LIMIT = 10 * 1024
REDIRECTS = 10
_HEAD_LIMIT = 64 * 1024
_AGENT = "kube-probe/1.0"


class Page(msgspec.Struct, frozen=True):
    """What came back. body: of a redirect, at most ``BODY_LIMIT`` bytes; "" otherwise, for nobody reads it."""

    status: int
    body: str = ""

    @property
    def is_redirect(self) -> bool:
        """Whether it points to another page."""
        return 300 <= self.status < 400


def url_of(action: HTTPGetAction, host: str, port: int) -> str:
    """Return the address of the page that ``action`` names."""
    scheme = action.scheme.lower() or "http"
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


async def get_page(url: str, action: HTTPGetAction) -> Page:
    """Return the page behind the redirects; raises OSError, EOFError, ValueError. The caller bounds the time."""
    asked = urlsplit(url)
    for _ in range(REDIRECTS):
        page, location = await _get(urlsplit(url), action)
        target = urljoin(url, location)
        if not (page.is_redirect and location) or urlsplit(target).hostname != asked.hostname:
            return page
        url = target
    raise ValueError(f"stopped after {REDIRECTS} redirects")


async def _get(url: SplitResult, action: HTTPGetAction) -> tuple[Page, str]:
    """Return one page and where it points to, "" for nowhere."""
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    context = _unchecked_tls() if secure else None
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=context, limit=_HEAD_LIMIT)
    try:
        writer.write(_request(url, action).encode())
        status, headers = await _read_head(reader)
        page = Page(status)
        if page.is_redirect:
            page = Page(status, await _read_body(reader, headers))
        return page, headers.get("location", "")
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def _request(url: SplitResult, action: HTTPGetAction) -> str:
    headers = {"host": ("Host", url.netloc), "user-agent": ("User-Agent", _AGENT), "accept": ("Accept", "*/*")}
    headers |= {each.name.lower(): (each.name, each.value) for each in action.http_headers}
    if not headers["accept"][1]:
        del headers["accept"]
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.values())]
    return "\r\n".join([*lines, "Connection: close", "", ""])


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first = await reader.readline()
    if not first.startswith(b"HTTP/"):
        raise ValueError("malformed HTTP response" if first else "EOF")
    status = int(first.split(b" ", 2)[1])
    headers: dict[str, str] = {}
    left = _HEAD_LIMIT
    while (line := await reader.readline()).strip():
        left -= len(line)
        if left < 0:
            raise ValueError("the response's head is too long")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return status, headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> str:
    """Return the beginning of a body whose length is known; one that ends with the connection may never end."""
    length = headers.get("content-length", "")
    if not length.isdigit():
        return ""
    data = await reader.readexactly(min(int(length), BODY_LIMIT))
    return data.decode(errors="replace")


def _unchecked_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
