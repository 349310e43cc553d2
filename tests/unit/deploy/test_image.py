"""The host image: what is asked before anything is installed for it."""

import pytest

from deploy import engine, image
from deploy.errors import DeployError


@pytest.fixture
def without_debootstrap(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with root and apt but no debootstrap; the list tells what was installed on it."""
    installed: list[str] = []
    monkeypatch.setattr(image.shutil, "which", lambda program: None if program == "debootstrap" else f"/bin/{program}")
    monkeypatch.setattr(image.os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine, "install_packages", installed.extend)
    return installed


def test_debootstrap_is_installed_where_the_user_agrees(without_debootstrap: list[str]) -> None:
    image._ensure_debootstrap(lambda _: True, lambda _: None)
    assert without_debootstrap == ["debootstrap"]


def test_nothing_is_installed_unasked(without_debootstrap: list[str]) -> None:
    questions: list[str] = []
    with pytest.raises(DeployError, match="debootstrap is not installed") as refused:
        image._ensure_debootstrap(lambda question: bool(questions.append(question)), lambda _: None)
    assert without_debootstrap == []
    assert "Shall I install debootstrap" in questions[0]
    assert "--yes" in refused.value.hint


def test_a_user_without_root_is_told_what_to_install(
    without_debootstrap: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image.os, "geteuid", lambda: 1000)
    with pytest.raises(DeployError) as refused:
        image._ensure_debootstrap(lambda _: True, lambda _: None)
    assert without_debootstrap == []
    assert "apt-get install debootstrap" in refused.value.hint
