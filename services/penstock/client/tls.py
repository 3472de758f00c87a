"""The authorities that a client trusts, and the certificate it presents, if the hub's URL is
https."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files; an empty path means none.

    ``ca_file``: the authorities that the hub's certificate must come from, in place of the usual
    ones. ``client_cert``: the client's certificate, if the hub asks for one; ``client_key``
    its private key, if that is not in the same file.
    """

    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""

    def context(self) -> ssl.SSLContext:
        """For HTTP. Raises ValueError if the files cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.client_cert:
                # A key with a password would prompt on the terminal in the middle of a call.
                context.load_cert_chain(self.client_cert, self.client_key or None, password="")
        except OSError as error:  # ssl.SSLError is a subclass
            raise ValueError(f"{self._names()}: {error.strerror or error}") from None
        return context

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. Raises ValueError if the files cannot be used."""
        self.context()  # gRPC would report a bad file only at the first call, without naming it
        return grpc.ssl_channel_credentials(
            root_certificates=_read_file(self.ca_file),
            private_key=_read_file(self.client_key or self.client_cert),
            certificate_chain=_read_file(self.client_cert),
        )

    def _names(self) -> str:
        return ", ".join(p for p in (self.ca_file, self.client_cert, self.client_key) if p)


def _read_file(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None
