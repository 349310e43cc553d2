"""The host image: what every container host runs.

Two images, each tagged by a hash of all it is made from, so that a present tag is a current one:
``trireme/host-base`` (Debian packages, virtual environment) changes with the pinned dependencies, ``trireme/host``
(our code on top) with the source and builds in seconds. Wheels are fetched by this machine's own pip, with whatever
index, proxy and certificates it is configured for; nothing of that enters the image.
"""

import hashlib
import io
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from deploy import engine, shell
from deploy.errors import CommandFailed, DeployError
from deploy.state import home, log_file

ROOT = Path(__file__).resolve().parent.parent
PROVISION = ROOT / "deploy" / "provision"
PACKAGES = ("api", "client", "fastgrpc", "fasthttp", "raft_store", "master", "node_agent", "trireme_pb")

DEBIAN = "debian:bookworm-slim"
DEBIAN_PYTHON = "3.11"
DEBIAN_GLIBC = 36  # the newest manylinux_2_x that its libc satisfies
HOST = "trireme/host"
BASE = "trireme/host-base"
# The part of provision/ that the base is made from.
NO_DEPS = "requirements-no-deps.txt"
BASE_SCRIPTS = ("base.sh", "lib.sh", "Dockerfile.base", NO_DEPS)
MINIMUM_FREE_BYTES = 3 << 30

Note = Callable[[str], None]
Files = Mapping[str, bytes]  # path in the build context -> contents


def ensure(client: docker.DockerClient, ask: engine.Ask, note: Note) -> str:
    """Return the tag of the host image for the present source, building what is missing.

    ask: whether a missing Debian package that the build needs may be installed on this machine.
    """
    code = dict(code_files())
    base_tag = f"{BASE}:{_digest(base_files())}"
    tag = f"{HOST}:{_digest(code | {'BASE': base_tag.encode()})}"
    if _present(client, tag):
        return tag
    if not _present(client, base_tag):
        check_space(client)
        _ensure_debian(client, ask, note)
        note("fetching Python packages")
        wheels = {f"wheels/{path.name}": path.read_bytes() for path in fetch_wheels()}
        note("installing Debian and Python packages (a minute or two, once)")
        _build(client, base_files() | wheels, dockerfile="provision/Dockerfile.base", tag=base_tag)
    note("installing Trireme's own code")
    _build(client, code, dockerfile="provision/Dockerfile", tag=tag, arguments={"BASE": base_tag})
    remove_outdated(client, keep={tag, base_tag})
    return tag


def remove_outdated(client: docker.DockerClient, *, keep: set[str]) -> None:
    """Remove host images of older source that no container uses."""
    for image in [*client.images.list(HOST), *client.images.list(BASE)]:
        for tag in set(image.tags) - keep:
            try:
                client.images.remove(tag)
            except APIError:
                continue  # a lab still runs on it
    # The stages that the base was built in: the wheels, above all.
    client.images.prune(filters={"dangling": True, "label": "trireme.image"})


def check_space(client: docker.DockerClient) -> None:
    """Raise DeployError unless the engine's disk has room for the image and a lab."""
    root = Path(client.info()["DockerRootDir"])
    if not root.is_dir():
        return  # a remote engine: it will say so itself
    free = shutil.disk_usage(root).free
    if free < MINIMUM_FREE_BYTES:
        raise DeployError(
            f"{root} has {free >> 20} MiB free; the host image and a lab need {MINIMUM_FREE_BYTES >> 20} MiB",
            hint="free some space, for example with: docker image prune",
        )


def requirements() -> str:
    """Return the pinned dependencies of what a host runs, either store engine included, as pip reads them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return "".join(f"{line}\n" for line in (*project["dependencies"], *project["optional-dependencies"]["raftos"]))


def fetch_wheels() -> list[Path]:
    """Return every wheel that a host needs, fetched once into the cache: for Debian's Python, whatever runs here."""
    wanted = requirements() + (PROVISION / NO_DEPS).read_text()
    folder = home() / "cache" / f"wheels-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=folder.parent) as fresh:
            _fetch_wheels(Path(fresh) / "wheels")
            (Path(fresh) / "wheels").rename(folder)
    return sorted(folder.glob("*.whl"))


