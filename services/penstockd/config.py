"""Settings: one frozen object, read from ``PENSTOCK_*`` variables in ``__main__`` and ``cli``."""

from __future__ import annotations

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from penstockd.addresses import is_loopback, is_origin


class Settings(BaseSettings):
    """Everything an operator can set. ``repr`` hides secrets."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True)

    data_dir: Path = Field(
        default=Path(".penstock"),
        description="Folder of the embedded database, logs, secrets and demo.json.",
    )
    host: str = Field(default="127.0.0.1", description="Address the public port listens on.")
    port: int = Field(default=8080, ge=1, le=65535, description="The one public port.")
    public_url: str | None = Field(
        default=None,
        description="Where clients reach the hub, such as https://hub.example.com, if that is "
        "not its own host and port; links and metadata begin with it.",
    )
    tls_dir: Path | None = Field(
        default=None,
        description="Folder with tls.crt and tls.key (PEM), watched for new ones: the public port "
        "speaks TLS.",
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities: clients must show a certificate of one of them.",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="Listen without TLS on addresses other than the loopback, for example behind a "
        "proxy that ends TLS; credentials and records then cross the network in the clear.",
    )
    trusted_proxies: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Number of proxies in front of the hub: that many entries at the end of "
        "x-forwarded-for are theirs, and the one before them is the caller's address.",
    )
    max_connections: int = Field(
        default=20_000, ge=8, description="The most connections of clients at one time."
    )
    rate_limit: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Calls a second of one consumer, by token or by API key; a tenth of that for "
        "one address without a valid token. 0: no limit.",
    )
    rate_burst: int = Field(
        default=0,
        ge=0,
        le=10_000_000,
        description="Calls that a rested caller may make at once; 0: twice the rate.",
    )
    refused_calls: int = Field(
        default=60,
        ge=1,
        le=1_000_000,
        description="Calls without valid credentials that are answered and audited one by one, for "
        "each address and for each consumer, in a minute and worker, and ten times as many for all "
        "callers together; further ones get 429 and are counted together in the audit. They never "
        "cause a refusal of valid credentials.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins of web pages that may call the hub, separated by commas, such as "
        "https://app.example.com; none by default.",
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="PostgreSQL 15 or newer to use instead of the embedded one, such as "
        "postgresql://user:password@host:5432/name; of several hosts, separated by commas, the "
        "one that takes writes is used.",
    )
    database_owner_url: str | None = Field(
        default=None,
        repr=False,
        description="The same database as another role, which owns the tables: migrations run as "
        "it, and workers cannot change the audit. Needs PENSTOCK_DATABASE_KEEPER_URL.",
    )
    database_keeper_url: str | None = Field(
        default=None,
        repr=False,
        description="The same database as a third role, of the keeper, which seals the audit.",
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
    second_secret: str | None = Field(
        default=None,
        repr=False,
        min_length=32,
        description="The next root secret, or the one before, while PENSTOCK_SECRET is rotated: "
        "see penstock secret. The database says which of the two seals.",
    )
    issuer: str | None = Field(
        default=None,
        min_length=1,
        description="The `iss` claim of the hub's tokens; by default the hub's URL (RFC 8414). "
        "After a change, tokens under an earlier name stay valid until they expire.",
    )
    audience: str = Field(default="penstock", description="The `aud` claim of the hub's tokens.")
    token_minutes: int = Field(
        default=15, ge=1, le=15, description="How long a token lives, in minutes."
    )
    key_days: int = Field(
        default=30,
        ge=1,
        le=366,
        description="Age in days at which a key that signs tokens or seals cursors is replaced.",
    )
    policy_stale_seconds: int = Field(
        default=60,
        ge=2,
        le=60,
        description="A worker that gets no news of its access rules for this many seconds refuses "
        "calls.",
    )
    loopback_issuers: bool = Field(
        default=False,
        description="Whether key sets of other issuers may be fetched from this machine by http.",
    )
    connections: int = Field(
        default=32,
        ge=16,
        le=1000,
        description="Database connections of each worker for calls: 7 of 16 for short reads, 3 for "
        "writes, 4 for exports, imports and digests, 2 for its own work. One consumer holds at "
        "most three quarters of the first and half of the others.",
    )
    wait_seconds: float = Field(
        default=20,
        gt=0,
        le=50,
        description="How long a call waits while its consumer holds its share of connections; "
        "after that it is refused.",
    )
    lock_seconds: float = Field(
        default=10,
        gt=0,
        le=50,
        description="How long a call waits for records, or a dataset, that others have locked.",
    )
    statement_seconds: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="How long one query of a call may take; those of exports, imports and digests "
        "may take longer.",
    )
    commit_seconds: float = Field(
        default=10,
        gt=0,
        le=50,
        description="How long the database may take to confirm a write, for example while it waits "
        "for a standby; after that the caller is told that the outcome is unknown.",
    )
    export_connections: int = Field(
        default=1,
        ge=1,
        le=8,
        description="Database connections that read one export in order of key at once.",
    )
    export_resume_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        description="How long an interrupted export can be resumed; meanwhile its state of the "
        "data delays the database's vacuum.",
    )
    snapshot_seconds: float = Field(
        default=3600,
        gt=0,
        le=7 * 86_400,
        description="How long one state of the data is held in all, by an export, digests or the "
        "snapshot of a stream. A call that takes longer ends with STATE_GONE, because the database "
        "cannot clean up what was deleted since.",
    )
    export_stall_seconds: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="An export whose client reads nothing for this many seconds is ended.",
    )
    import_stall_seconds: float = Field(
        default=60,
        gt=0,
        le=3600,
        description="An import whose client sends less than 1 KiB a second is ended after this "
        "many seconds; once rows are locked, one that sends less than 64 KiB a second after 5, "
        "and one that sends less than 1 MiB a second after 30 (later, the faster it is).",
    )
    import_seconds: float = Field(
        default=900,
        gt=0,
        le=7 * 86_400,
        description="How long the file of an import may take to arrive, and then how long the "
        "import may hold the rows that it writes; a longer one is refused with IMPORT_TOO_LONG.",
    )
    log_retention_hours: int = Field(
        default=168,
        ge=72,
        le=24 * 3650,
        description="How long the change log is kept: the age of the oldest usable cursor.",
    )
    stream_stall_seconds: float = Field(
        default=20,
        gt=0,
        le=3600,
        description="A stream of changes whose client reads nothing for this many seconds is "
        "ended.",
    )
    max_streams: int = Field(
        default=2000,
        ge=1,
        le=100_000,
        description="The most streams of changes, and calls that wait for changes or deliveries, "
        "of one consumer at one time in each worker.",
    )
    issuer_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that key sets of other issuers may be fetched from by https besides "
        "the public internet, separated by commas, such as 10.1.0.0/16.",
    )
    webhook_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description="Networks that webhooks may lead to besides the public internet, separated "
        "by commas, such as 10.1.0.0/16; to these also by http. The demo allows the loopback.",
    )
    webhook_days: int = Field(
        default=14,
        ge=6,
        le=366,
        description="How long deliveries of webhooks are kept after their end, in days.",
    )
    usage_minute_days: int = Field(default=35, ge=2, le=366, description="Days by the minute.")
    usage_hour_days: int = Field(default=400, ge=366, le=3660, description="Days by the hour.")
    usage_day_days: int = Field(default=3660, ge=3660, le=36_600, description="Days by the day.")
    audit_file: Path | None = Field(
        default=None,
        description="File that the audit's checkpoints are appended to, to be shipped off the "
        "host; by default audit/checkpoints.jsonl in the data folder.",
    )
    audit_checkpoint_seconds: float = Field(
        default=30.0,
        gt=0,
        le=60,
        description="Seconds between two signed checkpoints of the audit.",
    )
    audit_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="Days of the audit before today that stay in the database; older ones are "
        "archived to files and dropped. 0: all stay.",
    )
    audit_archive: Path | None = Field(
        default=None,
        description="Folder of the audit's archived days, which nodes may share; by default "
        "audit/archive in the data folder.",
    )
    differing_settings: Literal["stand_by", "warn"] = Field(
        default="stand_by",
        description="What a node does if its settings differ from those of the node that has run "
        "longest: stand_by (it takes none of the tasks that one node does for all) or warn.",
    )
    resources: Path | None = Field(
        default=None,
        description="Tree with the layout of a checkout whose model, console and Envoy templates "
        "the hub uses instead of the installed ones.",
    )
    disk_reserve_mb: int = Field(
        default=1024,
        ge=1,
        description="The log and health warn if the disk of the data folder has fewer free MiB "
        "than this, and imports that need the disk are refused with STORAGE_FULL.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port where Prometheus reads the node's metrics; none by default. It asks for "
        "no credentials.",
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        description="Address that the port of the metrics listens on; only the operator's network "
        "may reach it.",
    )
    log_level: str = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    otlp_endpoint: str | None = Field(
        default=None,
        description="OTLP/gRPC endpoint that receives the hub's spans and, each minute, its "
        "metrics, if any.",
    )

    @field_validator("database_url", "database_owner_url", "database_keeper_url")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        """Refuse a URL that no driver could read, without repeating it in the error."""
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            known = parts.scheme.split("+")[0] in ("postgresql", "postgres")
            hosts = parts.netloc.rpartition("@")[2].split(",")
            usable = known and all((urlsplit(f"//{host}").port or 1) > 0 for host in hosts)
            wanted = dict(parse_qsl(parts.query)).get("target_session_attrs")
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must look like postgresql://user:password@host:5432/name")
        if wanted not in (None, "primary", "read-write", "any"):
            raise ValueError(
                f"the hub needs a server that takes writes: not target_session_attrs={wanted}"
            )
        return url

    @field_validator("public_url")
    @classmethod
    def _is_base_url(cls, url: str | None) -> str | None:
        """Scheme, host and port, without a slash at the end."""
        if url is None:
            return None
        if not is_origin(url := url.rstrip("/")):
            raise ValueError("must be a scheme, a host and a port, such as https://hub.example.com")
        return url

    @field_validator("webhook_allow", "issuer_allow", mode="before")
    @classmethod
    def _are_networks(cls, given: Any) -> Any:
        """Networks in CIDR form; a single address is a network of one address."""
        if isinstance(given, str):
            return [n.strip() for n in given.split(",") if n.strip()]
        return given

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _are_origins(cls, given: Any) -> Any:
        """Exact origins only: with a wildcard, any site could read whatever its visitor may."""
        origins = given.split(",") if isinstance(given, str) else given
        origins = tuple(o.strip() for o in origins if o.strip())
        for origin in origins:
            if not is_origin(origin) or origin != origin.lower():
                raise ValueError(
                    f"'{origin}' is not an origin: give each in the form "
                    "https://app.example.com, in lower case"
                )
        return origins

    @model_validator(mode="after")
    def _keeps_secrets(self) -> Self:
        """Refuse to expose credentials and records to a network in the clear, unless allowed to."""
        if self.tls_client_ca is not None and self.tls_dir is None:
            raise ValueError("PENSTOCK_TLS_CLIENT_CA needs PENSTOCK_TLS_DIR")
        if self.in_the_clear and not self.allow_plaintext:
            raise ValueError(
                f"PENSTOCK_HOST={self.host} is not the loopback and there is no TLS: set "
                "PENSTOCK_TLS_DIR, or PENSTOCK_ALLOW_PLAINTEXT=true behind a proxy that ends TLS"
            )
        return self

    @model_validator(mode="after")
    def _orders_secrets(self) -> Self:
        """Refuse a second secret without the first, which would be that of the data folder."""
        if self.second_secret is not None and self.secret is None:
            raise ValueError("PENSTOCK_SECOND_SECRET needs PENSTOCK_SECRET")
        return self

    @model_validator(mode="after")
    def _parts_roles(self) -> Self:
        """Refuse to set only some of the database's roles: set all three or only one."""
        roles = (self.database_owner_url, self.database_keeper_url)
        if any(roles) and not all((*roles, self.database_url)):
            raise ValueError(
                "PENSTOCK_DATABASE_OWNER_URL, PENSTOCK_DATABASE_KEEPER_URL and "
                "PENSTOCK_DATABASE_URL (of the workers) are needed together"
            )
        return self

    @property
    def in_the_clear(self) -> bool:
        """Whether credentials and records leave this machine without TLS."""
        return self.tls_dir is None and not is_loopback(self.host)

    @property
    def url(self) -> str:
        """The URL where clients reach the hub."""
        if self.public_url is not None:
            return self.public_url
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls_dir is None else 'https'}://{host}:{self.port}"

    @property
    def token_issuer(self) -> str:
        """The name under which the hub issues tokens."""
        return self.issuer if self.issuer is not None else self.url

    @property
    def checkpoint_file(self) -> Path:
        """Where the audit's checkpoints are appended."""
        return self.audit_file or self.data_dir / "audit" / "checkpoints.jsonl"

    @property
    def archive_folder(self) -> Path:
        """Where days of the audit are archived."""
        return self.audit_archive or self.data_dir / "audit" / "archive"

    @property
    def ready_file(self) -> Path:
        """Holds the process id of the supervisor while its hub is ready."""
        return self.data_dir / "ready"
