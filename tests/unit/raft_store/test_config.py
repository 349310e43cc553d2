"""A bad file is refused with the file, the field and the fix."""

from pathlib import Path

import pytest

from raft_store.config import ConfigError, cluster_id, load_config, member_id

GOOD = """
name = "m1"
data_dir = "/var/lib/store"
client_url = "http://10.0.0.1:2379"
[members]
m1 = "http://10.0.0.1:2380"
m2 = "http://10.0.0.2:2380"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "store.toml"
    file.write_text(text)
    return file


def test_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, GOOD))
    assert (config.engine, config.client_listen, config.client_tls) == ("native", "0.0.0.0:2379", None)
    assert config.data_dir == Path("/var/lib/store")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(("", 'colour = "red"\n'), "colour", id="unknown field"),
        pytest.param(('name = "m1"\n', ""), "name", id="missing field"),
        pytest.param(('name = "m1"', "name = 1"), r"\$.name", id="wrong type"),
        pytest.param(('name = "m1"', 'name = "m9"'), r"'m9' is not in \[members\] \(m1, m2\)", id="stranger"),
        pytest.param(("", 'engine = "steam"\n'), "native, raftos", id="unknown engine"),
        pytest.param(("", 'engine = "memory"\n'), "group of one", id="memory with two members"),
        pytest.param(("", 'client_listen = "2379"\n'), 'client_listen .*"host:port"', id="no address"),
        pytest.param(('"http://10.0.0.2:2380"', '"m2"'), "members.m2", id="no peer address"),
        pytest.param(("[members]", '[raft]\ntick_ms = "x"\n[members]'), r"raft.tick_ms", id="in a table"),
        pytest.param(
            ("[members]", '[client_tls]\nca = "/no"\ncert = "/no"\nkey = "/no"\n[members]'),
            "client_tls.ca '/no' does not exist",
            id="no such certificate",
        ),
        pytest.param(("name", "name ="), "not TOML", id="syntax"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    old, new = change
    text = GOOD.replace(old, new, 1) if old else new + GOOD
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")


def test_ids_follow_from_names_alone() -> None:
    assert member_id("lab", "m1") == member_id("lab", "m1")
    ids = {member_id("lab", "m1"), member_id("lab", "m2"), member_id("other", "m1"), cluster_id("lab")}
    assert len(ids) == 4
    assert all(0 < value < 1 << 64 for value in ids)
