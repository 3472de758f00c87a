"""What a place of backups takes and refuses; ``faults/test_backups.py`` is the drill."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from buckets import serving_s3
from harness import folder
from penstockd.backups import Restored, Taken, restore_backup, take_backup
from penstockd.config import Settings
from penstockd.up import StartRefused, migrate_store


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder whose database was backed up three times, of which two backups were kept."""
    with folder() as home:
        yield home


@pytest.fixture(scope="module")
def vault(home: Path) -> str:
    return str(home / "vault")


def at(data: Path, **values: Any) -> Settings:
    """The settings of an installation in a folder."""
    return Settings(data_dir=data, secret="s" * 40, **values)


def back_up(settings: Settings, where: str, *, log_only: bool = False, keep: int = 0) -> Taken:
    return asyncio.run(take_backup(settings, where, log_only=log_only, keep=keep))


def restore(settings: Settings, where: str, to: datetime | None = None) -> Restored:
    return asyncio.run(restore_backup(settings, where, to))


@pytest.fixture(scope="module")
def kept(home: Path, vault: str) -> list[str]:
    """The names of the backups there."""
    hub = at(home / "hub")
    with pytest.raises(StartRefused, match="make one"):  # nothing is there that a log belongs to
        back_up(hub, vault, log_only=True)
    for keep in (0, 0, 2):
        taken = back_up(hub, vault, keep=keep)
        assert len(taken.removed) == (1 if keep else 0) and taken.oldest is not None
    return sorted(path.parent.name for path in Path(vault).glob("base/*/backup.json"))


def test_old_backups_go_with_the_log_that_only_they_need(kept: list[str], vault: str) -> None:
    folders = sorted(path.name for path in Path(vault, "base").iterdir() if any(path.iterdir()))
    assert folders == kept and len(kept) == 2
    segments = [path.name[8:24] for path in Path(vault, "wal").iterdir()]
    needed = re.search(
        r'"segment": "\w{8}(\w{16})"', Path(vault, "base", kept[0], "backup.json").read_text()
    )
    assert needed is not None and min(segments) == needed[1]


@pytest.mark.parametrize(("year", "reason"), [(2000, "reaches back to"), (2999, "ends before")])
def test_a_time_that_the_log_does_not_have_is_refused(
    kept: list[str], home: Path, vault: str, year: int, reason: str
) -> None:
    other = home / f"other-{year}"
    with pytest.raises(StartRefused, match=reason):
        restore(at(other), vault, datetime(year, 1, 1, tzinfo=UTC))
    assert not (other / "postgres").exists()


@pytest.mark.parametrize("kind", ["cut off", "another byte"])
def test_a_damaged_backup_is_refused(kept: list[str], home: Path, vault: str, kind: str) -> None:
    archive = Path(vault, "base", kept[-1], "base.tar.gz")
    whole = archive.read_bytes()
    middle = len(whole) // 2
    other = bytes([whole[middle] ^ 1])
    archive.write_bytes(
        whole[:middle] + (b"" if kind == "cut off" else other + whole[middle + 1 :])
    )
    try:
        with pytest.raises(StartRefused, match="is damaged"):
            restore(at(home / "damaged"), vault)
        assert not (home / "damaged" / "postgres").exists()
    finally:
        archive.write_bytes(whole)


def test_what_would_mix_or_overwrite_is_refused(kept: list[str], home: Path, vault: str) -> None:
    with pytest.raises(StartRefused, match="another database"):
        back_up(at(home / "foreign"), vault)
    with pytest.raises(StartRefused, match="is there already"):
        restore(at(home / "hub"), vault)
    elsewhere = Settings(data_dir=home / "secretive", secret="t" * 40)
    with pytest.raises(StartRefused, match="another root secret"):
        restore(elsewhere, vault)
    own = at(home / "own", database_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StartRefused, match="without PENSTOCK_DATABASE_URL"):
        restore(own, vault)


def test_a_bucket_gives_back_what_was_put_into_it(home: Path) -> None:
    with serving_s3() as place:
        where = f"s3://k:s@bucket/some/where?{place}"
        hub = at(home / "bucketed")
        asyncio.run(migrate_store(hub, apply=True))
        first = back_up(hub, where)
        second = back_up(hub, where, keep=1)
        assert first.label is not None and list(second.removed) == [first.label.name]
        assert back_up(hub, where, log_only=True).segments > 0
        restored = restore(at(home / "unbucketed"), where)
    assert restored.label == second.label and restored.epoch.number == 1
    # It has the hub's tables, and goes on as any other does.
    assert asyncio.run(migrate_store(at(home / "unbucketed"), apply=False)) == []


def test_passwords_are_not_among_the_settings(home: Path) -> None:
    place = home / "files"
    url = "postgresql://nobody:hidden@127.0.0.1:1/none"
    taken = back_up(at(home / "own", database_url=url, issuer="me"), str(place))
    assert taken.label is not None
    text = (place / "base" / taken.label.name / "settings.json").read_text()
    assert '"PENSTOCK_ISSUER": "me"' in text and "hidden" not in text and "s" * 40 not in text
