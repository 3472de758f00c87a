"""The hub's data files are found, in this tree or in another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstockd import resources
from penstockd.config import Settings

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_them_all() -> None:
    assert resources.find_descriptors() == ROOT / "gen/descriptors/hub.binpb"
    assert resources.door_descriptors() == ROOT / "gen/descriptors/rest.binpb"
    assert resources.envoy_inputs() == ROOT / "gen/envoy/inputs.json"
    assert resources.envoy_templates() == ROOT / "envoy"
    assert resources.find_portal() == ROOT / "gen/portal"


def test_another_tree_takes_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PENSTOCK_RESOURCES", str(tmp_path))
    tree = Settings().resources
    (tmp_path / "gen/descriptors").mkdir(parents=True)
    (tmp_path / "gen/descriptors/hub.binpb").touch()
    assert resources.find_descriptors(tree) == tmp_path / "gen/descriptors/hub.binpb"
    with pytest.raises(FileNotFoundError, match=r"inputs\.json is missing"):
        resources.envoy_inputs(tree)
    # Only a setting names the tree.
    assert resources.find_descriptors() == ROOT / "gen/descriptors/hub.binpb"
    assert resources.door_descriptors() == ROOT / "gen/descriptors/rest.binpb"


def reads_settings(source: str) -> bool:
    """Whether a source reads a setting from the environment by itself."""
    return re.search(r"(environ|getenv)\W+(get\W+)?PENSTOCK_", source) is not None


def test_only_settings_are_read_from_the_environment() -> None:
    sources = {p: p.read_text() for p in (ROOT / "services/penstockd").rglob("*.py")}
    assert [p for p, text in sources.items() if reads_settings(text)] == []
    assert reads_settings('override = os.environ.get("PENSTOCK_RESOURCES")')
    assert reads_settings("os.environ['PENSTOCK_X']") and reads_settings('getenv("PENSTOCK_X")')
