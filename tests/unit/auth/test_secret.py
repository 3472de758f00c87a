"""The root secret of a data folder is created once, completely, and readable only by its owner."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from penstockd.auth.secret import load_secret


def derived(folder: Path) -> bytes:
    return load_secret(None, folder).derive("test")


def test_processes_that_start_together_have_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool, get_context("spawn").Pool(4) as processes:
        keys = {*processes.map(derived, [tmp_path] * 8), *pool.map(derived, [tmp_path] * 2)}
    assert len(keys) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_an_empty_file_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    with pytest.raises(OSError, match="the root secret is empty"):
        load_secret(None, tmp_path)


def test_a_secret_that_is_given_is_not_kept(tmp_path: Path) -> None:
    assert load_secret("given", tmp_path).derive("a") == load_secret("given", tmp_path).derive("a")
    assert not any(tmp_path.iterdir())
