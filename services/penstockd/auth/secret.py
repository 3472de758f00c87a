"""The root secret, from which every key that must not be in the database is derived."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class RootSecret:
    """Derives 32-byte keys by purpose (HKDF-SHA256, RFC 5869), so that no two uses share one."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "RootSecret(…)"

    def derive(self, purpose: str) -> bytes:
        """The key for a purpose; deterministic for a secret and purpose."""
        hkdf = HKDF(hashes.SHA256(), length=32, salt=b"penstock", info=purpose.encode())
        return hkdf.derive(self._secret)


def load_secret(given: str | None, folder: Path) -> RootSecret:
    """The secret passed in, or that of the data folder, created at the first call.

    Raises OSError if the folder cannot be written, or if the file in it is empty.
    """
    if given:
        return RootSecret(given)
    path = folder / "secret"
    if not path.exists():
        # Written whole before it gets its name: no process reads half a secret, and the first of
        # several processes decides.
        fresh = path.with_name(f"secret.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    text = path.read_text()
    if not text.strip():
        raise OSError(errno.EINVAL, "the file of the root secret is empty", str(path))
    return RootSecret(text)
