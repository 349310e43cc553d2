"""Volumes on disk: what containers find in them, and what they cannot reach through them."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.kinds.core import ConfigMap
from api.kinds.pods import Container
from api.kinds.volumes import Volume
from api.meta import ObjectMeta
from node_agent.pods.environment import ConfigMissing, Facts
from node_agent.pods.volume_files import File, render_files, tokens_wanted
from node_agent.pods.volumes import (
    Mounted,
    MountRefused,
    PodVolumes,
    VolumeFailed,
    leftover_pods,
    render_mounts,
    write_files,
)
from tests.unit.node_agent.pods.situations import pod


def content(directory: Path) -> dict[str, str]:
    """Return what a reader sees: visible names through their symlinks."""
    return {
        str(path.relative_to(directory)): path.read_text()
        for name in directory.iterdir()
        if not name.name.startswith("..")
        for path in ([name] if name.is_file() else sorted(name.rglob("*")))
    }


def test_files_change_all_at_once(tmp_path: Path) -> None:
    assert write_files(tmp_path, {"a": File(b"1"), "d/b": File(b"2", 0o600)})
    assert content(tmp_path) == {"a": "1", "d/b": "2"}
    assert (tmp_path / "d" / "b").stat().st_mode & 0o777 == 0o600
    opened = (tmp_path / "a").open()
    first = (tmp_path / "..data").readlink()
    assert not write_files(tmp_path, {"a": File(b"1"), "d/b": File(b"2", 0o600)})
    assert (tmp_path / "..data").readlink() == first
    assert write_files(tmp_path, {"a": File(b"new"), "c": File(b"3")})
    assert content(tmp_path) == {"a": "new", "c": "3"}
    assert opened.read() == "1"  # who has it open keeps what it opened
    opened.close()
    # One generation, its link, and the visible names: nothing is left of the one before.
    assert len([p for p in tmp_path.iterdir() if p.name.startswith("..2")]) == 1


def test_a_crash_before_the_switch_is_repaired(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": File(b"1")})
    (tmp_path / "..data_tmp").symlink_to("..nowhere")
    assert write_files(tmp_path, {"a": File(b"2")})
    assert content(tmp_path) == {"a": "2"}


def rendered(source: dict[str, Any], **data: str) -> dict[str, bytes]:
    of = pod()
    maps = {"it": ConfigMap(metadata=ObjectMeta(name="it"), data=data)}
    facts = Facts(pod=of, node="n", host_ip="h", pod_ip="p", config_maps=maps)
    files = render_files(msgspec.convert({"name": "v", **source}, Volume), facts, {})
    return {path: file.content for path, file in files.items()}


def test_what_is_rendered() -> None:
    assert rendered({"configMap": {"name": "it"}}, a="1", b="2") == {"a": b"1", "b": b"2"}
    items = [{"key": "a", "path": "x/y"}]
    assert rendered({"configMap": {"name": "it", "items": items}}, a="1", b="2") == {"x/y": b"1"}
    sources = [
        {"configMap": {"name": "it"}},
        {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    assert rendered({"projected": {"sources": sources}}, a="1") == {"a": b"1", "n": b"web"}
    assert rendered({"configMap": {"name": "no", "optional": True}}) == {}


@pytest.mark.parametrize(
    ("context", "mode", "owner"),
    [({}, 0o644, None), ({"fsGroup": 5}, 0o600, None), ({"runAsUser": 7}, 0o600, 7)],
)
def test_who_may_read_a_token(context: dict[str, int], mode: int, owner: int | None) -> None:
    source = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    volume = msgspec.convert({"name": "v", "projected": source}, Volume)
    facts = Facts(pod=pod(securityContext=context), node="n", host_ip="h", pod_ip="p")
    tokens = dict.fromkeys(tokens_wanted(volume), "abc")
    assert render_files(volume, facts, tokens) == {"token": File(b"abc", mode, owner)}


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_files_get_their_owner_and_the_pods_group(tmp_path: Path) -> None:
    files = {"token": File(b"abc", 0o600, 7), "plain": File(b"x", 0o400)}
    assert write_files(tmp_path, files, group=5)
    seen = {name: (tmp_path / name).stat() for name in files}
    assert [(s.st_mode & 0o777, s.st_uid, s.st_gid) for s in seen.values()] == [(0o640, 7, 5), (0o440, 0, 5)]
    assert not write_files(tmp_path, files, group=5)


@pytest.mark.parametrize(
    "source",
    [
        {"configMap": {"name": "no"}},
        {"configMap": {"name": "it", "items": [{"key": "none", "path": "x"}]}},
        {"configMap": {"name": "it", "items": [{"key": "a", "path": "../x"}]}},
        {"configMap": {"name": "it", "items": [{"key": "a", "path": "/x"}]}},
        {"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}},
    ],
)
def test_what_cannot_be_rendered(source: dict[str, Any]) -> None:
    with pytest.raises(ConfigMissing):
        rendered(source, a="1")


def mount(volume: Path, *, read_only: bool = False, **fields: Any) -> Any:
    container = msgspec.convert({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m", **fields}]}, Container)
    return render_mounts(container, {"v": Mounted(volume, read_only)}, {"POD": "web"})[0]


def test_mounts(tmp_path: Path) -> None:
    assert mount(tmp_path).source == str(tmp_path)
    assert mount(tmp_path, read_only=True).read_only
    assert mount(tmp_path, subPath="sub/deep").source == str(tmp_path / "sub" / "deep")
    assert (tmp_path / "sub" / "deep").is_dir()
    assert mount(tmp_path, subPathExpr="$(POD)").source == str(tmp_path / "web")


@pytest.mark.parametrize(
    "asked",
    [
        *({"subPath": path} for path in ("../out", "/etc", "link", "link/passwd", "file/below")),
        *({"subPathExpr": path} for path in ("../$(POD)", "/$(POD)", "$(POD)/$(UNKNOWN)")),
    ],
)
def test_what_cannot_be_mounted(tmp_path: Path, asked: dict[str, str]) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "file").touch()
    with pytest.raises(MountRefused):
        mount(tmp_path, **asked)


def test_pod_volumes(tmp_path: Path) -> None:
    host = tmp_path / "host"
    of = pod(
        volumes=[
            {"name": "empty", "emptyDir": {}},
            {"name": "plain"},
            {"name": "host", "hostPath": {"path": str(host), "type": "DirectoryOrCreate"}},
            {"name": "conf", "configMap": {"name": "it"}},
        ]
    )
    volumes = PodVolumes(tmp_path / "node", "uid-1")
    mounted = volumes.set_up(of, {"conf": {"a": File(b"1")}})
    assert set(mounted) == {"empty", "plain", "host", "conf"}
    assert mounted["empty"].path.stat().st_mode & 0o777 == 0o777
    assert mounted["conf"].read_only
    (mounted["host"].path / "kept").write_text("x")
    (mounted["empty"].path / "kept").write_text("y")
    volumes.set_up(of, {"conf": {"a": File(b"1")}})
    assert (mounted["empty"].path / "kept").exists()  # a restarted agent sets up again and destroys nothing
    volumes.termination_log("main", 2).write_text("z" * 5000)
    assert volumes.read_termination_log("main", 2) == "z" * 4096
    assert volumes.read_termination_log("main", 3) == ""
    assert leftover_pods(tmp_path / "node") == ["uid-1"]
    volumes.tear_down()
    volumes.tear_down()
    assert leftover_pods(tmp_path / "node") == []
    assert (host / "kept").exists()


@pytest.mark.parametrize(("medium", "mode"), [("", 0o2777), ("Memory", 0o3777)])
def test_modes_of_an_empty_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, medium: str, mode: int) -> None:
    mounted: list[tuple[str, ...]] = []
    monkeypatch.setattr("node_agent.pods.volumes._run", lambda *argv: mounted.append(argv))
    of = pod(volumes=[{"name": "v", "emptyDir": {"medium": medium}}], securityContext={"fsGroup": os.getegid()})
    path = PodVolumes(tmp_path, "u").set_up(of, {})["v"].path
    assert path.stat().st_mode & 0o7777 == mode
    assert len(mounted) == (medium == "Memory")
    # What a container mounts below it is as open.
    assert Path(mount(path, subPath="below").source).stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize(
    "source",
    [
        {"hostPath": {"path": "/no/such", "type": "Directory"}},
        {"hostPath": {"path": "/etc", "type": "File"}},
        {"hostPath": {"path": "/etc", "type": "Wrong"}},
        {"nfs": {"server": "x", "path": "/"}},
        {"persistentVolumeClaim": {"claimName": "x"}},
        {"emptyDir": {"medium": "HugePages"}},
    ],
)
def test_a_volume_that_cannot_be(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(VolumeFailed, match='failed for volume "v" :'):
        PodVolumes(tmp_path, "u").set_up(pod(volumes=[{"name": "v", **source}]), {})
