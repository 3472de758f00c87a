"""What `pip install` puts on the import path, from a wheel and from a checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

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
    """A fresh environment that sees our dependencies, and nothing of this checkout."""
    home = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    # A .pth file adds the folder but does not read the .pth files in it, so an editable
    # install of this checkout stays out of sight.
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
