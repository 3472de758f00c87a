"""Valid and refused places of backups; ``faults/test_backups.py`` is the drill."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import shutil
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from buckets import serving_s3
from harness import folder
from penstockd.auth.secret import SECOND_SECRET, SECRET
from penstockd.backups import Restored, Taken, restore_backup, take_backup
from penstockd.config import Settings
from penstockd.node.backup import ServerBackup, read_inventory
from penstockd.node.vault import Vault
from penstockd.up import StartRefused, migrate_store


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A folder whose database was backed up three times; two of the backups were kept."""
    with folder() as home:
        yield home


@pytest.fixture(scope="module")
def vault(home: Path) -> str:
    return str(home / "vault")


def at(data: Path, **values: Any) -> Settings:
    """The settings of an installation in a folder."""
    return Settings(data_dir=data, secret="s" * 40, **values)


def back_up(
    settings: Settings,
    where: str,
    *,
    log_only: bool = False,
    keep: int = 0,
    take_over: bool = False,
) -> Taken:
    return asyncio.run(
        take_backup(settings, where, log_only=log_only, keep=keep, take_over=take_over)
    )


def files(place: Path) -> dict[str, bytes]:
    found = (path for path in place.rglob("*") if path.is_file())
    return {str(path.relative_to(place)): path.read_bytes() for path in found}


def restore(settings: Settings, where: str, to: datetime | None = None) -> Restored:
    return asyncio.run(restore_backup(settings, where, to))


@pytest.fixture(scope="module")
def kept(home: Path, vault: str) -> list[str]:
    """The names of the stored backups."""
    hub = at(home / "hub")
    asyncio.run(migrate_store(hub, apply=True))
    with pytest.raises(StartRefused, match="make one"):  # no backup to which a log belongs
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


def with_another_byte(whole: bytes) -> bytes:
    """A compressed file with one significant byte changed: zeros can be written in several ways."""
    for place in range(len(whole) // 2, len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        try:
            gzip.decompress(changed)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return changed
    raise AssertionError("every byte may be changed")


@pytest.mark.parametrize("part", ["base", "wal"])
@pytest.mark.parametrize("kind", ["cut off", "another byte"])
def test_a_damaged_backup_is_refused(
    kept: list[str], home: Path, vault: str, kind: str, part: str
) -> None:
    archive = Path(vault, "base", kept[-1], "base.tar.gz")
    if part == "wal":
        archive = max(Path(vault, "wal").iterdir())
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2] if kind == "cut off" else with_another_byte(whole))
    try:
        with pytest.raises(StartRefused, match="is damaged"):
            restore(at(home / "damaged"), vault)
        assert not (home / "damaged" / "postgres").exists()
    finally:
        archive.write_bytes(whole)


def test_what_would_mix_or_overwrite_is_refused(kept: list[str], home: Path, vault: str) -> None:
    with pytest.raises(StartRefused, match="another database"):
        back_up(at(home / "foreign"), vault)
    with pytest.raises(StartRefused, match="already exists"):
        restore(at(home / "hub"), vault)
    elsewhere = Settings(data_dir=home / "secretive", secret="t" * 40)
    with pytest.raises(StartRefused, match="a root secret of the backup"):
        restore(elsewhere, vault)
    own = at(home / "own", database_url="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(StartRefused, match="without PENSTOCK_DATABASE_URL"):
        restore(own, vault)


def test_a_restore_that_cannot_write_the_archives_leaves_no_cluster(
    kept: list[str], home: Path, vault: str
) -> None:
    archive, blocked = Path(vault, "audit", "day.jsonl.gz"), home / "blocked"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"a day")
    blocked.touch()
    settings = at(home / "without-archives", audit_archive=blocked)
    try:
        with pytest.raises(StartRefused, match="blocked"):
            restore(settings, vault)
        assert not (settings.data_dir / "postgres").exists()
        blocked.unlink()
        assert restore(settings, vault).label.name == kept[-1], "the control"
        assert (blocked / archive.name).read_bytes() == b"a day"
    finally:
        archive.unlink()


