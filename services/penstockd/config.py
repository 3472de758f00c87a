"""Settings: one frozen object, read from ``PENSTOCK_*`` variables in ``app`` and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Everything an operator can set. ``repr`` hides what is secret."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True)

    data_dir: Path = Field(
        default=Path(".penstock"),
        description="Folder of the embedded database, logs, secrets and demo.json.",
    )
    host: str = Field(default="127.0.0.1", description="Address the public port listens on.")
    port: int = Field(default=8080, ge=1, le=65535, description="The one public port.")
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="PostgreSQL 15 or newer to use instead of the embedded one, as "
        "postgresql://user:password@host:5432/name.",
    )
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Worker processes; by default one for each core.",
    )
    secret: str | None = Field(
        default=None,
        repr=False,
        min_length=32,
        description="Root secret from which hashes and page tokens are keyed; by default made at "
        "the first start and kept in the data folder. Nodes that share a database share it.",
    )
    issuer: str = Field(default="penstock", description="The `iss` claim of the hub's tokens.")
    audience: str = Field(default="penstock", description="The `aud` claim of the hub's tokens.")
    token_minutes: int = Field(
        default=15, ge=1, le=15, description="How long a token lives, in minutes."
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/gRPC endpoint that receives the hub's spans, if any."
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        """Refuse at once what no driver would read; the URL itself stays untold."""
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            known = parts.scheme.split("+")[0] in ("postgresql", "postgres")
            usable = known and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must look like postgresql://user:password@host:5432/name")
        return url

    @property
    def url(self) -> str:
        """Where the hub is reached."""
        return f"http://{self.host}:{self.port}"

    @property
    def ready_file(self) -> Path:
        """Holds the process id of the supervisor while its hub is ready."""
        return self.data_dir / "ready"
