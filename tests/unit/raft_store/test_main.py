"""What a member's process does before there is a member."""

import resource

import pytest

from raft_store.__main__ import take_all_files


@pytest.fixture
def limits(monkeypatch):
    """The limits that are set, in their order, on a system that would let a process open 4,096 files."""
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limit: asked.append((which, limit)))
    return asked


def test_a_member_takes_as_many_files_as_it_may_have(limits):
    take_all_files()
    assert limits == [(resource.RLIMIT_NOFILE, (4096, 4096))]


@pytest.mark.parametrize("refusal", [ValueError("not allowed to raise maximum limit"), PermissionError(1, "no")])
@pytest.mark.usefixtures("limits")
def test_a_limit_that_cannot_be_raised_keeps_no_member_from_starting(monkeypatch, caplog, refusal):
    """The kernel refuses a hard limit that was lent before its own was lowered, even unchanged."""

    def refuse(which, limit):
        raise refusal

    monkeypatch.setattr(resource, "setrlimit", refuse)
    take_all_files()
    assert "files=1024 of 4096" in caplog.text
