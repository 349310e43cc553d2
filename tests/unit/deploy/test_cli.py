"""The command line on its own: wrong calls are answered in words, with a status, and without a traceback."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy import cli, configs, pki, state
from deploy.errors import CommandFailed
from deploy.lab import Lab
from deploy.shell import run


@pytest.fixture
def known(lab: Lab) -> Lab:
    state.save(lab)
    return lab


def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["trireme", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capfd.readouterr()
    return int(caught.value.code or 0), output.out + output.err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["status"], 2, "there is no lab called 'lab'"),
        (["status", "--name", "other"], 2, "trireme up --name other"),
        (["up", "--name", "Not_A_Name"], 2, "cannot be a lab's name"),
        (["up", "--api-port", "99999"], 2, "no port to publish"),
        (["up", "--store-endpoints", "nonsense"], 2, "no store endpoint"),
        (["up", "--engine", "etcd"], 2, "etcd"),
        (["frobnicate"], 2, "No such command"),
        (["kill"], 2, "Missing argument"),
        (["pki", "--masters", "0"], 2, "1 to 7 masters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_calls(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    found, output = call(monkeypatch, capfd, *arguments)
    assert found == status
    assert words in output
    assert "Traceback" not in output
    assert not state.names()


@pytest.mark.parametrize(
    "arguments",
    [
        ["kill", "master9"],
        ["stop", "master9"],
        ["partition", "master9"],
        ["ssh", "master9"],
        ["logs", "master9"],
        ["logs", "master1", "dockerd"],
        ["kill", "master1", "--program", "dockerd"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("known", "_no_engine")
def test_wrong_hosts_and_programs_are_refused_before_an_engine_is_asked(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, output = call(monkeypatch, capfd, *arguments)
    assert status == 2
    assert "its hosts are" in output or "its programs" in output


@pytest.fixture
def _no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing.sock")


@pytest.mark.parametrize("arguments", [["up"], ["down"], ["status"], ["start"], ["load", "x"]], ids=" ".join)
@pytest.mark.usefixtures("_no_engine")
def test_without_an_engine_every_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], lab: Lab, arguments: list[str]
) -> None:
    if arguments != ["up"]:
        state.save(lab)
    status, output = call(monkeypatch, capfd, *arguments)
    assert status == 1
    assert "no Docker engine answers" in output
    assert "DOCKER_HOST is set" in output
    assert "Traceback" not in output


def test_kubeconfig_prints_only_its_path(known: Lab) -> None:
    result = CliRunner().invoke(cli.app, ["kubeconfig"])
    assert result.output == f"{state.kubeconfig(known.name)}\n"


def test_what_env_prints_is_what_a_shell_exports(known: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a 'quoted' $HOME"
    monkeypatch.setenv("TRIREME_HOME", str(home))
    state.save(known)
    pki.ensure(known)
    printed = CliRunner().invoke(cli.app, ["env"]).output
    shown = run(["sh", "-c", f'{printed}\nprintf %s "$KUBECONFIG"'])
    assert shown == str(state.kubeconfig("lab"))


def test_a_failed_command_can_be_pasted() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo two words; exit 3"])
    assert caught.value.status == 3
    assert "sh -c 'echo two words; exit 3'" in str(caught.value)
    assert "two words" in str(caught.value)


def test_a_command_that_is_not_installed_fails_as_in_a_shell() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["trireme-no-such-program"])
    assert caught.value.status == 127


def test_a_command_that_hangs_is_given_up() -> None:
    with pytest.raises(CommandFailed, match="did not end in time"):
        run(["sleep", "60"], timeout_s=0.05)


def test_every_host_file_is_written_where_the_host_looks(lab: Lab) -> None:
    from deploy.steps.bring_up import write_files

    write_files(lab)
    for host in lab.hosts:
        for name in configs.render_host_files(lab, host):
            assert (state.host_folder(lab.name, host.name) / name).is_file()
    assert state.kubeconfig(lab.name).stat().st_mode & 0o777 == 0o600
