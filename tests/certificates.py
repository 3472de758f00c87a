"""Certificates for tests: an authority, and the certificates that it signs."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


@dataclass
class Pair:
    """A certificate and its key, PEM."""

    chain: bytes
    key: bytes

    @property
    def serial(self) -> int:
        """The serial number, which distinguishes certificates."""
        return x509.load_pem_x509_certificate(self.chain).serial_number

    def file(self, path: Path) -> Path:
        """Writes both to one file, as curl's --cert wants them."""
        path.write_bytes(self.chain + self.key)
        return path

    def move_into(self, folder: Path) -> None:
        """Move both to the hub's folder, as ``mv`` does."""
        folder.mkdir(exist_ok=True)
        for name, content in (("tls.crt", self.chain), ("tls.key", self.key)):
            new = folder.parent / f"{name}.new"
            new.write_bytes(content)
            os.replace(new, folder / name)

    def mount_into(self, folder: Path, generation: str) -> None:
        """Mount both as Kubernetes mounts a secret: links through a link that is swapped."""
        content = folder / f"..{generation}"
        content.mkdir(parents=True)
        (content / "tls.crt").write_bytes(self.chain)
        (content / "tls.key").write_bytes(self.key)
        link = folder / "..data_tmp"
        link.symlink_to(content.name)
        os.replace(link, folder / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")


@dataclass
class Authority:
    """Signs certificates for 127.0.0.1 and for clients."""

    name: str = "test authority"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def chain(self) -> bytes:
        """The authority's own certificate."""
        return self._sign(self.name, self.key, x509.BasicConstraints(True, 0)).public_bytes(PEM)

    def pair(self, *, days: int = 1, begin: int = 0, client: str = "") -> Pair:
        """A certificate for the loopback address, or for a client of that name."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        more: list[x509.ExtensionType] = [x509.ExtendedKeyUsage([usage])]
        if not client:
            loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            more.append(x509.SubjectAlternativeName([loopback, x509.DNSName("localhost")]))
        signed = self._sign(client or "localhost", key, *more, days=days, begin=begin)
        private = key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(signed.public_bytes(PEM), private)

    def context(self, shown: Path | None = None) -> ssl.SSLContext:
        """A client's TLS context that trusts only this authority and presents a pair."""
        context = ssl.create_default_context(cadata=self.chain.decode())
        if shown is not None:
            context.load_cert_chain(shown)
        return context

    def _sign(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        *extensions: x509.ExtensionType,
        days: int = 1,
        begin: int = 0,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=begin, minutes=-5))
            .not_valid_after(now + timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
