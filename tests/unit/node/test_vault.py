"""A folder and S3 store backups in the same way: complete or not at all, with clear errors."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from buckets import serving_s3
from penstockd.node.vault import Vault, VaultUnusable

BIG = bytes(range(256)) * 4096 * 12  # more than one part of an upload


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The query of URLs that lead to a bucket."""
    with serving_s3() as place:
        yield place


@pytest.fixture(params=["folder", "s3"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "vault")
    place = request.getfixturevalue("s3")
    return f"s3://k:s@bucket/backups?{place}"


class Failing(io.BytesIO):
    """A source that breaks off."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise ValueError("broken off")
        return data


def test_what_is_put_is_found_and_read(where: str) -> None:
    vault = Vault(where)
    assert vault.names("base") == []
    for name, data in (("base/b/one", b"1"), ("base/a/two", BIG), ("wal/three.gz", b"\x1f\x8b")):
        assert vault.put(name, io.BytesIO(data)) == len(data)
    again = Vault(where)
    assert again.identity == vault.identity
    assert again.names("base") == ["base/a/two", "base/b/one"]
    assert again.read("base/a/two") == BIG
    assert again.read("wal/three.gz") == b"\x1f\x8b"  # the stored bytes, not the uncompressed ones
    again.delete("base/b/one")
    assert again.names("base") == ["base/a/two"]
    with pytest.raises(VaultUnusable):
        again.read("base/b/one")


@pytest.mark.parametrize("half", [b"half", BIG])
def test_what_breaks_off_does_not_appear(where: str, half: bytes) -> None:
    vault = Vault(where)
    vault.put("broken/whole", io.BytesIO(half))
    with pytest.raises(ValueError, match="broken off"):
        vault.put("broken/half", Failing(half))
    assert vault.names("broken", parts=True) == ["broken/whole"]
    assert vault.exists("broken/whole") and not vault.exists("broken/half")
    vault.delete_folder("broken")
    assert vault.names("broken", parts=True) == [] and not vault.exists("broken/whole")


def test_a_file_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    vault = Vault(str(tmp_path))
    vault.put("base/one", io.BytesIO(b"before"))
    with pytest.raises(ValueError, match="broken off"):
        vault.put("base/one", Failing(b"half"))
    assert vault.names("base") == ["base/one"] and vault.read("base/one") == b"before"
    assert stat.S_IMODE((tmp_path / "base" / "one").stat().st_mode) == 0o600


def test_errors_do_not_show_credentials(s3: str) -> None:
    with pytest.raises(VaultUnusable, match="NO_SUCH_BUCKET") as raised:
        Vault(f"s3://name:hidden@none/backups?{s3}").put("base/one", io.BytesIO(b"1"))
    assert str(raised.value).startswith("s3://none/backups: ") and "hidden" not in str(raised.value)
    with pytest.raises(VaultUnusable) as raised:
        Vault("s3://name:hidden@none/backups?no_such_option=1")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("where", ["ftp://host/path", "s3:///path", "/dev/null/vault"])
def test_a_place_that_is_none_is_explained(where: str) -> None:
    with pytest.raises(VaultUnusable, match=where):
        Vault(where).put("base/one", io.BytesIO(b"1"))
