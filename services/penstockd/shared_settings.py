"""The settings on which nodes that share a database must agree."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from penstockd.config import Settings


class Scope(enum.Enum):
    """Whether nodes that share a database must agree on a setting."""

    NODE = "each node its own"
    WARN = "a node that differs says so"
    STAND_BY = "a node that differs says so, and leaves the keepers' work to the others"


#: Every setting. A node stands by if it differs in a setting for work that one node does for all
#: (deliveries, retention, keys); it warns if it differs in a setting for calls. The secrets are not
#: compared: while they are rotated nodes differ, and a node without the one that seals ends.
SCOPES: Mapping[str, Scope] = {
    "data_dir": Scope.NODE,
    "host": Scope.NODE,
    "port": Scope.NODE,
    "public_url": Scope.STAND_BY,
    "tls_dir": Scope.NODE,
    "tls_client_ca": Scope.NODE,
    "allow_plaintext": Scope.NODE,
    "trusted_proxies": Scope.WARN,
    "max_connections": Scope.NODE,
    "rate_limit": Scope.WARN,
    "rate_burst": Scope.WARN,
    "refused_calls": Scope.WARN,
    "cors_origins": Scope.WARN,
    "database_url": Scope.NODE,
    "database_owner_url": Scope.NODE,
    "database_keeper_url": Scope.NODE,
    "workers": Scope.NODE,
    "secret": Scope.NODE,
    "second_secret": Scope.NODE,
    "issuer": Scope.STAND_BY,
    "audience": Scope.STAND_BY,
    "token_minutes": Scope.WARN,
    "key_days": Scope.STAND_BY,
    "policy_stale_seconds": Scope.WARN,
    "loopback_issuers": Scope.WARN,
    "issuer_allow": Scope.WARN,
    "export_connections": Scope.NODE,
    "export_resume_seconds": Scope.WARN,
    "snapshot_seconds": Scope.WARN,
    "export_stall_seconds": Scope.WARN,
    "import_stall_seconds": Scope.WARN,
    "import_seconds": Scope.WARN,
    "log_retention_hours": Scope.STAND_BY,
    "stream_stall_seconds": Scope.WARN,
    "max_streams": Scope.WARN,
    "webhook_allow": Scope.STAND_BY,
    "webhook_days": Scope.STAND_BY,
    "usage_minute_days": Scope.STAND_BY,
    "usage_hour_days": Scope.STAND_BY,
    "usage_day_days": Scope.STAND_BY,
    "audit_file": Scope.NODE,
    "audit_checkpoint_seconds": Scope.STAND_BY,
    "audit_days": Scope.STAND_BY,
    "audit_archive": Scope.NODE,
    "differing_settings": Scope.WARN,
    "statement_seconds": Scope.WARN,
    "lock_seconds": Scope.WARN,
    "wait_seconds": Scope.WARN,
    "commit_seconds": Scope.WARN,
    "connections": Scope.NODE,
    "resources": Scope.NODE,
    "disk_reserve_mb": Scope.NODE,
    "metrics_port": Scope.NODE,
    "metrics_host": Scope.NODE,
    "log_level": Scope.NODE,
    "otlp_endpoint": Scope.NODE,
}


def shared_values(settings: Settings) -> dict[str, str]:
    """The values that nodes compare, by setting: those in force."""
    given = {name: getattr(settings, name) for name, s in SCOPES.items() if s is not Scope.NODE}
    given |= {"public_url": settings.url, "issuer": settings.token_issuer}
    return {
        name: ",".join(sorted(map(str, value))) if isinstance(value, tuple) else str(value)
        for name, value in given.items()
    }
