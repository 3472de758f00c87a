"""The root secret of a data folder is created once, completely, and readable only by its owner."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from penstockd.auth.secret import SECOND_SECRET, SECRET, load_secret, load_secrets, make_secret


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


def test_a_second_secret_that_takes_the_place_of_the_first_meanwhile_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / SECRET, tmp_path / SECOND_SECRET
    first.write_text("old")
    second.write_text("new")
    assert [s.secret_id for s in load_secrets((None,), tmp_path)] == [
        load_secret(text, tmp_path).secret_id for text in ("old", "new")
    ]
    read_text = Path.read_text

    def read(path: Path) -> str:
        text = read_text(path)
        if second.exists():
            second.replace(first)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    found = [s.secret_id for s in load_secrets((None,), tmp_path)]
    assert load_secret("new", tmp_path).secret_id in found


def test_the_name_of_a_secret_is_on_disk_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[list[str]]()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            kept.append(os.listdir(descriptor))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    make_secret(tmp_path / SECRET)
    make_secret(tmp_path / SECRET)  # another process has made it, and may not be done
    assert kept == [[SECRET], [SECRET]]
