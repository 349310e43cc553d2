"""Kubernetes' own end-to-end suite, built from Debian's source package into our cache.

Debian's ``kubernetes`` is 1.20: it is the newest suite that can be built from packages alone, and the oldest that our
users' clients come from. What it tests has hardly changed since; where it has, ``known.toml`` says so. One line is
changed (``_OUTDATED``): before each test the suite waits for what no release after 1.23 does.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from deploy import shell
from deploy.state import home

SOURCE_PACKAGE = "kubernetes"
GO = Path("/usr/lib/go-1.19/bin")  # Debian's golang-1.19-go: newer ones refuse what this source vendors
_BUILD_S = 3600
# (file, text, text instead): whether a service account has a Secret with a token. Now it is enough that it is there.
_OUTDATED = ("test/e2e/framework/util.go", "return len(t.Secrets) > 0, nil", "return t != nil, nil")
_IGNORED = ("-ignore", ".jpg", "-ignore", ".png", "-ignore", ".md", "-ignore", r"BUILD(\.bazel)?")
_TEST_DATA = (
    "test/conformance/testdata/...",
    "test/e2e/testing-manifests/...",
    "test/e2e_node/testing-manifests/...",
    "test/images/...",
    "test/fixtures/...",
)


class Suite:
    """The suite's source tree and what is built of it."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home() / "cache" / "conformance"
        self.tree = self.folder / "go" / "src" / "k8s.io" / "kubernetes"  # where GOPATH wants it
        self.program = self.folder / "e2e.test"

    def build(self) -> None:
        """Build the suite unless it is there: minutes of two cores, and Debian's packages over the network."""
        if self.program.exists():
            return
        if not GO.is_dir():
            raise SystemExit("the suite needs Debian's Go 1.19: apt-get install golang-1.19-go")
        if not self.tree.is_dir():
            self._unpack()
        self._modernize()
        self._generate()
        # Vetting would take as long as the build, of code that is not ours.
        self.go("test", "-c", "-vet=off", "-o", f"{self.program}.new", "./test/e2e")
        Path(f"{self.program}.new").rename(self.program)

    def go(self, *words: str, static: bool = False) -> None:
        """Run the Go tool in the tree; raises CommandFailed."""
        shell.run(["go", *words], cwd=self.tree, env=self._environment(static=static), timeout_s=_BUILD_S)

    def _environment(self, *, static: bool = False) -> Mapping[str, str]:
        go_path = self.folder / "go"
        search = f"{GO}:{go_path / 'bin'}:{os.environ['PATH']}"
        facts = {"PATH": search, "GOPATH": str(go_path), "GO111MODULE": "off", "HOME": str(self.folder)}
        return facts | ({"CGO_ENABLED": "0"} if static else {})

    def _unpack(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        sources = self.folder / "sources"
        (sources / "lists" / "partial").mkdir(parents=True)
        (sources / "source.list").write_text(_source_lines())
        apt = [
            "-o", f"Dir::Etc::SourceList={sources / 'source.list'}", "-o", "Dir::Etc::SourceParts=/dev/null",
            "-o", f"Dir::State::Lists={sources / 'lists'}", "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip
        shell.run(["apt-get", *apt, "update"])
        shell.run(["apt-get", *apt, "source", "--download-only", SOURCE_PACKAGE], cwd=sources)
        archive = next(sources.glob("*.orig.tar.*"))
        self.tree.mkdir(parents=True)
        shell.run(["tar", "-xf", str(archive), "--strip-components=1", "-C", str(self.tree)])

    def _modernize(self) -> None:
        name, text, instead = _OUTDATED
        source = (self.tree / name).read_text()
        if text not in source and instead not in source:
            raise SystemExit(f"{name} is not the one that is known: it does not say {text!r}")
        (self.tree / name).write_text(source.replace(text, instead))

    def _generate(self) -> None:
        """Make the two files that the source package leaves to its build."""
        tool = self.folder / "go" / "bin" / "go-bindata"
        self.go("build", "-o", str(tool), "./vendor/github.com/go-bindata/go-bindata/go-bindata")
        suite = ["-o", "test/e2e/generated/bindata.go", "-pkg", "generated", *_IGNORED, *_TEST_DATA]
        shell.run([str(tool), "-nometadata", *suite], cwd=self.tree)
        words = ["-o", "staging/src/k8s.io/kubectl/pkg/generated/bindata.go", "-pkg", "generated", *_IGNORED]
        shell.run([str(tool), "-nometadata", "-nocompress", *words, "translations/..."], cwd=self.tree)

    def named(self) -> list[str]:
        """Return the names of the suite's conformance tests, which its own list tells."""
        listed = (self.tree / "test" / "conformance" / "testdata" / "conformance.yaml").read_text()
        return [each["codename"] for each in yaml.safe_load(listed)]


def _source_lines() -> str:
    """Return where this machine's Debian comes from, as places of source packages."""
    places = set()
    for line in shell.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT) $(ORIGIN)"]
    ).splitlines():
        match line.split():
            case [site, release, "main", "Debian"]:
                places.add(f"deb-src {site} {release} main\n")
    return "".join(sorted(places))
