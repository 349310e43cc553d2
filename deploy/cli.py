"""The command line: ``./trireme COMMAND``.

Each command is a few lines over the rooms beside it. Modules that are slow to import (the Docker SDK, gRPC,
cryptography) are imported by the commands that need them, so that ``--help`` and completion answer at once.
"""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from deploy import state
from deploy.errors import DeployError
from deploy.lab import Host, Lab, check_name, check_size, pick_hosts

if TYPE_CHECKING:
    from deploy.hosts.base import HostDriver

app = typer.Typer(
    name="trireme",
    help="Bring a multi-host cluster lab up, break it, look inside, take it down.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Where nobody looks at a terminal, lines are not folded: what is printed may be parsed or pasted.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def _lab_names(incomplete: str) -> list[str]:
    return [name for name in state.names() if name.startswith(incomplete)]


def _host_names(ctx: typer.Context, incomplete: str) -> list[str]:
    lab = state.find(ctx.params.get("name") or "lab")
    return [host.name for host in lab.hosts if host.name.startswith(incomplete)] if lab else []


Name = Annotated[str, typer.Option("--name", help="Which lab.", autocompletion=_lab_names)]
Hosts = Annotated[list[str], typer.Argument(metavar="HOST", autocompletion=_host_names)]
AnyHosts = Annotated[list[str] | None, typer.Argument(metavar="HOST", autocompletion=_host_names)]
OneHost = Annotated[str, typer.Argument(metavar="HOST", autocompletion=_host_names)]
Output = Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")]


def driver_of(lab: Lab) -> "HostDriver":
    """Return what drives the hosts of ``lab``; raises DeployError if it is out of reach."""
    if lab.driver == "vagrant":
        from deploy.hosts.vagrant import VagrantHosts  # noqa: PLC0415

        return VagrantHosts(lab)
    from deploy.engine import connect  # noqa: PLC0415
    from deploy.hosts.containers import ContainerHosts  # noqa: PLC0415

    return ContainerHosts(lab, connect())


# Bringing up and taking down


@app.command()
def up(
    *,
    name: Name = "lab",
    masters: Annotated[int | None, typer.Option(help="How many masters, 1 to 7 (3); fixed for the lab's life.")] = None,
    nodes: Annotated[int | None, typer.Option(help="How many nodes, up to 200 (2); a lab can get more later.")] = None,
    engine: Annotated[Literal["native", "raftos"] | None, typer.Option(help="Engine of the store (native).")] = None,
    api_port: Annotated[
        str, typer.Option(metavar="[ADDRESS:]PORT", help="Publish the API on this machine too; 127.0.0.1 by default.")
    ] = "",
    store_endpoints: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", help="Use this etcd cluster instead of the lab's own store.")
    ] = "",
    store_ca: Annotated[str, typer.Option(help="CA file of that cluster (with --store-cert and --store-key).")] = "",
    store_cert: Annotated[str, typer.Option(help="Client certificate for it.")] = "",
    store_key: Annotated[str, typer.Option(help="Key of that certificate.")] = "",
    from_snapshot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Begin a new lab with this backup (or bare snapshot).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave a failed lab as it is, to look into it.")] = False,
    renew: Annotated[bool, typer.Option("--renew", help="Replace hosts made from older code; data stays.")] = False,
    wait: Annotated[bool, typer.Option(help="Return only when all nodes are Ready.")] = True,
    yes: Yes = False,
) -> None:
    """Bring a lab up, or finish or repair one: masters, nodes and an entry host as containers."""
    from deploy.choices import Choices, parse_endpoints, parse_publish, parse_store_tls  # noqa: PLC0415
    from deploy.engine import ask_on_terminal  # noqa: PLC0415
    from deploy.steps.bring_up import bring_up  # noqa: PLC0415

    choices = Choices(
        name=check_name(name),
        masters=masters,
        nodes=nodes,
        engine=engine,
        api_publish=parse_publish(api_port),
        store_endpoints=parse_endpoints(store_endpoints),
        store_tls=parse_store_tls(store_ca, store_cert, store_key),
        from_snapshot=from_snapshot,
    )
    lab = bring_up(choices, ask=ask_on_terminal(yes=yes), keep=keep, wait=wait, renew=renew)
    suffix = "" if name == "lab" else f" --name {name}"
    console.print(
        f"\nLab '{name}' is up. Its API: {lab.api_url}\n\n"
        f'  eval "$(./trireme env{suffix})"   (kubectl and etcdctl use this lab from then on)\n'
        f"  kubectl get nodes\n"
        f"  ./trireme status{suffix}\n"
        f"  ./trireme kill master1{suffix}   (and watch: kubectl goes on working)\n"
        f"  ./trireme down{suffix}   (leaves nothing)",
        markup=False,
        soft_wrap=True,
    )