@pytest.fixture
def drills(kept: list[str], home: Path, vault: str) -> Iterator[list[Settings]]:
    """Two copies that were restored from the vault, which is put back afterwards."""
    shutil.copytree(vault, home / "saved")
    made = [at(home / f"drill-{number}") for number in range(2)]
    for drill in made:
        restored = restore(drill, vault)
        assert restored.label.name == kept[-1] and restored.epoch.number == 1
    yield made
    shutil.rmtree(vault)
    (home / "saved").rename(vault)


def test_a_drill_does_not_write_into_the_vault_it_came_from(
    drills: list[Settings], kept: list[str], home: Path, vault: str
) -> None:
    before = files(Path(vault))
    for log_only in (False, True):
        with pytest.raises(StartRefused, match="another installation"):
            back_up(drills[0], vault, log_only=log_only, keep=1)
    assert files(Path(vault)) == before
    back_up(drills[0], str(home / "vault-of-drill"))
    # Negative control: a copy that takes the vault over writes there, and the original no longer
    # does.
    taken = back_up(drills[0], vault, take_over=True)
    back_up(drills[0], vault, log_only=True)
    with pytest.raises(StartRefused, match="another installation"):
        back_up(at(home / "hub"), vault)
    # The other copy is on a timeline of the same number: its log does not replace the first one's.
    before = files(Path(vault))
    with pytest.raises(StartRefused, match="another copy of this database"):
        back_up(drills[1], vault, take_over=True)
    assert files(Path(vault)) == before
    # The original continues on its own timeline, and so does a copy restored from it.
    goes_on = back_up(at(home / "hub"), vault, take_over=True)
    assert goes_on.label is not None and taken.label is not None
    assert (goes_on.label.segment[:8], taken.label.segment[:8]) == ("00000001", "00000002")
    assert restore(at(home / "after-drills"), vault).label == goes_on.label


