"""Who is served by a store whose authority knows others, too."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from raft_store.config import ConfigError, load_config
from raft_store.tls import MAX_TOLD, TlsFiles, admission

FILES = TlsFiles(Path("ca"), Path("cert"), Path("key"), groups=("system:masters",))


def subject(group: str) -> dict[str, object]:
    return {"subject": ((("organizationName", group),), (("commonName", "system:masters"),))}


def test_a_certificate_has_to_name_one_of_the_groups() -> None:
    admits = admission(FILES, listener="client_tls")
    assert admits is not None
    assert admits(subject("system:masters"))
    assert not admits(subject("system:nodes"))
    assert not admits({})
    assert admission(None, listener="client_tls") is None
    assert admission(TlsFiles(Path("ca"), Path("cert"), Path("key")), listener="client_tls") is None


def test_a_name_does_as_well_as_a_group() -> None:
    admits = admission(replace(FILES, names=("m1", "m2")), listener="peer_tls")
    assert admits is not None
    assert admits({"subject": ((("commonName", "m2"),),)})
    assert admits(subject("system:masters"))
    assert not admits({"subject": ((("commonName", "m3"),),)})
    assert not admits({"subject": ((("organizationName", "m1"),),)}), "a group that is called like a member is none"


def test_whom_it_refused_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    admits = admission(FILES, listener="peer_tls")
    assert admits is not None
    for _ in range(3):
        assert not admits(subject("system:nodes"))
    (told,) = caplog.messages
    assert "[peer_tls]" in told
    assert "organizationName='system:nodes'" in told
    for number in range(2 * MAX_TOLD):
        assert not admits(subject(f"stranger{number}"))
    assert len(caplog.messages) == MAX_TOLD


@pytest.mark.parametrize(
    ("top", "restriction"),
    [('front = "grpcio"', "groups"), ('http_listen = "127.0.0.1:0"', "groups"), ('front = "grpcio"', "names")],
)
def test_a_restriction_that_would_not_be_kept_is_refused(tmp_path: Path, top: str, restriction: str) -> None:
    file = tmp_path / "store.toml"
    file.write_text(
        f'name = "a"\ndata_dir = "{tmp_path}/d"\nclient_url = "https://127.0.0.1:1"\n{top}\n'
        f'[members]\na = "https://127.0.0.1:2"\n'
        f'[client_tls]\nca = "ca"\ncert = "c"\nkey = "k"\n{restriction} = ["g"]\n'
    )
    with pytest.raises(ConfigError, match="are kept by front 'fast' alone"):
        load_config(file)
