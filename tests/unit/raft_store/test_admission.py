"""Who is served by a store whose authority knows others, too."""

from pathlib import Path

import pytest

from raft_store.config import ConfigError, load_config
from raft_store.tls import TlsFiles, admission

FILES = TlsFiles(Path("ca"), Path("cert"), Path("key"), groups=("system:masters",))


def subject(group: str) -> dict[str, object]:
    return {"subject": ((("organizationName", group),), (("commonName", "system:masters"),))}


def test_a_certificate_has_to_name_one_of_the_groups() -> None:
    admits = admission(FILES)
    assert admits is not None
    assert admits(subject("system:masters"))
    assert not admits(subject("system:nodes"))
    assert not admits({})
    assert admission(None) is None
    assert admission(TlsFiles(Path("ca"), Path("cert"), Path("key"))) is None


@pytest.mark.parametrize(
    ("top", "table"),
    [('front = "grpcio"', "client_tls"), ('http_listen = "127.0.0.1:0"', "client_tls"), ("", "peer_tls")],
)
def test_groups_that_would_not_be_kept_are_refused(tmp_path: Path, top: str, table: str) -> None:
    file = tmp_path / "store.toml"
    file.write_text(
        f'name = "a"\ndata_dir = "{tmp_path}/d"\nclient_url = "https://127.0.0.1:1"\n{top}\n'
        f'[members]\na = "https://127.0.0.1:2"\n'
        f'[{table}]\nca = "ca"\ncert = "c"\nkey = "k"\ngroups = ["g"]\n'
    )
    with pytest.raises(ConfigError, match="groups"):
        load_config(file)
