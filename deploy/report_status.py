"""``trireme status``: what the engine says of the hosts, what the masters say of themselves, and the verdict."""

from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.faults import partitioned
from deploy.health import Health, MasterView, judge, merge
from deploy.hosts.base import HostDriver, HostState
from deploy.lab import Host, Lab
from deploy.observe import ask_masters, is_ready, list_nodes


class MasterRow(msgspec.Struct, frozen=True):
    """One master; the Raft facts are None while no master can tell."""

    name: str
    address: str
    host: HostState
    reachable: bool
    role: str | None
    term: int | None
    commit_index: int | None
    applied_index: int | None
    lag: int | None
    store_bytes: int | None
    store_version: str | None
    runs_controllers: bool
    problem: str


class NodeRow(msgspec.Struct, frozen=True):
    """One node; ``ready`` is None while no master can tell."""

    name: str
    address: str
    host: HostState
    ready: bool | None
    version: str
    pod_cidr: str


class Report(msgspec.Struct, frozen=True):
    """Everything that ``status`` shows, in the shape of its JSON."""

    lab: str
    driver: str
    api: str
    writes: bool
    health: str
    entry: HostState | None
    masters: list[MasterRow]
    nodes: list[NodeRow]
    partitioned: list[str]


def gather(lab: Lab, driver: HostDriver) -> Report:
    """Ask engine and masters; takes 2 seconds a question at most, whoever is down."""
    states = driver.states()
    answers = ask_masters(lab)
    verdict = judge(len(lab.masters), answers, external_store=bool(lab.store_endpoints))
    views = merge(answers, verdict)
    listed = list_nodes(lab, [answer.answered_by for answer in answers])
    objects = None if listed is None else {node["metadata"]["name"]: node for node in listed}
    entries = lab.of_role("entry")
    return Report(
        lab=lab.name,
        driver=lab.driver,
        api=lab.api_url,
        writes=verdict.writes,
        health=_explain(verdict, states, lab),
        entry=states[entries[0].name] if entries else None,
        masters=[_master_row(host, states[host.name], views.get(host.name)) for host in lab.masters],
        nodes=[_node_row(host, states[host.name], objects) for host in lab.nodes],
        partitioned=[name for name, ruled in partitioned(lab, driver).items() if ruled],
    )


def _explain(verdict: Health, states: Mapping[str, HostState], lab: Lab) -> str:
    """Add which hosts are not running, if that is what the verdict comes from."""
    down = [f"{host.name} is {states[host.name]}" for host in lab.masters if states[host.name] != "running"]
    return f"{verdict.words} ({', '.join(down)})" if down else verdict.words


def _master_row(host: Host, found: HostState, view: MasterView | None) -> MasterRow:
    seen = view is not None and view.reachable
    return MasterRow(
        name=host.name,
        address=host.address,
        host=found,
        reachable=seen,
        role=view.role if view and seen else None,
        term=view.term if view and seen else None,
        commit_index=view.commit_index if view and seen else None,
        applied_index=view.applied_index if view and seen else None,
        lag=view.lag if view and seen else None,
        store_bytes=view.store_bytes if view and seen else None,
        store_version=view.store_version if view and seen else None,
        runs_controllers=bool(view and seen and view.runs_controllers),
        problem=view.problem if view else "",
    )


def _node_row(host: Host, found: HostState, objects: Mapping[str, Mapping[str, Any]] | None) -> NodeRow:
    node = (objects or {}).get(host.name, {})
    return NodeRow(
        name=host.name,
        address=host.address,
        host=found,
        ready=None if objects is None else is_ready(node),
        version=node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""),
        pod_cidr=node.get("spec", {}).get("podCIDR", ""),
    )


def show(report: Report, console: Console) -> None:
    """Print ``report`` for people."""
    console.print(f"Lab '{report.lab}', API {report.api}", markup=False)
    masters = _table("MASTER", "ADDRESS", "HOST", "RAFT", "TERM", "COMMIT", "LAG", "STORE", "")
    for row in report.masters:
        remark = "runs the controllers" if row.runs_controllers else row.problem
        store = "" if row.store_bytes is None else f"{row.store_bytes / 1024:.0f} KiB"
        masters.add_row(
            row.name,
            row.address,
            row.host,
            row.role or "-",
            *_numbers(row.term, row.commit_index, row.lag),
            store,
            remark,
        )
    console.print(masters)
    nodes = _table("NODE", "ADDRESS", "HOST", "READY", "VERSION", "PODS")
    for node in report.nodes:
        ready = {True: "yes", False: "no", None: "unknown"}[node.ready]
        nodes.add_row(node.name, node.address, node.host, ready, node.version, node.pod_cidr)
    console.print(nodes)
    if report.entry not in (None, "running"):
        console.print(f"The entry host is {report.entry}: kubectl cannot reach the API.", style="yellow")
    if report.partitioned:
        console.print(f"Partitioned: {', '.join(report.partitioned)} (trireme heal undoes it)", style="yellow")
    console.print(report.health, style="green" if report.writes else "red", markup=False)


def _numbers(*values: int | None) -> list[str]:
    return ["-" if value is None else str(value) for value in values]


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table
