"""master.toml: every fault names the file, the field and the fix."""

from pathlib import Path
from typing import Any

import pytest

from master.config import ConfigError, load, parse

GOOD: dict[str, Any] = {
    "name": "master1",
    "address": "10.89.7.11",
    "store_endpoints": ["https://10.89.7.11:2379", "10.89.7.12:2379"],
    "tls": {"client_ca": "ca", "cert": "c", "key": "k"},
}


def test_defaults() -> None:
    config = parse(GOOD, "f")
    assert config.store_endpoints == ("10.89.7.11:2379", "10.89.7.12:2379")
    assert (config.rest_listen, config.api_address) == (("0.0.0.0", 6443), "10.89.7.11:6443")
    assert (str(config.service_cidr), config.node_ports) == ("10.96.0.0/16", range(30000, 32768))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"nmae": "x"}, "nmae"),
        ({"name": ""}, "name"),
        ({"address": "master1"}, "address"),
        ({"store_endpoints": []}, "store_endpoints"),
        ({"store_endpoints": ["10.0.0.1"]}, "store_endpoints"),
        ({"service_cidr": "10.96.0.0/99"}, "service_cidr"),
        ({"node_port_range": "32767-30000"}, "node_port_range"),
        ({"rest_listen": "6443"}, "rest_listen"),
        ({"tls": {"cert": "c", "key": "k"}}, "client_ca"),
        ({"masters": {"m": "nowhere"}}, "masters.m"),
        ({"node_monitor_grace_s": "soon"}, "node_monitor_grace_s"),
    ],
)
def test_faults_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse({**GOOD, **change}, "/etc/master.toml")
    text = str(refusal.value)
    assert text.startswith("/etc/master.toml: ")
    assert named in text
    assert "\n" not in text


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path / "bad.toml")