def _fetch_wheels(folder: Path) -> None:
    folder.mkdir()
    listed = folder / "requirements.txt"
    listed.write_text(requirements())
    machine = platform.machine()
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(5, DEBIAN_GLIBC + 1)]
    platforms += [f"--platform=manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
    target = ["--python-version", DEBIAN_PYTHON, "--implementation=cp", "--only-binary=:all:", *platforms]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    log = log_file("image")
    shell.run([*pip, "download", "-q", "-d", str(folder), "-r", str(listed), *target], log=log, timeout_s=1800)
    bare = ["-r", str(PROVISION / NO_DEPS)]
    shell.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), *bare], log=log, timeout_s=600)


def base_files() -> dict[str, bytes]:
    """Return what the base image is made from, wheels apart: path in the build context -> contents."""
    files = {f"provision/{name}": (PROVISION / name).read_bytes() for name in BASE_SCRIPTS}
    return files | {"provision/requirements.txt": requirements().encode()}


def code_files() -> Iterator[tuple[str, bytes]]:
    """Give all provisioning scripts and our packages: path in the build context, contents."""
    for path in sorted(PROVISION.iterdir()):
        if path.is_file():
            yield f"provision/{path.name}", path.read_bytes()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".pyi", ".new"):
                yield f"src/{path.relative_to(ROOT)}", path.read_bytes()


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def _present(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _ensure_debian(client: docker.DockerClient, ask: engine.Ask, note: Note) -> None:
    """Have Debian's image: present, pulled, or made from the distribution's own archive."""
    if _present(client, DEBIAN):
        return
    note(f"pulling {DEBIAN}")
    try:
        client.images.pull(DEBIAN)
    except DockerException:
        _ensure_debootstrap(ask, note)
        note(f"no registry answers: making {DEBIAN} with debootstrap")
        _bootstrap_debian(client)


def _ensure_debootstrap(ask: engine.Ask, note: Note) -> None:
    if shutil.which("debootstrap") is not None:
        return
    question = f"No registry answers. Shall I install debootstrap and make {DEBIAN} here?"
    if os.geteuid() != 0 or shutil.which("apt-get") is None or not ask(question):
        raise DeployError(
            f"{DEBIAN} can neither be pulled nor made here: debootstrap is not installed",
            hint="apt-get install debootstrap, or repeat with --yes as root, or load the image: docker load -i FILE",
        )
    note("installing debootstrap from the distribution")
    engine.install_packages(["debootstrap"])


def _bootstrap_debian(client: docker.DockerClient) -> None:
    with tempfile.TemporaryDirectory(prefix="trireme-", dir=home()) as folder:
        tree = Path(folder) / "tree"
        shell.run(["debootstrap", "--variant=minbase", "bookworm", str(tree)], log=log_file("image"), timeout_s=1800)
        archive = Path(folder) / "tree.tar"
        # Packages as downloaded are of no use in an image.
        shell.run(["tar", "-C", str(tree), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(archive), "."])
        repository, tag = DEBIAN.split(":")
        with archive.open("rb") as data:
            client.api.import_image_from_data(data, repository=repository, tag=tag)


def _build(
    client: docker.DockerClient,
    context: Files,
    *,
    dockerfile: str,
    tag: str,
    arguments: Mapping[str, str] | None = None,
) -> None:
    """Build ``tag`` from files in memory; the whole output goes to the log."""
    log = log_file("image")
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, data in context.items():
                entry = tarfile.TarInfo(name)
                # One fixed time: layers are found again in the engine's cache by their contents alone.
                entry.size, entry.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
                archive.addfile(entry, io.BytesIO(data))
        file.seek(0)
        try:
            _, output = client.images.build(
                fileobj=file,
                custom_context=True,
                dockerfile=dockerfile,
                tag=tag,
                buildargs=dict(arguments or {}),
                rm=True,
                forcerm=True,
            )
            lines = [str(chunk.get("stream", "")) for chunk in output if isinstance(chunk, dict)]
            failure = None
        except BuildError as exc:
            lines = [str(chunk.get("stream") or chunk.get("error") or "") for chunk in exc.build_log]
            failure = exc
    with log.open("a") as text:
        text.write(f"# building {tag}\n{''.join(lines)}\n")
    if failure is not None:
        command = ["docker", "build", "-f", dockerfile, "-t", tag]
        hint = f"the whole output is in {log}"
        raise CommandFailed(command, 1, "".join(lines), hint=hint) from failure
