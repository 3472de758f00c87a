"""The packages that `pip install` puts on the import path, from a wheel and from a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from penstock.client.cli import build_app
from penstock.client.cli.options import walk_commands

ROOT = Path(__file__).parents[2]

PROBE = """
import importlib.metadata, importlib.util, re, sys
from pathlib import Path
import penstockd.catalog.load, penstockd.resources as resources
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
import penstock.client

root = Path(sys.argv[1])
for module in (penstockd, penstock.client, sys.modules[CustomersStub.__module__]):
    assert Path(module.__file__).is_relative_to(root), module.__file__
assert importlib.util.find_spec("penstock").origin is None, "penstock must be a namespace"
for name in ("services", "gen"):
    assert importlib.util.find_spec(name) is None, name
catalog = penstockd.catalog.load.load_catalog(resources.find_descriptors())
assert "customers" in catalog
for path in (resources.find_descriptors(), resources.envoy_inputs(), resources.envoy_templates(),
             resources.find_portal() / "index.html"):
    assert path.is_relative_to(root), path
distribution = next(importlib.metadata.distributions(name="penstock-hub", path=[sys.argv[2]]))
points = {(p.group, p.name): p.value for p in distribution.entry_points}
assert points["console_scripts", "penstock"] == "penstock.client.cli:main"
assert points["penstock.commands", "server"] == "penstockd.cli:commands"
readme = (Path(sys.argv[3]) / "README.md").read_text()
extras = distribution.metadata.get_all("Provides-Extra")
for installed in re.findall(r"pip install '?([\\w\\[\\]-]+)", readme):
    name, _, extra = installed.rstrip("]").partition("[")
    assert name in (distribution.name, "penstock"), installed
    assert not extra or extra in extras, installed
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A fresh environment that sees our dependencies, but not this checkout."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    # A .pth file adds the folder but ignores the .pth files in it, so an editable install of this
    # checkout stays out of sight.
    (site(home) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return home / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def site(home: Path) -> Path:
    folders = {"base": str(home), "platbase": str(home)}
    return Path(sysconfig.get_path("purelib", "venv", vars=folders))


def install(python: Path, *what: str) -> None:
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", *options, *what],
        check=True,
    )


def probe(python: Path, root: Path) -> None:
    where = site(python.parents[1])
    subprocess.run([python, "-I", "-c", PROBE, root, where, ROOT], check=True, cwd=python.parent)


@pytest.mark.slow
def test_a_wheel_brings_code_stubs_and_data(python: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("penstock_hub-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"penstock", "penstockd"}
    assert "penstock/__init__.py" not in names
    assert "penstock/api/py.typed" in names
    install(python, str(wheel))
    probe(python, site(python.parents[1]))


@pytest.mark.slow
def test_an_editable_install_sees_the_checkout(python: Path) -> None:
    install(python, "--editable", str(ROOT))
    probe(python, ROOT)


#: As after only `pip install penstock-hub`: the extra's packages are missing.
WITHOUT_SERVER = """
import importlib.metadata, re, sys
from importlib.machinery import PathFinder

needed, extra = set(), set()
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
for line in importlib.metadata.requires("penstock-hub"):
    name = normal(re.match(r"[\\w.-]+", line)[0])
    if "extra" not in line:
        needed.add(name)
    elif re.search("extra == .server.", line):
        extra.add(name)
modules = {m for m, ds in importlib.metadata.packages_distributions().items()
           if {normal(d) for d in ds} & (extra - needed)}
modules -= {"google", "grpc", "backports"}
assert len(modules) > 15, modules

find_spec = PathFinder.find_spec
if ABSENT:
    PathFinder.find_spec = lambda name, *more: (
        None if name.partition(".")[0] in modules else find_spec(name, *more))
sys.argv = ["penstock", *sys.argv[1:]]
from penstock.client.cli import main
main()
"""


def penstock(folder: Path, *arguments: str, absent: bool) -> subprocess.CompletedProcess[str]:
    """Run a command in a place without a hub."""
    script = WITHOUT_SERVER.replace("ABSENT", str(absent))
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUTF8": "1"},
    )


SERVER_COMMANDS = [
    *(["up"], ["up", "--demo"], ["down"], ["migrate"], ["migrate", "--apply"], ["nodes"]),
    *(["administrator", "anna"], ["epoch", "new", "--because", "restore"]),
    *(["cursors", "rotate-key"], ["audit", "verify"], ["usage", "reconcile"]),
    *(["audit", "archives"],),
    *(["audit", "archive"], ["audit", "archive", "--days", "9"]),
    *(["backup", "x"], ["restore", "x"]),
    *(["monitoring", "metrics"], ["monitoring", "rules"], ["monitoring", "dashboard"]),
    *(["secret", "status"], ["secret", "rotate"], ["secret", "retire", "x"]),
]


def test_the_commands_of_the_server_are_these() -> None:
    found = {
        path
        for path, command in walk_commands(build_app())
        if getattr(command.callback, "__module__", "").startswith("penstockd")
        and not hasattr(command, "commands")
    }
    assert found == {
        tuple(c[: len(p)]) for c in SERVER_COMMANDS for p in found if c[: len(p)] == list(p)
    }
    assert all(any(c[: len(p)] == list(p) for p in found) for c in SERVER_COMMANDS)


@pytest.mark.parametrize("command", SERVER_COMMANDS, ids=" ".join)
def test_without_the_server_a_line_says_what_to_install(command: list[str], tmp_path: Path) -> None:
    done = penstock(tmp_path, *command, absent=True)
    assert (done.returncode, done.stdout) == (1, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "pip install 'penstock-hub[server]'" in done.stderr


def test_without_the_server_the_rest_works(tmp_path: Path) -> None:
    assert "Commands:" in penstock(tmp_path, "--help", absent=True).stdout
    assert penstock(tmp_path, "profiles", "list", "--format", "json", absent=True).returncode == 0
    # The control: the missing packages are the ones that the commands need.
    done = penstock(tmp_path, "cursors", "--help", absent=False)
    assert "rotate-key" in done.stdout
