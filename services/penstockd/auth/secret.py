"""The root secret, from which every key that must not be in the database is derived."""

from __future__ import annotations

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

    Raises OSError if the folder cannot be written.
    """
    if given:
        return RootSecret(given)
    path = folder / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return RootSecret(path.read_text())
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    return RootSecret(path.read_text())
