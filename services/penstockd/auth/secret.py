"""The root secret, from which every key that must not be in the database is derived."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

#: The files of the data folder; the second is there while secrets are rotated.
SECRET, SECOND_SECRET = "secret", "second-secret"


class RootSecret:
    """Derives 32-byte keys by purpose (HKDF-SHA256, RFC 5869), so that no two uses share one."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "RootSecret(…)"

    @functools.cached_property
    def secret_id(self) -> str:
        """Names the secret, and reveals nothing of it."""
        return self.derive("fingerprint").hex()[:16]

    def derive(self, purpose: str) -> bytes:
        """The key for a purpose; deterministic for a secret and purpose."""
        hkdf = HKDF(hashes.SHA256(), length=32, salt=b"penstock", info=purpose.encode())
        return hkdf.derive(self._secret)


def load_secrets(given: Sequence[str | None], folder: Path) -> Sequence[RootSecret]:
    """The known secrets: those given, or those of the data folder, where the first call makes one.

    Raises OSError if the folder cannot be written, or if a file in it is empty.
    """
    if texts := [text for text in given if text]:
        return [RootSecret(text) for text in dict.fromkeys(texts)]
    first, second = folder / SECRET, folder / SECOND_SECRET
    if not first.exists():
        make_secret(first)
    # The second may take the place of the first meanwhile: it is read first, so that it is found.
    later = []
    with contextlib.suppress(FileNotFoundError):
        later = [_read_secret(second)]
    return [RootSecret(text) for text in dict.fromkeys([_read_secret(first), *later])]


def load_secret(given: str | None, folder: Path) -> RootSecret:
    """The first known secret (see ``load_secrets``)."""
    return load_secrets([given], folder)[0]


def make_secret(path: Path) -> None:
    """Write a new, random secret to a file, unless the file exists; on return, it is on disk.
    Raises OSError."""
    # Written whole before it gets its name: no process reads half a secret, and the first of
    # several processes decides.
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
    # Also if another process has made it: this one may use it before that one is done.
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_secret(path: Path) -> str:
    text = path.read_text()
    if not text.strip():
        raise OSError(errno.EINVAL, "the file of the root secret is empty", str(path))
    return text
