"""Links and redirects of what is behind the proxy."""

import gzip

import pytest

from master.rest.proxied_pages import HELD_BYTES, Page, is_readable, rewritten

PREFIX = "/api/v1/namespaces/default/services/web/proxy"


@pytest.mark.parametrize(
    ("address", "becomes"),
    [
        ("/", f"{PREFIX}/"),
        ("/login?next=/a#top", f"{PREFIX}/login?next=/a#top"),
        ("http://web/login", f"{PREFIX}/login"),
        ("//web/login", f"{PREFIX}/login"),
        (f"{PREFIX}/login", f"{PREFIX}/login"),
        ("/api/v1/namespaces/default/services/web/proxyless", f"{PREFIX}/api/v1/namespaces/default/services/web/proxyless"),
        ("login", "login"),
        ("../login", "../login"),
        ("#top", "#top"),
        ("?page=2", "?page=2"),
        ("", ""),
        ("http://elsewhere/login", "http://elsewhere/login"),
        ("//elsewhere/login", "//elsewhere/login"),
        ("mailto:/me", "mailto:/me"),
        ("http://[", "http://["),
    ],
)  # fmt: skip
def test_addresses(address: str, becomes: str) -> None:
    assert rewritten(address, PREFIX, "web") == becomes


PAGE = (
    "<!DOCTYPE html>\n<html><HEAD><script src='/s.js'>if (a<b) { x = '<a href=\"/no\">' }</script>\n"
    '<!-- <a href="/no"> --><link rel=icon href=/i.png></head>\n<body data-src="/no">caf\xe9 &amp &lt;'
    '<a class="href" HREF = "/yes">test</a><a href="no">relative</a><img alt=\'href="/no"\' src="/p.png"/>'
    "<form action='/f'>a < b\n</form><a href"
)
WANTED = (
    PAGE.replace("'/s.js'", f"'{PREFIX}/s.js'")
    .replace("=/i.png", f"={PREFIX}/i.png")
    .replace('"/yes"', f'"{PREFIX}/yes"')
    .replace('"/p.png"', f'"{PREFIX}/p.png"')
    .replace("'/f'", f"'{PREFIX}/f'")
)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_links_change_and_nothing_else_in_pieces_of_any_size(size: int, encoding: str) -> None:
    sent = PAGE.encode("latin-1")
    sent = gzip.compress(sent) if encoding else sent
    page = Page(PREFIX, "web", encoding)
    got = b"".join(part for at in range(0, len(sent), size) for part in page.give(sent[at : at + size]))
    assert (got + page.rest()).decode("latin-1") == WANTED


def test_a_page_is_told_as_it_comes() -> None:
    page = Page(PREFIX, "web")
    assert b"".join(page.give(b"<p>one</p><a hr")) == b"<p>one</p>"
    assert b"".join(page.give(b'ef="/two">')) == f'<a href="{PREFIX}/two">'.encode()


@pytest.mark.parametrize("opening", ["<script>", "<!--", '<a href="'])
def test_what_never_ends_is_not_held_for_ever(opening: str) -> None:
    page, sent = Page(PREFIX, "web"), opening.encode() + b"x" * (HELD_BYTES + 500_000)
    got = [part for at in range(0, len(sent), 100_000) for part in page.give(sent[at : at + 100_000])]
    assert len(b"".join(got)) > HELD_BYTES
    assert b"".join([*got, page.rest()]) == sent


@pytest.mark.parametrize("sent", [b"<a " * 40_000, b"<!--" * 100_000, b"<a " + b"x" * 200_000 + b">"])
@pytest.mark.timeout(20)  # it takes hours, or no time
def test_no_page_takes_for_ever(sent: bytes) -> None:
    page = Page(PREFIX, "web")
    assert b"".join([*page.give(sent), page.rest()]) == sent


def test_much_that_is_held_is_not_read_again_for_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    page, fed, feed = Page(PREFIX, "web"), list[str](), Page.feed
    monkeypatch.setattr(Page, "feed", lambda self, text: fed.append(text) or feed(self, text))
    sent = b"<script>" + b"x" * 200_000
    assert b"".join(page.give(sent)) == b"<script>"
    for _ in range(1000):
        assert b"".join(page.give(b"x")) == b""
    assert len(fed) == 1
    assert b"".join(page.give(b"x" * 50_000 + b'</script><a href="/two">')).endswith(
        f'<a href="{PREFIX}/two">'.encode()
    )
    assert page.rest() == b""


@pytest.mark.parametrize(
    ("content_type", "encoding", "readable"),
    [
        ("text/html", "", True),
        ("Text/HTML; charset=utf-8", "gzip", True),
        ("text/html", "br", False),
        ("application/json", "", False),
        ("", "", False),
    ],
)
def test_only_pages_are_read(content_type: str, encoding: str, readable: bool) -> None:  # noqa: FBT001 - a row's value
    assert is_readable(content_type, encoding) is readable
