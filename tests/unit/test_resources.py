"""The hub's data files are found, here or in another tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstockd import resources

ROOT = Path(__file__).parents[2]


def test_a_checkout_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_RESOURCES", raising=False)
    assert resources.descriptors() == ROOT / "gen/descriptors/hub.binpb"
    assert resources.envoy_inputs() == ROOT / "gen/envoy/inputs.json"
    assert resources.envoy_templates() == ROOT / "envoy"
    assert resources.portal() == ROOT / "gen/portal"


def test_another_tree_takes_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gen/descriptors").mkdir(parents=True)
    (tmp_path / "gen/descriptors/hub.binpb").touch()
    monkeypatch.setenv("PENSTOCK_RESOURCES", str(tmp_path))
    assert resources.descriptors() == tmp_path / "gen/descriptors/hub.binpb"
    with pytest.raises(FileNotFoundError, match=r"inputs\.json is missing"):
        resources.envoy_inputs()