@app.command()
def down(*, name: Name = "lab") -> None:
    """Take a lab down: no container, network, volume or file of it is left (host images stay: see clean)."""
    from deploy.engine import connect  # noqa: PLC0415
    from deploy.steps.take_down import remove_lab  # noqa: PLC0415

    lab = state.find(check_name(name))
    if lab is not None and lab.driver == "vagrant":
        from deploy.hosts.vagrant import VagrantHosts  # noqa: PLC0415

        VagrantHosts(lab).destroy()
        state.forget(name)
    elif not remove_lab(connect(), name):
        state.load(name)  # says that there is none, and which there are
    console.print(f"Lab '{name}' is gone.")


@app.command()
def clean() -> None:
    """Remove what labs share: host images and caches. Labs that are up go on running."""
    from deploy import image  # noqa: PLC0415
    from deploy.engine import connect  # noqa: PLC0415

    image.remove_outdated(connect(), keep=set())
    shutil.rmtree(state.home() / "cache", ignore_errors=True)
    console.print("Host images that no lab uses, and caches, are gone.")


@app.command("list")
def list_labs(*, output: Output = "text") -> None:
    """List the labs on this machine, those included of which only containers are left."""
    from deploy.steps.survey import survey  # noqa: PLC0415

    rows = survey()
    if output == "json":
        _print_json(rows)
        return
    for row in rows:
        console.print(
            f"{row['name']:<16} {row['masters']} masters, {row['nodes']} nodes   {row['state']}", markup=False
        )
    if not rows:
        console.print("There is no lab. Bring one up with: trireme up")


@app.command()
def start(hosts: AnyHosts = None, *, name: Name = "lab", yes: Yes = False) -> None:
    """Start stopped or killed hosts, or without names the whole lab (after a reboot, too)."""
    from deploy import engine  # noqa: PLC0415

    lab = state.load(name)
    chosen = pick_hosts(lab, hosts or []) or lab.hosts
    if lab.driver == "containers":
        engine.ensure(engine.ask_on_terminal(yes=yes), lambda note: errors.print(note, markup=False))
    _on_hosts(lab, chosen, "started", lambda driver, host: driver.start(host))


@app.command()
def stop(hosts: AnyHosts = None, *, name: Name = "lab") -> None:
    """Stop hosts in order, or without names the whole lab; all data stays."""
    lab = state.load(name)
    chosen = pick_hosts(lab, hosts or []) or lab.hosts
    _on_hosts(lab, chosen, "stopped", lambda driver, host: driver.stop(host))


# Faults


@app.command()
def kill(
    hosts: Hosts,
    *,
    name: Name = "lab",
    program: Annotated[str, typer.Option(help="Kill only this program of the host; it is started again.")] = "",
) -> None:
    """Kill hosts as a power cut would (SIGKILL of every process)."""
    lab = state.load(name)
    chosen = pick_hosts(lab, hosts)
    if program:
        from deploy.programs import check_program, kill_program  # noqa: PLC0415

        for host in chosen:
            check_program(lab, host, program)
        return _on_hosts(lab, chosen, f"killed {program}", lambda driver, host: kill_program(driver, host, program))
    return _on_hosts(lab, chosen, "killed", lambda driver, host: driver.kill(host))


@app.command()
def pause(hosts: Hosts, *, name: Name = "lab") -> None:
    """Freeze hosts: their connections stay open, but nothing answers."""
    lab = state.load(name)
    _on_hosts(lab, pick_hosts(lab, hosts), "paused", lambda driver, host: driver.pause(host))


@app.command()
def resume(hosts: Hosts, *, name: Name = "lab") -> None:
    """Let paused hosts go on."""
    lab = state.load(name)
    _on_hosts(lab, pick_hosts(lab, hosts), "resumed", lambda driver, host: driver.resume(host))


@app.command()
def partition(
    groups: Annotated[list[str], typer.Argument(metavar="'A | B,C'", autocompletion=_host_names)],
    *,
    name: Name = "lab",
) -> None:
    """Cut groups of hosts from each other: trireme partition 'master1 | master2,master3'.

    Hosts in no group keep all their connections; the word [b]rest[/] stands for them; a single group is cut off from
    everybody else. A new partition replaces the former one.
    """
    from deploy import faults  # noqa: PLC0415

    lab = state.load(name)
    sides = faults.parse_partition(lab, groups)
    faults.apply_partition(lab, driver_of(lab), sides)
    text = " | ".join(",".join(host.name for host in lab.hosts if host.name in side) for side in sides)
    console.print(f"cut: {text}", markup=False)


