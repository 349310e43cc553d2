"""Which labs there are: those that this machine remembers, and those of which only the engine still holds something."""

from collections import Counter

from deploy import state
from deploy.engine import connect
from deploy.errors import EngineUnavailable
from deploy.hosts.containers import ContainerHosts, labs_found


def survey() -> list[dict[str, str | int]]:
    """Return one row a lab: name, masters, nodes, and the state of its hosts in words."""
    try:
        client = connect()
    except EngineUnavailable:
        client = None
    rows: list[dict[str, str | int]] = []
    known = state.names()
    for name in known:
        lab = state.load(name)
        if lab.driver == "vagrant":
            words = f"on VMs, from {lab.folder}"
        elif client is None:
            words = "unknown: no Docker engine answers"
        else:
            counts = Counter(ContainerHosts(lab, client).states().values())
            words = ", ".join(f"{count} {found}" for found, count in sorted(counts.items()))
        rows.append({"name": name, "masters": len(lab.masters), "nodes": len(lab.nodes), "state": words})
    for name in sorted((labs_found(client) if client else set()) - set(known)):
        words = f"not recorded in {state.home()}: remains, or somebody else's; trireme down --name {name} removes it"
        rows.append({"name": name, "masters": 0, "nodes": 0, "state": words})
    return rows
