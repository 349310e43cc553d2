"""A lab is gone; another one begins with its backup, and nobody's objects have changed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import LabUnderTest, run

pytestmark = [pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(600)]

SIZE = ("--masters", "1", "--nodes", "1")


@pytest.fixture
def labs() -> Iterator[tuple[LabUnderTest, LabUnderTest]]:
    pair = LabUnderTest("e2e-lost"), LabUnderTest("e2e-again")
    yield pair
    for one in pair:
        one.trireme("down", check=False)


def whoami(lab: LabUnderTest, token: str) -> str:
    """Ask with a token alone: kubectl would show its certificate as well."""
    server = lab.kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    review = '{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}'
    heads = ("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json")
    url = f"{server}/apis/authentication.k8s.io/v1/selfsubjectreviews"
    return run("curl", "-s", "--noproxy", "*", "--cacert", lab.env["ETCDCTL_CACERT"], *heads, "-d", review, url)


def test_a_new_lab_begins_with_a_backup(labs: tuple[LabUnderTest, LabUnderTest], tmp_path: Path) -> None:
    lost, again = labs
    file = tmp_path / "state.tar"
    lost.trireme("up", "--yes", *SIZE, timeout_s=300)
    lost.kubectl("create", "secret", "generic", "kept", "--from-literal=a=b")
    before = lost.get("secret", "kept")
    token = lost.kubectl("create", "token", "default").strip()
    run("./trireme", "backup", "now", "--name", lost.name, "--to", str(file))
    assert json.loads(lost.trireme("store", "status", "-o", "json"))[0]["role"] == "leader"
    lost.trireme("down")

    again.trireme("up", "--yes", *SIZE, "--from-snapshot", str(file), timeout_s=300)
    assert again.get("secret", "kept") == before
    # The old lab's tokens are still worth something: its keys came along.
    assert "system:serviceaccount:default:default" in whoami(again, token)
    again.kubectl("create", "configmap", "later", "--from-literal=a=b")
    assert int(again.get("configmap", "later")["metadata"]["resourceVersion"]) > int(
        before["metadata"]["resourceVersion"]
    )
    refused = again.trireme("up", "--from-snapshot", str(file), check=False)
    assert "has data already" in refused