@app.command()
def heal(*, name: Name = "lab") -> None:
    """Undo every partition."""
    from deploy import faults  # noqa: PLC0415

    lab = state.load(name)
    faults.heal(lab, driver_of(lab))
    console.print("healed")


# Looking


@app.command()
def status(*, name: Name = "lab", output: Output = "text") -> None:
    """Show masters with their Raft facts, nodes, and the lab's health in words."""
    from deploy import report_status  # noqa: PLC0415

    lab = state.load(name)
    report = report_status.gather(lab, driver_of(lab))
    if output == "json":
        return _print_json(report)
    return report_status.show(report, console)


@app.command()
def kubeconfig(*, name: Name = "lab") -> None:
    """Print the path of the lab's kubeconfig."""
    state.load(name)
    sys.stdout.write(f"{state.kubeconfig(name)}\n")


@app.command()
def env(*, name: Name = "lab", output: Output = "text") -> None:
    """Print what makes kubectl and etcdctl use the lab: eval "$(./trireme env)"."""
    from deploy.configs import render_environment  # noqa: PLC0415

    lab = state.load(name)
    ca, cert, key = state.admin_files(name)
    values = render_environment(lab, kubeconfig=state.kubeconfig(name), ca=ca, cert=cert, key=key)
    if output == "json":
        _print_json(values)
        return
    for variable, value in values.items():
        sys.stdout.write(f"export {variable}={shlex.quote(value)}\n")


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def ssh(
    host: OneHost,
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND", help="Without: a shell.")] = None,
    *,
    name: Name = "lab",
) -> None:
    """Run a command on a host, or a shell; its exit status is passed on."""
    # What follows the host is the command's own, but --name right behind the host can only be meant for us.
    if command and len(command) > 1 and command[0] == "--name":
        name, command = command[1], command[2:]
    lab = state.load(name)
    found = lab.host(host)
    driver = driver_of(lab)
    _check_running(driver, found)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    # One word with blanks is a shell line, as with ssh itself.
    argv = ["bash", "-c", command[0]] if command and len(command) == 1 and " " in command[0] else command
    _become(driver.terminal_argv(found, argv or ["bash"], tty=tty, stdin=True))


@app.command()
def logs(
    host: OneHost,
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="Without: all programs of the host.")] = "",
    *,
    name: Name = "lab",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 0: all.")] = 200,
) -> None:
    """Show what the programs of a host logged."""
    from deploy.programs import log_argv  # noqa: PLC0415

    lab = state.load(name)
    found = lab.host(host)
    argv = log_argv(lab, found, program, follow=follow, lines=lines)
    driver = driver_of(lab)
    _check_running(driver, found)
    _become(driver.terminal_argv(found, argv, tty=False, stdin=False))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["-h"]}
)
def store(
    arguments: Annotated[list[str], typer.Argument(metavar="COMMAND", help="--help lists them.")],
    *,
    name: Name = "lab",
    on: Annotated[str, typer.Option(metavar="HOST", help="Run on this host; for check and dump.")] = "",
) -> None:
    """Look into the lab's store: members, status, snapshot save|status|restore, check, dump, raft (draws how it works).

    These options come before COMMAND; trireme store COMMAND --help lists those of COMMAND.
    """
    from deploy.store import TOOL, environment, on_host  # noqa: PLC0415

    if on:
        lab = state.load(name)
        driver = driver_of(lab)
        _check_running(driver, lab.host(on))
        tty = sys.stdin.isatty() and sys.stdout.isatty()
        _become(driver.terminal_argv(lab.host(on), on_host(arguments), tty=tty, stdin=False))
    os.environ.update(environment(name, arguments))
    _become([sys.executable, *TOOL, *arguments])


backup = typer.Typer(help="Save a lab's state, and see what its masters saved on schedule.", no_args_is_help=True)
app.add_typer(backup, name="backup")
Target = Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Without: a name with the time, here.")]


@backup.command("now")
def backup_now(*, name: Name = "lab", to: Target = None) -> None:
    """Save the store's state of now and the lab's keys into one file, for: trireme up --from-snapshot FILE."""
    from deploy import backups  # noqa: PLC0415

    _say_kept(backups.make(state.load(name), to))


