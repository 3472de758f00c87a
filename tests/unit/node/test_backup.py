"""A vault's inventory of backups, and the removal of old ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstockd.node.backup import (
    BackupFailed,
    Label,
    claim_vault,
    put_files,
    read_inventory,
    remove_old,
)
from penstockd.node.restore import choose_label
from penstockd.node.vault import Vault

NOW = datetime.now(UTC)


def made(vault: Vault, age: timedelta, **changes: Any) -> Label:
    """A finished backup of a certain age."""
    time = NOW - age
    name = time.strftime("%Y%m%dT%H%M%S.%fZ")
    label = Label(name, "7", f"{1:08X}{time.day:016X}", time, "1", ["secret"])
    put_files(vault, name, {"secret": b"s", "backup.json": replace(label, **changes).to_bytes()})
    return label


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(str(tmp_path / "vault"))


def change(**values: Any) -> Callable[[bytes], bytes]:
    return lambda data: orjson.dumps({**orjson.loads(data), **values})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"[]",
        lambda data: b"\xff",
        change(format=2),
        change(format=None),
        change(name="another"),
        change(time="2026-01-01T00:00:00"),
        change(time="yesterday"),
        change(segment="../../etc"),
        change(files=["../secret"]),
        change(files=None),
        change(cluster=7),
    ],
)
def test_a_damaged_label_does_not_hide_other_backups(
    vault: Vault, damage: Callable[[bytes], bytes]
) -> None:
    good, bad = made(vault, timedelta(days=2)), made(vault, timedelta(days=1))
    assert choose_label(read_inventory(vault), None, "") == bad  # negative control
    put_files(vault, bad.name, {"backup.json": damage(bad.to_bytes())})
    found = read_inventory(vault)
    assert list(found.labels) == [good] and list(found.unusable) == [bad.name]
    assert choose_label(found, None, "") == good
    put_files(vault, good.name, {"backup.json": damage(good.to_bytes())})
    with pytest.raises(BackupFailed, match=f"{good.name} cannot be used: .*{bad.name}"):
        choose_label(read_inventory(vault), None, "")


def test_what_failed_is_removed_when_it_cannot_run_any_more(vault: Vault) -> None:
    old, new = made(vault, timedelta(days=3)), made(vault, timedelta(hours=1))
    names = [
        (NOW - age).strftime("%Y%m%dT%H%M%S.%fZ") for age in (timedelta(days=2), timedelta(hours=2))
    ]
    for name in names:
        put_files(vault, name, {"secret": b"s", "base.tar.gz.part": b"half"})
    put_files(vault, "of-somebody", {"secret": b"s"})
    assert read_inventory(vault).unfinished == [*names, "of-somebody"]
    assert remove_old(vault, 0) == [names[0]]
    assert read_inventory(vault).unfinished == [names[1], "of-somebody"]
    assert not vault.names(f"base/{names[0]}", parts=True)
    assert list(read_inventory(vault).labels) == [old, new]


def test_damaged_backups_go_with_those_of_their_age(vault: Vault) -> None:
    days = [made(vault, timedelta(days=n)) for n in (5, 4, 3, 2)]
    for label in (days[0], days[2]):
        put_files(vault, label.name, {"backup.json": b"{"})
    assert remove_old(vault, 2) == [days[0].name]
    assert list(read_inventory(vault).unusable) == [days[2].name]


def test_a_vault_has_one_owner(vault: Vault) -> None:
    claim_vault(vault, "one", [], "00000001", take_over=False)
    claim_vault(vault, "one", [], "00000002", take_over=False)  # restored into its own folder
    with pytest.raises(BackupFailed, match="another installation"):
        claim_vault(vault, "two", [], "00000001", take_over=False)
    claim_vault(vault, "two", [], "00000002", take_over=True)
    with pytest.raises(BackupFailed, match="another installation"):
        claim_vault(vault, "one", [], "00000001", take_over=False)


def test_a_copy_does_not_claim_the_vault_of_an_earlier_version(vault: Vault) -> None:
    labels = [made(vault, timedelta(days=1))]
    with pytest.raises(BackupFailed, match="another installation"):
        claim_vault(vault, "copy", labels, "00000002", take_over=False)
    claim_vault(vault, "original", labels, "00000001", take_over=False)


def test_two_copies_do_not_write_on_one_timeline(vault: Vault) -> None:
    made(vault, timedelta(days=1), owner="one")
    labels = list(read_inventory(vault).labels)
    with pytest.raises(BackupFailed, match="another copy"):
        claim_vault(vault, "two", labels, "00000001", take_over=True)
    claim_vault(vault, "two", labels, "00000002", take_over=True)
    claim_vault(vault, "one", labels, "00000001", take_over=True)
