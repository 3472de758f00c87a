"""Retires a root secret: nothing is opened with it any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penstockd.auth.secret import SECOND_SECRET, SECRET, load_secrets
from penstockd.config import Settings
from penstockd.installation import open_ring
from penstockd.rotation.sealed import seal_again
from penstockd.rotation.survey import SecretStatus, describe_protected, list_statuses
from penstockd.store.root_secrets import lock_root_secrets, read_root_secrets
from penstockd.up import OPERATORS_ERRORS, StartRefused, explain_error, open_store

#: Renewed digests replace those under the retired secret. This changes the policy, so that every
#: process reads them.
_FOLD_DIGESTS = """
UPDATE hub.credential AS c SET digest = d.digest, root_secret_id = d.root_secret_id
FROM hub.credential_digest AS d WHERE d.credential_id = c.credential_id
"""


@dataclass(frozen=True, slots=True)
class Retirement:
    """The result of ``retire_secret``. ``promoted``: the other secret replaced the retired one in
    the data folder."""

    secret_id: str
    promoted: bool


async def retire_secret(settings: Settings, secret_id: str, *, now: bool) -> Retirement:
    """Stop opening anything with a secret.

    Raises StartRefused if the secret seals, or if something depends on it, unless ``now`` is set:
    then what depends on it is refused from then on.
    """
    try:
        async with open_store(
            settings, "hub.root_secret", settings.database_keeper_url
        ) as database:
            ring = open_ring(settings)
            async with database.transaction() as connection:
                await lock_root_secrets(connection)
                await read_root_secrets(connection, ring)
                if ring.find(secret_id) is not None:
                    await seal_again(connection, ring, ring.sealing)
                _check_retirable(
                    await list_statuses(settings, connection, ring), secret_id, now=now
                )
                await connection.execute(_FOLD_DIGESTS)
                await connection.execute("DELETE FROM hub.credential_digest")
                await connection.execute(
                    "UPDATE hub.root_secret SET retire_time = coalesce(retire_time, now())"
                    " WHERE root_secret_id = $1",
                    secret_id,
                )
            return Retirement(secret_id, _promote_second(settings, secret_id))
    except OPERATORS_ERRORS as exc:
        raise StartRefused(explain_error(settings, exc)) from exc


def _check_retirable(found: Sequence[SecretStatus], secret_id: str, *, now: bool) -> None:
    """Raise StartRefused if a secret cannot be retired, naming what depends on it."""
    status = next((s for s in found if s.secret_id == secret_id), None)
    if status is None or status.state == "new":
        raise StartRefused(f"there is no secret {secret_id} to retire: see penstock secret status")
    if status.state in ("seals", "next"):
        raise StartRefused(f"secret {secret_id} seals, or is to: rotate it first")
    held = [p for p in status.protects if p.holds]
    if status.state == "opens" and held and not now:
        raise StartRefused(
            f"secret {secret_id} still protects "
            + ", ".join(describe_protected(p) for p in held)
            + "; wait, or retire it with --now: that is refused from then on"
        )


def _promote_second(settings: Settings, retired: str) -> bool:
    """Replace a retired first secret of the data folder by the second one."""
    first, second = settings.data_dir / SECRET, settings.data_dir / SECOND_SECRET
    if settings.secret is not None or not second.exists():
        return False
    found = load_secrets((None,), settings.data_dir)
    if found[0].secret_id != retired:
        return False
    os.replace(second, first)
    _sync_folder(settings.data_dir)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
