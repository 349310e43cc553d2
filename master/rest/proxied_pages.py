"""What a proxied answer says of its own addresses, as the client has to write them: links of pages, redirects.

A page behind the proxy believes to be at ``/``; to the client it is at ``.../proxy/``. So a link that begins with a
slash gets that path before it. Everything else of a page stays as it is, byte by byte.
"""

import re
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlsplit

_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # -> zlib's window bits
_STEP_BYTES = 256 * 1024  # so much is unpacked at a time: a small body may stand for a huge one
# So much of a page may be held back, waiting for the end of a tag, a comment or a script. The rest of a page that holds
# on for longer passes as it is.
HELD_BYTES = 4 * 1024 * 1024
# What is held back is read again when more has come: of much, not for a few bytes.
_MUCH_BYTES = 64 * 1024
# Tag -> the attributes that hold addresses.
_ADDRESSES = {
    "a": {"href"},
    "applet": {"codebase"},
    "area": {"href"},
    "audio": {"src"},
    "base": {"href"},
    "blockquote": {"cite"},
    "body": {"background"},
    "button": {"formaction"},
    "command": {"icon"},
    "del": {"cite"},
    "embed": {"src"},
    "form": {"action"},
    "frame": {"longdesc", "src"},
    "head": {"profile"},
    "html": {"manifest"},
    "iframe": {"longdesc", "src"},
    "img": {"longdesc", "src", "usemap"},
    "input": {"formaction", "src", "usemap"},
    "ins": {"cite"},
    "link": {"href"},
    "object": {"classid", "codebase", "data", "usemap"},
    "q": {"cite"},
    "script": {"src"},
    "source": {"src"},
    "video": {"poster", "src"},
}
_TAG = re.compile(r"<([a-zA-Z][^\s/>]*)")
# Begins where a word does and takes all of it: tried at every letter of a long one, it would take for ever.
_ATTRIBUTE = re.compile(r"""(?<![^\s/>"'=])([^\s/>"'=]++)(\s*+=\s*+)("[^"]*"|'[^']*'|[^\s>"']++)""")


def rewritten(address: str, prefix: str, host: str) -> str:
    """Return an address of an answer as the client reaches it.

    prefix: the path that leads to the proxied root, without a slash behind it; host: what the proxied server was asked
    as. Relative addresses, other hosts and addresses that have the prefix already stay as they are.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if (parts.netloc and parts.netloc != host) or not parts.path.startswith("/"):
        return address
    if parts.scheme and not parts.netloc:
        return address
    local = address.partition(parts.netloc)[2] if parts.netloc else address
    return local if local.startswith(f"{prefix}/") or local == prefix else prefix + local


class Page(HTMLParser):
    """A page on its way, in pieces of any size."""

    def __init__(self, prefix: str, host: str, encoding: str = "") -> None:
        """``encoding`` is the answer's Content-Encoding; see ``is_readable``."""
        super().__init__(convert_charrefs=False)
        self._prefix, self._host = prefix, host
        self._unpack = zlib.decompressobj(_ENCODINGS[encoding]) if encoding else None
        self._held = ""  # read and not given out
        self._held_from = 0  # which character of the page it begins with
        self._cut = 0  # which character of the page ``rawdata`` begins with
        self._edits: list[tuple[int, str, str]] = []  # (character of the page, tag as it is, tag as it should be)
        self._unread = ""  # came behind what is held back
        self._gave_up = False

    def give(self, data: bytes) -> Iterator[bytes]:
        """Yield what can be told of the page by now; raises zlib.error."""
        for plain in self._plain(data):
            # Every byte is one character, whatever the page's charset: tags are ASCII in all that matter.
            self._unread += plain.decode("latin-1")
            if self._gave_up or len(self.rawdata) < max(_MUCH_BYTES, 8 * len(self._unread)):
                yield self._read()

    def rest(self) -> bytes:
        """Return the end of the page; what is cut off there has no links, and the parser, told to end, no hurry."""
        return self._read() + self._out(self._held_from + len(self._held))

    def _read(self) -> bytes:
        """Take what has come and return what can be told of it."""
        text, self._unread = self._unread, ""
        self._held += text
        if not self._gave_up:
            self.feed(text)
            self._cut = self._held_from + len(self._held) - len(self.rawdata)
            self._gave_up = len(self.rawdata) > HELD_BYTES
        return self._out(self._held_from + len(self._held) if self._gave_up else self._cut)

    def _plain(self, data: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            yield data
            return
        while data:
            yield self._unpack.decompress(data, _STEP_BYTES)
            data = self._unpack.unconsumed_tail

    def _out(self, until: int) -> bytes:
        pieces, at = [], self._held_from
        for place, was, becomes in self._edits:
            pieces += [self._held[at - self._held_from : place - self._held_from], becomes]
            at = place + len(was)
        pieces.append(self._held[at - self._held_from : until - self._held_from])
        self._held = self._held[until - self._held_from :]
        self._held_from = until
        self._edits.clear()
        return "".join(pieces).encode("latin-1")

    def parse_starttag(self, i: int) -> int:
        """Note where a tag has to change, and go on as the parser does."""
        end = super().parse_starttag(i)
        tag = self.rawdata[i:end] if end > i else ""
        changed = self._tag(tag)
        if changed != tag:
            self._edits.append((self._cut + i, tag, changed))
        return end

    def _tag(self, tag: str) -> str:
        name = _TAG.match(tag)
        attributes = _ADDRESSES.get(name[1].lower()) if name is not None else None
        if name is None or attributes is None:
            return tag

        def change(found: re.Match[str]) -> str:
            if found[1].lower() not in attributes:
                return found[0]
            quote = found[3][0] if found[3][0] in "\"'" else ""
            address = rewritten(found[3].strip("\"'") if quote else found[3], self._prefix, self._host)
            return f"{found[1]}{found[2]}{quote}{address}{quote}"

        return name[0] + _ATTRIBUTE.sub(change, tag[name.end() :])


def is_readable(content_type: str, encoding: str) -> bool:
    """Return whether an answer is a page whose links can be found."""
    return content_type.partition(";")[0].strip().lower() == "text/html" and encoding in ("", *_ENCODINGS)