def test_a_segment_of_the_log_is_never_replaced_by_another(
    kept: list[str], home: Path, vault: str
) -> None:
    hub = at(home / "hub")
    back_up(hub, vault, log_only=True)
    last = max(Path(vault, "wal").iterdir())
    segment = last.with_name(f"{int(last.name[:24], 16) + 1:024X}.gz")
    segment.write_bytes(gzip.compress(b"of another server"))
    with pytest.raises(StartRefused, match=f"{segment.name} has the log of another copy"):
        back_up(hub, vault, log_only=True)
    assert gzip.decompress(segment.read_bytes()) == b"of another server"
    # A truncated file belongs to nobody; an existing one with another compression is kept.
    segment.write_bytes(segment.read_bytes()[:-1])
    assert back_up(hub, vault, log_only=True).segments > 0
    whole = gzip.decompress(segment.read_bytes())
    assert len(whole) == 16 * 1024 * 1024
    (staging,) = [path for path in (home / "hub" / "backup").iterdir() if any(path.iterdir())]
    (staging / segment.name).write_bytes(gzip.compress(whole, 2))
    before = segment.read_bytes()
    back_up(hub, vault, log_only=True)
    assert segment.read_bytes() == before and not (staging / segment.name).exists()


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_nothing_remains_of_a_backup_that_fails(
    kept: list[str], home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's program breaks off: neither half a base backup nor the secret remains."""
    programs = home / f"broken-{kind}" / "bin"
    programs.mkdir(parents=True)
    (programs / "pg_basebackup").write_text("#!/bin/sh\nhead -c 9000000 /dev/zero; exit 1\n")
    (programs / "pg_basebackup").chmod(0o755)
    with contextlib.ExitStack() as stack:
        where = str(home / "vault-broken")
        if kind == "bucket":
            where = f"s3://k:s@bucket/broken?{stack.enter_context(serving_s3())}"
        with monkeypatch.context() as patch:
            patch.setattr("penstockd.node.backup.find_installation", lambda: programs.parent)
            with pytest.raises(StartRefused, match="pg_basebackup"):
                back_up(at(home / "hub"), where)
        place = Vault(where)
        assert place.names("", parts=True) == ["owner"]
        back_up(at(home / "hub"), where)  # negative control
        assert len(place.names("base")) == 4


def test_a_bucket_gives_back_what_was_put_into_it(kept: list[str], home: Path) -> None:
    with serving_s3() as place:
        where = f"s3://k:s@bucket/some/where?{place}"
        hub = at(home / "hub")
        first = back_up(hub, where)
        second = back_up(hub, where, keep=1)
        assert first.label is not None and list(second.removed) == [first.label.name]
        assert back_up(hub, where, log_only=True).segments > 0
        restored = restore(at(home / "unbucketed"), where)
    assert restored.label == second.label and restored.epoch.number == 1
    # It has the hub's tables, and works like any other.
    assert asyncio.run(migrate_store(at(home / "unbucketed"), apply=False)) == []


def test_a_backup_gets_each_secret_before_the_log_that_needs_it(
    kept: list[str], home: Path
) -> None:
    """``--wal`` adds the new secret of a rotation to the last base backup, while it has place."""
    place, one, two, three, four = home / "vault-rotated", *(letter * 40 for letter in "snxy")

    def keep(*given: str, log_only: bool) -> list[list[str]]:
        """Back up with these secrets; returns those of each backup."""
        first, second = (*given, None)[:2]
        hub = Settings(data_dir=home / "hub", secret=first, second_secret=second)
        back_up(hub, str(place), log_only=log_only)
        found = []
        for label in read_inventory(Vault(str(place))).labels:
            names = [n for n in label.files if n.endswith("secret")]
            found.append(sorted((place / "base" / label.name / n).read_text() for n in names))
        return found

    assert keep(one, log_only=False) == [[one]]
    assert keep(one, log_only=True) == [[one]]
    assert keep(one, two, log_only=True) == [sorted([one, two])]
    assert keep(two, log_only=True) == [sorted([one, two])]
    # The earlier backup has no place for a third; the new one has its own two.
    pairs = [sorted([one, two]), sorted([two, three])]
    assert keep(two, three, log_only=False) == pairs
    with pytest.raises(StartRefused, match="make a base backup now"):
        keep(three, four, log_only=True)
    assert keep(three, log_only=True) == pairs


def test_a_backup_has_the_secret_of_a_rotation_that_began_meanwhile(
    kept: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Settings(data_dir=home / "hub")
    first, second = (hub.data_dir / name for name in (SECRET, SECOND_SECRET))
    first.write_text("s" * 40)
    put_base = ServerBackup.put_base

    async def rotate(server: ServerBackup, name: str) -> tuple[str, int]:
        second.write_text("n" * 40)
        return await put_base(server, name)

    monkeypatch.setattr(ServerBackup, "put_base", rotate)
    try:
        taken = back_up(hub, str(home / "vault-meanwhile"))
    finally:
        first.unlink()
        second.unlink(missing_ok=True)
    assert taken.label is not None and {SECRET, SECOND_SECRET} <= set(taken.label.files)
    assert (
        home / "vault-meanwhile/base" / taken.label.name / SECOND_SECRET
    ).read_text() == "n" * 40


def test_passwords_are_not_among_the_settings(home: Path) -> None:
    place = home / "files"
    url = "postgresql://nobody:hidden@127.0.0.1:1/none"
    taken = back_up(at(home / "own", database_url=url, issuer="me"), str(place))
    assert taken.label is not None
    text = (place / "base" / taken.label.name / "settings.json").read_text()
    assert '"PENSTOCK_ISSUER": "me"' in text and "hidden" not in text and "s" * 40 not in text
