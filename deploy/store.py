"""The store's own tools, run for a lab: as a program, on this machine or on a host."""

from collections.abc import Mapping, Sequence

from deploy import state
from deploy.configs import render_environment

HOST_PYTHON = "/opt/trireme/venv/bin/python"
TOOL = ("-P", "-m", "raft_store.tool")


def needs_a_lab(arguments: Sequence[str]) -> bool:
    """Return whether a command of the tool asks a running store, and is not told which."""
    if any(argument in ("-h", "--help") or argument.startswith("--endpoints") for argument in arguments):
        return False
    return arguments[0] in ("members", "status") or list(arguments[:2]) == ["snapshot", "save"] or "--live" in arguments


def environment(name: str, arguments: Sequence[str]) -> Mapping[str, str]:
    """Return what tells the tool where the lab's store is; raises DeployError if it needs to know and there is none."""
    lab = state.load(name) if needs_a_lab(arguments) else state.find(name)
    if lab is None:
        return {}
    ca, cert, key = state.admin_files(name)
    return render_environment(lab, kubeconfig=state.kubeconfig(name), ca=ca, cert=cert, key=key)


def on_host(arguments: Sequence[str]) -> list[str]:
    """Return the tool's command line on a host."""
    return [HOST_PYTHON, *TOOL, *arguments]
