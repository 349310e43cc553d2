"""Whose address may enter the list of members: one that every member can dial."""

import pytest

from raft_store.config import peer_address
from raft_store.etcd_api.cluster import _checked
from raft_store.etcd_api.errors import RpcError
from raft_store.peer_link import open_channel


@pytest.mark.parametrize("url", ["http://a:2380", "https://10.0.0.1:2380", " http://[::1]:2380 ", "HTTP://a:2380"])
def test_addresses(url):
    (checked,) = _checked([url])
    open_channel(peer_address(checked), None)


@pytest.mark.parametrize(
    "url",
    [
        "a:2380",
        "ftp://a:2380",
        "http://a",
        "http://:2380",
        "http://a:2380/path",
        "http://a:2380?query",
        "http://a:2380?",
        "http://a:2380#fragment",
        "http://a:23\n80",
        "http://a:99999",
    ],
)
def test_addresses_that_nobody_could_dial_are_refused(url):
    with pytest.raises(RpcError, match="given member URLs are invalid"):
        _checked(["http://b:2380", url])
