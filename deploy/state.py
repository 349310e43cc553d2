"""What this machine remembers of its labs: ``${TRIREME_HOME:-~/.trireme}``.

labs/NAME/lab.json        the lab (``lab.Lab``)
labs/NAME/pki/            certificate authority and the administrator's files; private keys 0600
labs/NAME/hosts/HOST/     what the host sees as /etc/trireme
labs/NAME/kubeconfig
cache/                    wheels and facts about this machine's engine; may be deleted at any time
logs/                     of ``up`` and of an engine that we started; kept after ``down``
"""

import os
import shutil
from pathlib import Path

import msgspec

from deploy.errors import DeployError, UsageError
from deploy.lab import Lab


def home() -> Path:
    """Return the folder of all that we keep."""
    return Path(os.environ.get("TRIREME_HOME") or Path.home() / ".trireme")


def lab_folder(name: str) -> Path:
    """Return the folder of the lab called ``name``, which may not exist."""
    return home() / "labs" / name


def host_folder(lab: str, host: str) -> Path:
    """Return the folder that the host sees as /etc/trireme."""
    return lab_folder(lab) / "hosts" / host


def kubeconfig(name: str) -> Path:
    """Return where the lab's kubeconfig is written."""
    return lab_folder(name) / "kubeconfig"


def admin_files(name: str) -> tuple[Path, Path, Path]:
    """Return the administrator's certificate authority, certificate and key."""
    pki = lab_folder(name) / "pki"
    return pki / "ca.crt", pki / "admin.crt", pki / "admin.key"


def log_file(what: str) -> Path:
    """Return the log called ``what``; its folder exists."""
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{what}.log"


def names() -> list[str]:
    """Return the names of all labs known here."""
    return sorted(path.parent.name for path in (home() / "labs").glob("*/lab.json"))


def find(name: str) -> Lab | None:
    """Return the lab called ``name`` if there is one."""
    path = lab_folder(name) / "lab.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Lab)
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise DeployError(f"{path} may not be read by this user", hint="run trireme as the user who made it") from exc
    except msgspec.MsgspecError as exc:
        hint = f"remove what is left of the lab with: trireme down --name {name}"
        raise DeployError(f"{path} is damaged: {exc}", hint=hint) from exc


def load(name: str) -> Lab:
    """Return the lab called ``name``; raises UsageError that says which there are."""
    lab = find(name)
    if lab is None:
        others = ", ".join(names())
        suffix = "" if name == "lab" else f" --name {name}"
        hint = f"bring it up with: trireme up{suffix}" + (f"; labs here: {others}" if others else "")
        raise UsageError(f"there is no lab called '{name}'", hint=hint)
    return lab


def save(lab: Lab) -> None:
    """Write ``lab`` so that a crash leaves the old file or the new one."""
    path = lab_folder(lab.name) / "lab.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    write(path, msgspec.json.format(msgspec.json.encode(lab)))


def write(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Replace ``path`` atomically and return whether its contents changed."""
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=mode)
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.rename(path)
    return True


def forget(name: str) -> None:
    """Remove all that is kept of the lab called ``name``."""
    shutil.rmtree(lab_folder(name), ignore_errors=True)
