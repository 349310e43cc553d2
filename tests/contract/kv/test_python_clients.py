"""Clients from PyPI, against ours and against a real etcd: the same words from both."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.kv.stores import Store, ours, real_etcd

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(300)]

TOURS = Path(__file__).parent / "clients"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the clients."""
    folder = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    program = str(folder / "bin" / "python")
    wanted = str(TOURS / "requirements.txt")
    subprocess.run([program, "-m", "pip", "install", "-q", "-r", wanted], check=True, timeout=200)
    return program


def words(python: str, tour: str, store: Store) -> str:
    host, _, port = store.endpoints[-1].rpartition(":")
    done = subprocess.run(
        [python, str(TOURS / tour), host, port], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("tour", "last"), [("etcd3_tour.py", "gone 6"), ("etcd3gw_tour.py", "gone True")])
def test_tour(python: str, tmp_path: Path, tour: str, last: str) -> None:
    (tmp_path / "etcd").mkdir()
    with real_etcd(tmp_path / "etcd") as theirs, ours(tmp_path, members=1, engine="native") as mine:
        expected, found = words(python, tour, theirs), words(python, tour, mine)
    assert expected.splitlines()[-1] == last  # the tour was gone to its end
    assert found == expected


def test_tour_on_three_members(python: str, tmp_path: Path) -> None:
    with ours(tmp_path, members=3, engine="native") as store:
        for tour in ("etcd3_tour.py", "etcd3gw_tour.py"):
            assert "gone" in words(python, tour, store)
