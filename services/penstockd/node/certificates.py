"""The certificate of the public port, and the authorities of its clients, as files.

The sidecar reads them itself, and again whenever a file is moved into their folder, which is how
``mv`` and Kubernetes' volumes put new ones there. It ignores files that it cannot use and keeps the
current ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from penstockd.node.errors import CertificateUnusable

SOON = timedelta(days=14)
"""A certificate that ends within this time is worth a warning."""

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """``folder`` holds tls.crt (the chain, our own first) and tls.key, both PEM.

    With ``client_ca``, a PEM file, clients must show a certificate of one of its authorities.
    """

    folder: Path
    client_ca: Path | None = None

    @property
    def chain(self) -> Path:
        """Our own certificate and the intermediate ones up to its authority."""
        return self.folder.absolute() / "tls.crt"

    @property
    def key(self) -> Path:
        """The private key."""
        return self.folder.absolute() / "tls.key"

    def check(self) -> datetime:
        """When the certificate expires. Raises CertificateUnusable, naming the file and reason."""
        own = _load_certificates(self.chain)[0]
        try:
            key = serialization.load_pem_private_key(_read_file(self.key), password=None)
        except (ValueError, TypeError) as error:
            raise CertificateUnusable(f"{self.key} holds no private key without a password") from (
                error
            )
        if key.public_key() != own.public_key():
            raise CertificateUnusable(f"{self.key} is not the key of {self.chain}")
        _in_time(self.chain, own)
        if self.client_ca is not None:
            for authority in _load_certificates(self.client_ca):
                _in_time(self.client_ca, authority)
        return own.not_valid_after_utc

    def secrets(self) -> dict[str, dict[str, Any]]:
        """File name -> the SDS resource, as JSON, that tells the sidecar where the files are."""
        folder = {"path": str(self.folder.absolute())}
        found = {
            "certificate.json": _make_resource(
                "certificate",
                tls_certificate={
                    "certificate_chain": {"filename": str(self.chain)},
                    "private_key": {"filename": str(self.key)},
                    "watched_directory": folder,
                },
            )
        }
        if self.client_ca is not None:
            path = self.client_ca.absolute()
            found["authorities.json"] = _make_resource(
                "authorities",
                validation_context={
                    "trusted_ca": {"filename": str(path)},
                    "watched_directory": {"path": str(path.parent)},
                },
            )
        return found


def _make_resource(name: str, **content: Any) -> dict[str, Any]:
    return {"resources": [{"@type": _SECRET, "name": name, **content}]}


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateUnusable(f"{path} cannot be read: {error.strerror}") from error


def _load_certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read_file(path))
    except ValueError as error:
        raise CertificateUnusable(f"{path} contains no PEM certificate") from error


def _in_time(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        ended = certificate.not_valid_after_utc
        raise CertificateUnusable(
            f"the certificate in {path} expired on {ended:%Y-%m-%d %H:%M} UTC"
        )
    if certificate.not_valid_before_utc > now:
        begins = certificate.not_valid_before_utc
        raise CertificateUnusable(
            f"the certificate in {path} is not valid before {begins:%Y-%m-%d %H:%M} UTC"
        )
