# ruff: noqa: INP001 - a script of the provisioning, not a module of the package
"""Write the lab's own small image, ``trireme/tools:1``, as a tar that ``docker load`` reads.

It is what pod sandboxes run and what the examples serve: one static busybox under all its names, plus three
scripts. Made by hand rather than by an engine, because masters and VMs being provisioned have none; the same
input gives the same bytes.

Run: ``python tools_image.py BUSYBOX OUTPUT``
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

NAME = "trireme/tools:1"
CREATED = "1970-01-01T00:00:00Z"

# Process 1 of a container gets only the signals that it asked for: without a trap, stopping takes all of the grace
# period.
# The sandbox's process: sleeps until told to stop.
PAUSE = """#!/bin/sh
trap 'kill $!; exit 0' TERM INT
while :; do sleep 2147483647 & wait $!; done
"""

# One page that names the pod that answered. busybox httpd asks the CGI script for every folder without an index.
WEB = """#!/bin/sh
port=8080
[ "$1" = --port ] && port=$2
trap 'kill $!; exit 0' TERM INT
httpd -f -p "$port" -h /www & wait $!
"""
PAGE = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' "$(hostname)"
"""

FILES = {
    "bin/pause": (PAUSE, 0o755),
    "bin/web": (WEB, 0o755),
    "www/cgi-bin/index.cgi": (PAGE, 0o755),
    "www/healthz": ("ok\n", 0o644),
    "etc/passwd": ("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644),
    "etc/group": ("root:x:0:\nnogroup:x:65534:\n", 0o644),
}
FOLDERS = {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "var": 0o755, "www": 0o755, "www/cgi-bin": 0o755}


def main(busybox: Path, output: Path) -> None:
    """Write ``output``; every applet that this busybox was built with gets its name."""
    applets = subprocess.run([str(busybox), "--list"], check=True, capture_output=True, text=True).stdout.split()
    layer = render_layer(busybox.read_bytes(), applets)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "created": CREATED,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": CREATED, "created_by": "trireme tools_image.py"}],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [NAME], "Layers": [f"{digest}/layer.tar"]}]).encode()
    contents = {config_name: config, f"{digest}/layer.tar": layer, "manifest.json": manifest}
    with tarfile.open(output, "w") as archive:
        for name, data in contents.items():
            _add(archive, name, data, 0o644)


def render_layer(busybox: bytes, applets: list[str]) -> bytes:
    """Return the image's one layer: folders, busybox, a link for each applet, our scripts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, mode in FOLDERS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            layer.addfile(entry)
        _add(layer, "bin/busybox", busybox, 0o755)
        for applet in sorted(set(applets) - {"busybox"}):
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
        for name, (text, mode) in FILES.items():
            _add(layer, name, text.encode(), mode)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _architecture() -> str:
    machine = subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True).stdout.strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