@backup.command("list")
def backup_list(*, name: Name = "lab", output: Output = "text") -> None:
    """List the backups that the masters made on schedule, newest first."""
    from deploy import backups  # noqa: PLC0415

    lab = state.load(name)
    found = backups.listed(lab, driver_of(lab))
    if output == "json":
        return _print_json(found)
    for kept in found:
        console.print(f"{kept.name}   {kept.size_bytes / 1e6:8.1f} MB   {kept.host}", markup=False)
    if not found:
        console.print("No master has made one yet. Save the state of now with: trireme backup now", markup=False)
    return None


@backup.command("fetch")
def backup_fetch(
    backup_name: Annotated[str, typer.Argument(metavar="BACKUP", help="As listed; without: the newest.")] = "",
    *,
    name: Name = "lab",
    to: Target = None,
) -> None:
    """Bring a backup from the masters here, with the lab's keys, for: trireme up --from-snapshot FILE."""
    from deploy import backups  # noqa: PLC0415

    lab = state.load(name)
    _say_kept(backups.fetch(lab, driver_of(lab), backup_name, to))


def _say_kept(path: Path) -> None:
    console.print(f"{path}\nIt holds the lab's keys: keep it as safe as the lab.", markup=False, soft_wrap=True)


@app.command()
def load(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE")],
    *,
    name: Name = "lab",
) -> None:
    """Put images of this machine's Docker engine on every running node."""
    from deploy.engine import connect  # noqa: PLC0415
    from deploy.programs import load_images  # noqa: PLC0415

    lab = state.load(name)
    for host in load_images(connect(), lab, driver_of(lab), images):
        console.print(f"{host.name}: loaded {', '.join(images)}", markup=False)


@app.command("test", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def run_tests(
    ctx: typer.Context,
    *,
    yes: Yes = False,
    quick: Annotated[bool, typer.Option("--quick", help="Without Docker and end-to-end tests.")] = False,
) -> None:
    """Install what the tests need and run every check; further arguments go to pytest, which then runs alone."""
    from deploy.checks import run_checks  # noqa: PLC0415
    from deploy.engine import ask_on_terminal  # noqa: PLC0415

    ask = ask_on_terminal(yes=yes)
    if not run_checks(ask=ask, quick=quick, pytest_arguments=ctx.args, console=console):
        raise typer.Exit(1)


@app.command(hidden=True)
def pki(
    *,
    name: Name = "vagrant",
    masters: int = 3,
    nodes: int = 2,
    subnet: str = "192.168.56.0/24",
    engine: Literal["native", "raftos"] = "native",
    folder: str = "",
) -> None:
    """Write the keys and configuration of a lab on VMs; the Vagrantfile calls this before it makes them."""
    from deploy.hosts.vagrant import prepare  # noqa: PLC0415

    check_size(masters=masters, nodes=nodes)
    lab = prepare(check_name(name), masters=masters, nodes=nodes, subnet=subnet, engine=engine, folder=Path(folder))
    sys.stdout.write(f"{state.lab_folder(lab.name)}\n")


def _on_hosts(lab: Lab, hosts: Sequence[Host], done: str, action: Callable[["HostDriver", Host], None]) -> None:
    """Do ``action`` to all of ``hosts`` at once and say so; the first failure is raised when all have ended."""
    from deploy.parallel import each  # noqa: PLC0415

    driver = driver_of(lab)

    def act(host: Host) -> None:
        action(driver, host)
        console.print(f"{host.name}: {done}", markup=False)

    each(hosts, act)


def _check_running(driver: "HostDriver", host: Host) -> None:
    found = driver.states()[host.name]
    if found != "running":
        hint = f"trireme resume {host.name}" if found == "paused" else f"trireme start {host.name}"
        raise DeployError(f"{host.name} is {found}", hint=hint)


def _become(argv: Sequence[str]) -> None:
    """Replace this process, so that signals, terminal and exit status are the command's own."""
    sys.stdout.flush()
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - no shell is what we want
    except FileNotFoundError as exc:
        raise DeployError(f"{argv[0]} is not installed on this machine") from exc


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def main() -> None:
    """Run the command line; every error that we know of is printed without a traceback."""
    if find_spec("deploy.experiments") is not None and find_spec("deploy.experiments.cli") is not None:
        from deploy.experiments import cli as experiments  # noqa: PLC0415

        app.add_typer(experiments.app, name="experiment")
    # Whoever ends us politely gets the same cleaning up as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name="trireme")
    except DeployError as exc:
        errors.print(f"[red]trireme:[/] {escape(str(exc))}")
        if exc.hint:
            errors.print(f"  {escape(exc.hint)}")
        sys.exit(exc.exit_status)
    except KeyboardInterrupt:
        errors.print("trireme: interrupted")
        sys.exit(130)
