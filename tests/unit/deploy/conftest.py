"""Labs to test with, kept in a folder of the test's own."""

from pathlib import Path

import pytest

from deploy.choices import Choices
from deploy.lab import Lab

SUBNET = "10.89.7.0/24"


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIREME_HOME", str(tmp_path / "home"))


@pytest.fixture
def lab() -> Lab:
    return Choices("lab").new_lab(SUBNET)
