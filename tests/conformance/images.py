"""The images of the suite's pods, made from the suite's own sources on Debian.

The names are those that the suite asks for: ``E2eRegistry/`` and the like stand for what its source says. What Debian
brings in another make (nginx and Apache for their Alpine images) serves the same page.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import docker

from deploy.image import DEBIAN
from tests.conformance.suite import Suite

AGNHOST = "PromoterE2eRegistry/agnhost:2.21"
_INSTALL = "RUN apt-get update && apt-get install -y --no-install-recommends {} && rm -rf /var/lib/apt/lists/*\n"


class Recipe(NamedTuple):
    """One image: its names, its Dockerfile and what the suite's source tree gives to it."""

    names: tuple[str, ...]
    dockerfile: str
    files: tuple[str, ...] = ()
    program: str = ""  # a Go package of the tree, built without C libraries


def _debian(*packages: str, stage: str = "") -> str:
    return f"FROM {DEBIAN}{f' AS {stage}' if stage else ''}\n" + _INSTALL.format(" ".join(packages))


RECIPES: Sequence[Recipe] = (
    Recipe(
        (AGNHOST, "E2eRegistry/jessie-dnsutils:1.0"),
        _debian("dnsutils", "curl", "netcat-openbsd", "iproute2", "iperf", "bash", "iputils-ping")
        + "EXPOSE 80 8080 8081 9376\nRUN mkdir /uploads\nADD localhost.crt localhost.key agnhost /\n"
        'RUN ln -s agnhost agnhost-2\nENTRYPOINT ["/agnhost"]\nCMD ["pause"]\n',
        files=("test/images/agnhost/porter/localhost.crt", "test/images/agnhost/porter/localhost.key"),
        program="./test/images/agnhost",
    ),
    Recipe(("GcRegistry/pause:3.2",), f'FROM {AGNHOST}\nENTRYPOINT ["/agnhost", "pause"]\nCMD []\n'),
    Recipe(
        ("busybox:1.29",),
        _debian("busybox-static", stage="debian") + "FROM scratch\nCOPY --from=debian /bin/busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "mkdir", "-p", "/usr/bin", "/usr/sbin", "/sbin", "/tmp", "/etc", "/root", "/home"]\n'
        'RUN ["/bin/busybox", "--install", "-s"]\n'
        r"RUN printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' > /etc/passwd"
        r" && printf 'root:x:0:\nnogroup:x:65534:\n' > /etc/group && chmod 1777 /tmp"
        '\nCMD ["sh"]\n',
    ),
    Recipe(("E2eRegistry/nonroot:1.0",), "FROM busybox:1.29\nUSER 1234\n"),
    Recipe(
        ("E2eRegistry/nonewprivs:1.0",),
        'FROM busybox:1.29\nCOPY nonewprivs /usr/local/bin/nnp\nRUN chmod +s /usr/local/bin/nnp\nCMD ["nnp"]\n',
        program="./test/images/nonewprivs",
    ),
    *(
        Recipe(
            (f"E2eRegistry/{name}:1.0",),
            f'FROM {AGNHOST}\nCOPY {name}.jpg data.json /\nCMD ["test-webserver"]\n',
            files=(f"test/images/{name}/html/{name}.jpg", f"test/images/{name}/html/data.json"),
        )
        for name in ("nautilus", "kitten")
    ),
    Recipe(
        ("httpd:2.4.38-alpine", "httpd:2.4.39-alpine"),
        _debian("apache2") + "RUN echo 'ServerName localhost' >> /etc/apache2/apache2.conf"
        " && echo '<html><body><h1>It works!</h1></body></html>' > /var/www/html/index.html\n"
        'EXPOSE 80\nCMD ["apache2ctl", "-D", "FOREGROUND"]\n',
    ),
    Recipe(
        ("nginx:1.14-alpine", "nginx:1.15-alpine"),
        _debian("nginx-light") + 'EXPOSE 80\nCMD ["nginx", "-g", "daemon off;"]\n',
    ),
)


def names(suite: Suite) -> list[str]:
    """Return the names of all images, as the suite asks for them."""
    return [name for recipe in resolved(suite) for name in recipe.names]


def resolved(suite: Suite) -> list[Recipe]:
    """Return the recipes with the suite's own names of registries."""
    source = (suite.tree / "test" / "utils" / "image" / "manifest.go").read_text()
    registries = dict(re.findall(r'^\t\t(\w+Registry):\s+"([^"]+)"', source, re.MULTILINE))

    def named(text: str) -> str:
        return re.sub(r"\b(\w+Registry)/", lambda found: f"{registries[found[1]]}/", text)

    return [
        recipe._replace(names=tuple(map(named, recipe.names)), dockerfile=named(recipe.dockerfile))
        for recipe in RECIPES
    ]


def build(suite: Suite, client: docker.DockerClient) -> None:
    """Build every image that the engine has not; the base image must be there (``./trireme up`` brings it)."""
    there = {tag for image in client.images.list() for tag in image.tags}
    for recipe in resolved(suite):
        if not there.issuperset(recipe.names):
            _build(recipe, suite, client)


def _build(recipe: Recipe, suite: Suite, client: docker.DockerClient) -> None:
    folder = suite.folder / "images" / recipe.names[0].rpartition("/")[2].partition(":")[0]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(recipe.dockerfile)
    for each in recipe.files:
        shutil.copy(suite.tree / each, folder)
    if recipe.program:
        suite.go("build", "-o", str(folder / Path(recipe.program).name), recipe.program, static=True)
    image, _ = client.images.build(path=str(folder), tag=recipe.names[0], rm=True)
    for name in recipe.names[1:]:
        image.tag(name)
